"""How the connection of a client ends: deadlines for one that stalls, refusals, and the server that goes away."""

import asyncio
import logging
import select
from typing import Any
from weakref import WeakSet

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from canary_mw.http.response_writer import ERROR_RESPONSES
from canary_mw.observability.counters import RefusalCounters
from canary_mw.server.response_cycle import GuardedCycle
from canary_mw.server.timers import timer_of

logger = logging.getLogger("canary_mw.protocol")

# In ticks of the clock, which are seconds; each deadline may be late by one. A connection that has not yet sent
# anything; a head, from its first byte to its last; a body, between two pieces; the rest of what a refused client
# sends, thrown away so that a reset does not overtake the answer; and an answer of which the client takes nothing.
FIRST_BYTE_TIMEOUT, HEAD_TIMEOUT, BODY_TIMEOUT, LINGER_TIMEOUT, WRITE_TIMEOUT = 60, 10, 30, 5, 60
# Seconds that an idle connection stays open when the server is going away.
SHUTDOWN_IDLE = 1
NEVER = 1 << 62

# Seconds between two looks at a client of whom nothing is read.
DISCONNECT_POLL = 0.25
# Of Linux: the other side has sent its end, though there are bytes before it that nobody has read.
_ENDED = getattr(select, "POLLRDHUP", 0)
# Servers that are going away; one may still be handed a connection that the system had accepted before.
_LEAVING: WeakSet[ServerState] = WeakSet()


class DeadlineProtocol(HttpToolsProtocol):
    """A connection whose end is ours to say; what is read of it, and when something is due, a subclass says."""

    # The request that was read last, a GuardedCycle or a Trip.
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
        # What is being read: "idle" between requests, "head", "body", or "closing" when nobody reads any more.
        self._phase = "idle"
        self._due = NEVER
        self._running: Any = None
        self._refused: bytes | None = None
        self._last = server_state in _LEAVING
        self._glancing = False
        # Bytes that the client has not taken, at the last tick and when that number has to be another one.
        self._unwritten = 0
        self._write_due = NEVER

    def resume_writing(self) -> None:
        """The client has taken enough; what is written next may be just as much."""
        self._unwritten = 0
        super().resume_writing()

    def shutdown(self) -> None:
        """The server is going away: a request that is on its way still is answered, and told to be the last.

        To close at once, as uvicorn does, would lose what an idle client sends in that moment.
        """
        self._last = True
        _LEAVING.add(self.server_state)
        if not self._busy():
            self._due = min(self._due, self._timer.now + SHUTDOWN_IDLE)
        elif not self.cycle.response_started:
            # To whom a head without this news is on its way, the next answer tells it.
            self.cycle.keep_alive = False

    def on_tick(self, now: int) -> None:
        """See to the deadlines, at every tick."""
        if self._reads_no_more(now):
            logger.info("client %s has taken nothing for %d s: its connection is ended", self.client, WRITE_TIMEOUT)
            self._refusals.stalled += 1
            self.transport.abort()
            return
        if now <= self._due:
            return
        if self._phase == "closing":
            self.transport.abort()
        elif self._phase == "idle":
            self._due = NEVER
            self._close()
        elif self.flow.read_paused or (self._phase == "body" and self._app_is_late()):
            self._due = now + BODY_TIMEOUT
        else:
            self.refuse(408)

    def refuse(self, status: int) -> None:
        """Answer the request that is being read with an error, after those before it, and read no more."""
        answer = ERROR_RESPONSES[status]
        self._refusals.refuse(status)
        running = self._running
        if self._phase == "body" and self.pipeline:
            self.pipeline.popleft()
        elif self._phase == "body" and isinstance(running, GuardedCycle):
            running.on_disconnect()
            if running.response_started:
                running.abort()
            else:
                self._refuse_now(answer)
            return
        self._phase = "closing"
        self._due = NEVER
        self.headers = []
        if self._busy():
            self._refused = answer
        else:
            self._refuse_now(answer)

    def _busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _reads_no_more(self, now: int) -> bool:
        """Not one byte of what is to be written went out for too long; what can wait in the system does not count."""
        unwritten = self.transport.get_write_buffer_size()
        if unwritten and unwritten == self._unwritten:
            return now > self._write_due
        self._unwritten = unwritten
        self._write_due = now + WRITE_TIMEOUT
        return False

    def _app_is_late(self) -> bool:
        """The client has done its part: the app has not taken what came, or has not asked for any."""
        return bool(self.cycle.body) or self.cycle.waiting_for_100_continue

    def _glance_soon(self) -> None:
        """A transport that reads nothing does not tell that its client has left: look for that from now on."""
        self._glancing = True
        self.loop.call_later(DISCONNECT_POLL, self._glance)

    def _glance(self) -> None:
        self._glancing = self.flow.read_paused and not self.transport.is_closing()
        if self._glancing and peer_closed(self.transport.get_extra_info("socket").fileno()):
            self.transport.abort()
        elif self._glancing:
            self.loop.call_later(DISCONNECT_POLL, self._glance)

    def _refuse_now(self, answer: bytes) -> None:
        self.transport.write(answer)
        self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        """End the connection.

        Args:
            linger: more may come, and closing now would reset the connection before the client has the answer.
        """
        self._phase = "closing"
        if linger and self.transport.can_write_eof():
            self._due = self._timer.now + LINGER_TIMEOUT
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self._close()

    def _close(self) -> None:
        """End the connection when all is written; once, for a second time breaks asyncio's transport for TLS."""
        if not self.transport.is_closing():
            self.transport.close()


def peer_closed(descriptor: int) -> bool:
    """Whether the other side of a connection has ended or reset it, without reading of it."""
    poll = select.poll()
    poll.register(descriptor, _ENDED)
    return bool(poll.poll(0))
