"""One HTTP/1.1 connection to an upstream, and the exchange that is on it (RFC 9112).

A connection that cannot be proven clean is never used again: that keeps one user's answer from the next.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Protocol, cast

from canary_mw.client.aio.timed_parser import TimedResponseParser
from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.http.request_writer import BodyEncoder
from canary_mw.rules.upstream import DEFAULT_OPTIONS, Origin, UpstreamOptions

HIGH_WATER = 65536

Upload = tuple[AsyncIterator[bytes], int | None]


class Waiter(Protocol):
    """Who waits for an answer: a future, or who wants to be called at once."""

    def done(self) -> bool:
        """Whether it waits no more."""

    def set_result(self, result: None, /) -> None:
        """Something has come."""


class Owner(Protocol):
    """The pool of a connection."""

    origin: Origin

    def release(self, connection: "Connection") -> None:
        """It may serve again."""

    def discard(self, connection: "Connection") -> None:
        """It was closed."""


class Connection(TimedResponseParser, asyncio.Protocol):
    """One connection and the exchange that is on it; whoever waits is woken once per segment, not once per callback.

    Args:
        pool: where it is given back.
        authority: see `Answer`.
        max_head: see `Answer`.
        alive: holds the connection for as long as its transport is open.

    Attributes:
        closed: nothing can be sent any more.
        error: why the answer will never be complete, or None.
        options: of the request that it serves, or served last.
        reused: it has served a request before.
        since: loop time at which it was made.
    """

    __slots__ = (
        "_alive",
        "_drained",
        "_lost",
        "_pool",
        "_pooled",
        "_reading_paused",
        "_transport",
        "_upload",
        "_uploads",
        "_waiter",
        "_writing_paused",
        "closed",
        "error",
        "options",
        "reused",
        "since",
    )

    _transport: asyncio.Transport

    def __init__(self, pool: Owner, authority: str, max_head: int, alive: "set[Connection]") -> None:
        super().__init__(authority, max_head, asyncio.get_running_loop())
        self._pool = pool
        self._alive = alive
        self.closed = self._pooled = self.reused = False
        self.error: Exception | None = None
        self.options = DEFAULT_OPTIONS
        self.since = self._last
        self._reading_paused = self._writing_paused = self._uploads = False
        self._upload: asyncio.Task[None] | None = None
        self._waiter: Waiter | None = None
        self._drained: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[None] | None = None

    def register(self) -> None:
        """It holds a slot of the pool from here, and has the pool forget it when it closes."""
        # Not when the connection is made: uvloop never reports the loss of one whose opening was cancelled.
        self._pooled = True
        self._alive.add(self)

    # The exchange, as its caller drives it.

    async def exchange(
        self, data: bytes, head_only: bool, deadline: float, upload: "Upload | None", options: UpstreamOptions
    ) -> None:
        """Send a request; return when `head` is there, or raise why it never will be."""
        self.begin(data, head_only, deadline, upload, options)
        await self.wait()
        if self.head is None:
            assert self.error is not None
            raise self.error

    def begin(
        self,
        data: bytes,
        head_only: bool,
        deadline: float,
        upload: "Upload | None",
        options: UpstreamOptions,
        waiter: "Waiter | None" = None,
    ) -> None:
        """Send a request.

        Args:
            waiter: is told, once, when `head` or `error` is there.
        """
        self._waiter = waiter
        self._expect(head_only)
        self.options = options
        self._deadline = deadline
        self._idle = options.idle_timeout
        if self._idle is not None:
            self._last = self._loop.time()
            deadline = min(deadline, self._last + self._idle)
        if deadline < self._timer_at:
            self._arm(deadline)
        self._transport.write(data)
        self._uploads = upload is not None
        if upload is not None:
            self._upload = self._loop.create_task(self._send_body(*upload))

    async def wait(self) -> None:
        """Until something of the answer came, or it failed; to be cancelled here closes the connection."""
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        except BaseException:
            self._waiter = None
            self.fail(UpstreamProtocolError(f"{self._authority}: the exchange was given up", sent=True))
            raise

    def take_pieces(self) -> bytes:
        """What has come of the body and was not taken yet."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if self._reading_paused and not self.closed:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def release(self) -> None:
        """Back to the pool if the exchange left nothing behind in either direction, else close."""
        if (
            self.complete
            and self._keep_alive
            and not self.closed
            and self._upload is None
            and not self._transport.get_write_buffer_size()
        ):
            self.take_pieces()
            self._pool.release(self)
        else:
            self.fail(UpstreamProtocolError(f"{self._authority}: the answer was closed before its end", sent=True))

    def fail(self, error: Exception) -> None:
        """Close at once; an exchange that is not complete ends with `error`, the first one counts."""
        if not self.complete and self.error is None:
            self.error = error
        if not self.closed:
            self._mark_closed()
            self._transport.abort()
        self._wake()

    @property
    def origin(self) -> Origin:
        """Where it leads."""
        return self._pool.origin

    async def wait_closed(self) -> None:
        """Until the transport has let go."""
        self._lost = self._loop.create_future()
        await self._lost

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _mark_closed(self) -> None:
        self.closed = True
        self._disarm()
        if self._upload is not None:
            self._upload.cancel()
        if self._pooled:
            self._pool.discard(self)

    # Upload.

    async def _send_body(self, body: AsyncIterator[bytes], length: int | None) -> None:
        try:
            framing = BodyEncoder(length)
            async for piece in body:
                if data := framing.add(piece):
                    await self._write(data)
            self._transport.write(framing.end())
            self._moved()
            self._upload = None
        except Exception as exc:  # noqa: BLE001 - whatever the client's body raised is for the one who awaits the answer
            self._upload = None
            self.fail(exc)

    async def _write(self, data: bytes) -> None:
        self._transport.write(data)
        self._moved()
        while self._writing_paused:
            self._drained = self._loop.create_future()
            await self._drained

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._moved()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # Download: called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._idle is not None:
            self._last = self._loop.time()
        error = self._feed(data)
        if error is not None:
            self.fail(error)
        elif self._unread > HIGH_WATER and not self.complete and not self._reading_paused and not self.closed:
            self._reading_paused = True
            self._transport.pause_reading()
        if self.head is not None:
            self._wake()

    def eof_received(self) -> None:
        if self._until_eof:
            self.complete = True
        self._ended()
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alive.discard(self)
        if exc is not None and self._uploads and not self.complete and not self.closed:
            self._rescue_answer()
        self._ended()
        self._parser = None
        if self._lost is not None:
            self._lost.set_result(None)

    def _rescue_answer(self) -> None:
        """Read what the upstream said before it cut the upload off: the loops read no more once a write has failed."""
        if self._transport.get_extra_info("sslcontext") is not None:
            return
        descriptor = self._transport.get_extra_info("socket").fileno()
        with suppress(OSError), socket.fromfd(descriptor, socket.AF_UNSPEC, socket.SOCK_STREAM) as copy:
            while not self.closed and (data := copy.recv(HIGH_WATER, socket.MSG_DONTWAIT)):
                self.data_received(data)

    def _ended(self) -> None:
        if self.closed:
            self._wake()
            return
        if not self.complete:
            self.error = self._early_end()
        self._mark_closed()
        self._wake()
