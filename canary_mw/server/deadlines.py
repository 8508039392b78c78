"""How the connection of a client ends: deadlines for a client that stalls, error responses, and graceful shutdown."""

import asyncio
import logging
import select
from typing import Any, cast
from weakref import WeakSet

from uvicorn.config import Config

from canary_mw.http.response_writer import ERROR_RESPONSES
from canary_mw.observability.counters import RefusalCounters
from canary_mw.server.half_closed import ProbingTransport, bytes_acked
from canary_mw.server.response_cycle import GuardedCycle
from canary_mw.server.timers import timer_of
from canary_mw.server.uvicorn_internals import HttpToolsProtocol, ServerState

logger = logging.getLogger("canary_mw.protocol")

# In ticks of the timer, which are seconds; each deadline may be late by one tick. FIRST_BYTE: a new connection that has
# not sent anything. HEAD: a request head, from its first byte to its last. BODY: between two chunks of a request body.
# LINGER: what a refused client still sends is read and dropped, so that a reset does not discard the response before
# the client has read it. WRITE: a response of which the client reads nothing.
FIRST_BYTE_TIMEOUT, HEAD_TIMEOUT, BODY_TIMEOUT, LINGER_TIMEOUT, WRITE_TIMEOUT = 60, 10, 30, 5, 60
# HALF_CLOSED: a client that has ended its sending side within an answer, and has taken nothing of it since.
HALF_CLOSED_TIMEOUT = 2
# Seconds that an idle connection stays open while the server shuts down.
SHUTDOWN_IDLE = 1
NEVER = 1 << 62

# Seconds between two checks for a disconnect while reading is paused.
DISCONNECT_POLL = 0.25
# Linux only: the peer has closed its side, even if bytes before that are still unread.
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)
# Servers that shut down. Such a server may still get a connection that the kernel had accepted before.
_SHUTTING_DOWN: WeakSet[ServerState] = WeakSet()


class DeadlineProtocol(HttpToolsProtocol):
    """Ends the connection of a client; a subclass reads the requests and sets the deadlines."""

    # The request that was read last, a GuardedCycle or a FastPathRequest.
    cycle: Any

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer = timer_of(self.loop)
        self._refusals: RefusalCounters = app_state.get(RefusalCounters.KEY) or RefusalCounters()
        # What is being read: "idle" between requests, "head", "body", or "closing" when nothing is read any more.
        self._phase = "idle"
        self._deadline = NEVER
        # The request that is being answered; it lags behind `cycle` when requests are pipelined.
        self._active_cycle: Any = None
        # An error response that waits for the responses before it.
        self._pending_error: bytes | None = None
        self._shutting_down = server_state in _SHUTTING_DOWN
        self._polling_disconnect = False
        # The client sends no more, but what it has sent is not yet read.
        self._sender_ended = False
        # The client sends no more, but is answered; and the bytes that it had taken by then.
        self._half_closed = False
        self._taken: int | None = None
        # Bytes in the write buffer at the last tick, and the tick by which that number has to change.
        self._unwritten = 0
        self._write_deadline = NEVER

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: answer what it has asked for whole, then close (RFC 9112, section 9.6).

        Returns:
            Whether the transport stays open. That of TLS cannot.
        """
        if not self._busy() or not self.transport.can_write_eof() or not self._drop_partial_request():
            return False
        if not self._half_closed:
            self._half_closed = True
            self._watch_half_closed()
        return True

    def _drop_partial_request(self) -> bool:
        """Let the last request that came whole be the last one; false when there is none."""
        if self._phase == "body":
            if not self.pipeline:
                return False
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._active_cycle
        if self._phase != "closing":
            self.cycle.keep_alive = False
            self._phase = "idle"
        return True

    def _watch_half_closed(self) -> None:
        """Find out whether a client that sends no more waits for its answer, or has left."""
        cycle = self._active_cycle
        self._deadline = NEVER
        if cycle.response_started:
            self._taken = bytes_acked(self.transport.get_extra_info("socket"))
            self._deadline = self._timer.now + HALF_CLOSED_TIMEOUT
            return
        transport: asyncio.Transport = getattr(self.transport, "transport", self.transport)
        self.transport = cast(asyncio.Transport, ProbingTransport(transport, self.loop))
        if isinstance(cycle, GuardedCycle):
            cycle.transport = self.transport

    def resume_writing(self) -> None:
        """The client has read enough; the next write may leave as many bytes in the buffer."""
        self._unwritten = 0
        super().resume_writing()

    def shutdown(self) -> None:
        """The server shuts down: a request that is still on its way is answered, with `connection: close`.

        To close at once, as uvicorn does, would lose a request that an idle client sends at that moment.
        """
        self._shutting_down = True
        _SHUTTING_DOWN.add(self.server_state)
        if not self._busy():
            self._deadline = min(self._deadline, self._timer.now + SHUTDOWN_IDLE)
        elif not self.cycle.response_started:
            # When the head has been sent without `connection: close`, the next response carries it.
            self.cycle.keep_alive = False

    def on_tick(self, now: int) -> None:
        """Check the deadlines; called at every tick."""
        if self._write_timed_out(now):
            logger.info("client %s has taken nothing for %d s: its connection is ended", self.client, WRITE_TIMEOUT)
            self._refusals.count_stalled()
            self.transport.abort()
            return
        if now <= self._deadline:
            return
        if self._half_closed and self._busy() and self._takes_answer():
            self._deadline = now + WRITE_TIMEOUT
        elif self._phase == "closing":
            self.transport.abort()
        elif self._phase == "idle":
            self._deadline = NEVER
            self._close()
        elif self.flow.read_paused or (self._phase == "body" and self._waiting_for_app()):
            self._deadline = now + BODY_TIMEOUT
        else:
            self.refuse(408)

    def refuse(self, status: int) -> None:
        """Answer the request that is being read with an error, after the requests before it; then read no more."""
        response = ERROR_RESPONSES[status]
        self._refusals.count(status)
        cycle = self._active_cycle
        if self._phase == "body" and self.pipeline:
            self.pipeline.popleft()
        elif self._phase == "body" and isinstance(cycle, GuardedCycle):
            cycle.on_disconnect()
            if cycle.response_started:
                cycle.abort()
            else:
                self._send_error(response)
            return
        self._phase = "closing"
        self._deadline = NEVER
        self.headers = []
        if self._busy():
            self._pending_error = response
        else:
            self._send_error(response)

    def _busy(self) -> bool:
        return self._active_cycle is not None and not self._active_cycle.response_complete

    def _write_timed_out(self, now: int) -> bool:
        """Whether the client has read nothing for too long; bytes in the kernel's send buffer do not count."""
        unwritten = self.transport.get_write_buffer_size()
        if unwritten and unwritten == self._unwritten:
            return now > self._write_deadline
        self._unwritten = unwritten
        self._write_deadline = now + WRITE_TIMEOUT
        return False

    def _takes_answer(self) -> bool:
        """Whether a half-closed client has taken something since the last look; one that has left resets instead."""
        before, self._taken = self._taken, bytes_acked(self.transport.get_extra_info("socket"))
        return bool(self._active_cycle.response_started) if self._taken is None else self._taken != before

    def _waiting_for_app(self) -> bool:
        """Whether the app, not the client, is late: it has not read what came, or has not asked for any."""
        return bool(self.cycle.body) or self.cycle.waiting_for_100_continue

    def _start_disconnect_poll(self) -> None:
        """Poll for a disconnect from now on: a transport whose reading is paused does not report one."""
        self._polling_disconnect = True
        self.loop.call_later(DISCONNECT_POLL, self._poll_disconnect)

    def _poll_disconnect(self) -> None:
        self._polling_disconnect = self.flow.read_paused and not self.transport.is_closing()
        if self._polling_disconnect and peer_closed(self.transport.get_extra_info("socket").fileno()):
            # Reading on finds out whether the rest of the upload is there. It is no more than the system holds.
            self._polling_disconnect, self._sender_ended = False, True
            self.flow.resume_reading()
        elif self._polling_disconnect:
            self.loop.call_later(DISCONNECT_POLL, self._poll_disconnect)

    def _send_error(self, response: bytes) -> None:
        self.transport.write(response)
        self._end_connection(linger=True)

    def _end_connection(self, *, linger: bool) -> None:
        """End the connection.

        Args:
            linger: the client may still send; closing now would reset the connection before it has the response.
        """
        self._phase = "closing"
        if linger and not self._half_closed and self.transport.can_write_eof():
            self._deadline = self._timer.now + LINGER_TIMEOUT
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self._close()

    def _close(self) -> None:
        """Close the connection when all is written; only once, because asyncio's TLS transport fails at a second."""
        if not self.transport.is_closing():
            self.transport.close()


def peer_closed(descriptor: int) -> bool:
    """Whether the peer of a connection has closed or reset it, without reading from it."""
    poll = select.poll()
    poll.register(descriptor, _POLLRDHUP)
    return bool(poll.poll(0))
