"""One HTTP/2 connection to a gRPC server, for asyncio, with many calls at once: the twin of that for threads."""

import asyncio
import math
import ssl
from functools import partial
from typing import Protocol, cast

from canary_mw.client.aio.sockets import close_after_loop
from canary_mw.client.grpc.call import Call
from canary_mw.client.grpc.session import Session
from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamProtocolError, UpstreamTimeout


class Owner(Protocol):
    """The channel of a connection."""

    def has_room(self, connection: "GrpcConnection") -> None:
        """A call has ended, or the server allows more of them."""

    def discard(self, connection: "GrpcConnection") -> None:
        """Remove a closed connection."""


class GrpcConnection(asyncio.Protocol):
    """One connection and its calls.

    Args:
        owner: the channel of the connection.
        authority: the name of the server, for messages.
        alive: contains the connection while its transport is open.

    Attributes:
        context: the TLS settings that it was opened with.
        closed: nothing can be sent any more.
        calls_made: how many calls were opened on it.
        opened_at: loop time.
        idle_since: loop time at which the last call ended.
    """

    _transport: asyncio.Transport

    def __init__(
        self, owner: Owner, authority: str, context: ssl.SSLContext | None, alive: "set[GrpcConnection]"
    ) -> None:
        self._owner = owner
        self._authority = authority
        self._alive = alive
        self._loop = asyncio.get_running_loop()
        self._session = Session(authority)
        self._owned = False
        self._heard_at = -math.inf
        self._closed_future: asyncio.Future[None] | None = None
        self.context = context
        self.closed = False
        self.calls_made = 0
        self.opened_at = self.idle_since = self._loop.time()

    @property
    def room(self) -> int:
        """How many calls it takes now."""
        return 0 if self.closed else self._session.room

    @property
    def busy(self) -> bool:
        """Whether it has calls."""
        return bool(self._session.calls)

    @property
    def selected_protocol(self) -> str | None:
        """What the server has chosen in the TLS handshake; None without one."""
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return None if tls is None else tls.selected_alpn_protocol()

    def register(self) -> None:
        """Belong to the channel; from here on, closing the connection discards it there."""
        # Not in connection_made: uvloop does not call connection_lost when create_connection was cancelled.
        self._owned = True
        self._alive.add(self)

    async def exchange(self, call: Call, deadline: float) -> None:
        """Make a call; return when it has ended. The caller has asked for `room`; `deadline` is a loop time."""
        ended: asyncio.Future[None] = self._loop.create_future()
        call.on_end = partial(_set, ended)
        started = self._loop.time()
        timer = None if deadline == math.inf else self._loop.call_at(deadline, self._expire, call, started)
        self.calls_made += 1
        self._session.open(call)
        self._flush()
        try:
            await ended
        except BaseException:
            self._cancel(call, UpstreamProtocolError(f"{self._authority}: the call was cancelled", sent=True))
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._after_call()

    def retire(self) -> None:
        """Take no more calls, and close when those that run have ended."""
        self._session.retired = True
        self._close_if_done()

    def fail(self, error: UpstreamError) -> None:
        """Close at once; calls end with an error."""
        self._session.lose(error)
        if not self.closed:
            self._mark_closed()
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the transport has closed its socket."""
        self._closed_future = self._loop.create_future()
        await self._closed_future

    def close_after_loop(self) -> None:
        """Close after the event loop was closed; what else belongs to that loop is left alone."""
        self.closed = True
        self._closed_future = None
        close_after_loop(self._transport)

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._heard_at = self._loop.time()
        self._session.receive(data)
        self._flush()
        if self._session.error is not None:
            self.fail(self._session.error)
            return
        self._close_if_done()
        if self._owned and not self.closed:
            self._owner.has_room(self)

    def eof_received(self) -> None:
        self.fail(UpstreamConnectError(f"{self._authority}: the server has closed the connection", sent=True))

    def connection_lost(self, exc: Exception | None) -> None:
        self._alive.discard(self)
        reason = f"the connection was lost: {exc}" if exc else "the server has closed the connection"
        self._session.lose(UpstreamConnectError(f"{self._authority}: {reason}", sent=True))
        if not self.closed:
            self._mark_closed()
        if self._closed_future is not None:
            self._closed_future.set_result(None)

    def _flush(self) -> None:
        data = self._session.outgoing()
        if data and not self.closed:
            self._transport.write(data)

    def _expire(self, call: Call, started: float) -> None:
        text = f"{self._authority}: no answer to the call before the deadline"
        if self._heard_at < started:
            # Nothing at all has come: the server may be gone, and no other call is to wait for it.
            self._session.retired = True
        self._cancel(call, UpstreamTimeout(text, sent=True))

    def _cancel(self, call: Call, error: UpstreamError) -> None:
        self._session.cancel(call, error)
        self._flush()

    def _after_call(self) -> None:
        self.idle_since = self._loop.time()
        self._close_if_done()
        if not self.closed:
            self._owner.has_room(self)

    def _close_if_done(self) -> None:
        if self._session.retired and not self._session.calls:
            self.fail(UpstreamConnectError(f"{self._authority}: the connection takes no more calls"))

    def _mark_closed(self) -> None:
        self.closed = True
        if self._owned:
            self._owner.discard(self)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
