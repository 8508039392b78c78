"""Two connections whose bytes go from each to the other."""

import asyncio
from typing import Protocol, cast

# Bytes that wait for a peer that does not read, and bytes of one read.
BUFFER = 65536


class Owner(Protocol):
    """Who is told of a pair of connections."""

    def ended(self, pair: "Pair") -> None:
        """Both connections are over."""


class Pair:
    """The connection of a client, and that to an upstream once it is open.

    Attributes:
        received: bytes of the client.
        sent: bytes to the client.
        timed_out: whether it was ended for want of bytes.
    """

    __slots__ = (
        *("_idle", "_idle_timeout", "_loop", "_moved", "_owner"),
        *("client", "received", "sent", "timed_out", "upstream"),
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner, self._loop = owner, loop
        self.client, self.upstream = Side(self), Side(self)
        self.client.other, self.upstream.other = self.upstream, self.client
        self.received = self.sent = 0
        self.timed_out = False
        self._idle: asyncio.TimerHandle | None = None
        self._idle_timeout: float | None = None
        self._moved = 0.0

    def join(self, idle_timeout: float | None) -> None:
        """Let bytes go; both connections are open.

        Args:
            idle_timeout: seconds without a byte in either direction after which both are closed.
        """
        self._idle_timeout = idle_timeout
        self.moved()
        if idle_timeout is not None:
            self._idle = self._loop.call_later(idle_timeout, self._check_idle)
        self.client.hand_on_early()
        self.client.resume()
        self.upstream.resume()

    def moved(self) -> None:
        """A byte went through."""
        self._moved = self._loop.time()

    def close(self) -> None:
        """Close both connections once what is on its way is sent."""
        self.client.close()
        self.upstream.close()

    def abort(self) -> None:
        """End both connections at once."""
        for side in (self.client, self.upstream):
            if side.transport is not None:
                side.transport.abort()

    def lost(self) -> None:
        """One connection is over; the other one ends too."""
        self.close()
        if self.client.is_over and self.upstream.is_over:
            if self._idle is not None:
                self._idle.cancel()
            self._owner.ended(self)

    def _check_idle(self) -> None:
        assert self._idle_timeout is not None
        left = self._moved + self._idle_timeout - self._loop.time()
        if left <= 0:
            self.timed_out = True
            self.close()
        else:
            self._idle = self._loop.call_later(left, self._check_idle)


class Side(asyncio.BufferedProtocol):
    """One of the two connections.

    Attributes:
        transport: None before the connection is open.
        is_over: whether it is closed, or was never opened.
    """

    __slots__ = ("_early", "_pair", "_saw_end", "is_over", "other", "transport")

    other: "Side"

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.transport: asyncio.Transport | None = None
        self.is_over = True
        self._saw_end = False
        # What came before the upstream was there: uvloop reads once after `connection_made`, whatever that says.
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open; nothing is read yet."""
        # One of uvloop is no asyncio.Transport by its class.
        self.transport, self.is_over = cast("asyncio.Transport", transport), False
        self.transport.set_write_buffer_limits(high=BUFFER)
        self.transport.pause_reading()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where bytes are read into: one buffer for all connections, as it is emptied before the next read."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Send what was read to the other side."""
        pair, target = self._pair, self.other.transport
        pair.moved()
        if self is pair.client:
            pair.received += nbytes
        else:
            pair.sent += nbytes
        # A copy: the transport keeps what it cannot send at once.
        data = bytes(memoryview(_buffer)[:nbytes])
        if target is not None:
            target.write(data)
        else:
            self._early += data
            assert self.transport is not None
            self.transport.pause_reading()

    def hand_on_early(self) -> None:
        """Send what came before the other side was open, and its end."""
        target, early, self._early = self.other.transport, self._early, b""
        if target is not None and early:
            target.write(early)
        if target is not None and self._saw_end and target.can_write_eof():
            target.write_eof()

    def eof_received(self) -> bool:
        """No more comes from here. The other direction goes on, where the transports can do so."""
        self._saw_end = True
        target = self.other.transport
        if target is None:
            return True
        if self.other._saw_end or not target.can_write_eof():
            return False
        target.write_eof()
        return True

    def pause_writing(self) -> None:
        """This side takes no more: read no more from the other."""
        if self.other.transport is not None and not self.other.is_over:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side takes bytes again."""
        self.other.resume()

    def resume(self) -> None:
        """Read on."""
        if self.transport is not None and not self.is_over and not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self) -> None:
        """Close it once what is on its way is sent."""
        if self.transport is not None and not self.is_over:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self.is_over = True
        self._pair.lost()


_buffer = bytearray(BUFFER)
