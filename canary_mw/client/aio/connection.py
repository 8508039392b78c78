"""One HTTP/1.1 connection to an upstream, for asyncio, and its current exchange (RFC 9112).

A connection is reused only if nothing of the last exchange is left on it: otherwise one user could get the response of
another.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import cast

from canary_mw.client import limits
from canary_mw.client.aio.roles import Owner, Reader
from canary_mw.client.aio.sockets import close_after_loop, ended_by_peer, iter_unread
from canary_mw.client.aio.timed_parser import TimedResponseParser, Upload
from canary_mw.client.interfaces import Waiter
from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.http.request_writer import BodyEncoder
from canary_mw.rules.upstream import DEFAULT_OPTIONS, Origin, UpstreamOptions

# Bytes of unread body beyond which reading is paused.
HIGH_WATER = 65536


class Connection(TimedResponseParser, asyncio.Protocol):
    """One connection and its current exchange. A waiter is notified once per segment, not once per parser callback.

    Args:
        pool: the owner of the connection.
        authority: see `ResponseParser`.
        max_head: see `ResponseParser`.
        alive: contains the connection while its transport is open.

    Attributes:
        closed: nothing can be sent any more.
        error: why the response will never be complete, or None.
        options: those of the current or the last request.
        reused: the connection has served a request before.
        opened_at: loop time at which it was opened.
    """

    __slots__ = (
        *("_alive", "_closed_future", "_drained", "_has_upload", "_pool", "_pooled", "_reader", "_reading_paused"),
        *("_transport", "_upload", "_waiter", "_writing_paused", "closed", "error", "opened_at", "options", "reused"),
    )

    _transport: asyncio.Transport

    def __init__(self, pool: Owner, authority: str, max_head: int, alive: "set[Connection]") -> None:
        super().__init__(authority, max_head, asyncio.get_running_loop())
        self._pool = pool
        self._alive = alive
        self.closed = self._pooled = self.reused = False
        self.error: Exception | None = None
        self.options = DEFAULT_OPTIONS
        self.opened_at = self._last_activity
        self._reading_paused = self._writing_paused = self._has_upload = False
        self._upload: asyncio.Task[None] | None = None
        self._waiter: Waiter | None = None
        self._reader: Reader | None = None
        self._drained: asyncio.Future[None] | None = None
        self._closed_future: asyncio.Future[None] | None = None

    def register(self) -> None:
        """Take a slot of the pool; from here on, closing the connection discards it from the pool."""
        # Not in connection_made: uvloop does not call connection_lost when create_connection was cancelled.
        self._pooled = True
        self._alive.add(self)

    # The exchange: called by the client and the response.

    async def exchange(
        self, data: bytes, head_only: bool, deadline: float, upload: "Upload | None", options: UpstreamOptions
    ) -> None:
        """Send a request; return when the response head is received, or raise the error of the exchange."""
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
            data: the request head, and the body if it is known whole.
            head_only: the response has no body, as to HEAD.
            deadline: loop time.
            upload: a body that is sent in chunks.
            options: those of the request.
            waiter: notified once, when `head` or `error` is set.
        """
        self._waiter = waiter
        self._start_response(head_only)
        self._send(data, deadline, options)
        self._has_upload = upload is not None
        if upload is not None:
            self._upload = self._loop.create_task(self._send_body(*upload))

    def begin_reading(self, data: bytes, deadline: float, options: UpstreamOptions, reader: Reader) -> None:
        """As `begin`, for a request without a body, not HEAD, whose response `reader` may read past the parser."""
        if self.head is not None:
            self._start_response(False)
            self._has_upload = False
        self.complete = False
        self._waiter = self._reader = reader
        self._send(data, deadline, options)

    def _send(self, data: bytes, deadline: float, options: UpstreamOptions) -> None:
        self.options = options
        self._deadline = deadline
        self._idle_timeout = options.idle_timeout
        if self._idle_timeout is not None:
            self._last_activity = self._loop.time()
            deadline = min(deadline, self._last_activity + self._idle_timeout)
        if deadline < self._timer_at:
            self._arm(deadline)
        self._transport.write(data)

    def finish(self) -> None:
        """The reader has read a response that is complete: return to the pool, where `release` would."""
        self._waiter, self.complete, self._keep_alive = None, True, True
        if self.closed or self._transport.get_write_buffer_size():
            self.release()
        else:
            self._pool.release(self)

    async def wait(self) -> None:
        """Wait until a part of the response is received, or the exchange fails. Cancellation closes the connection."""
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        except BaseException:
            self._waiter = None
            self.fail(UpstreamProtocolError(f"{self._authority}: the exchange was cancelled", sent=True))
            raise

    def take_buffered(self) -> bytes:
        """Return and clear the body bytes received so far."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._reading_paused and not self.closed:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def release(self) -> None:
        """Return to the pool if nothing of the exchange is left in either direction, else close."""
        if (
            self.complete
            and self._keep_alive
            and not self.closed
            and self._upload is None
            and not self._transport.get_write_buffer_size()
        ):
            self.take_buffered()
            self._pool.release(self)
        else:
            self.fail(UpstreamProtocolError(f"{self._authority}: the answer was closed before its end", sent=True))

    def fail(self, error: Exception) -> None:
        """Close at once. An incomplete exchange ends with `error`; the first error is kept."""
        if not self.complete and self.error is None:
            self.error = error
        if not self.closed:
            self._mark_closed()
            self._transport.abort()
        self._wake()

    @property
    def origin(self) -> Origin:
        """The origin that the connection leads to."""
        return self._pool.origin

    async def wait_closed(self) -> None:
        """Wait until the transport has closed its socket."""
        self._closed_future = self._loop.create_future()
        await self._closed_future

    def close_after_loop(self) -> None:
        """Close after the event loop was closed; pool, timers and waiters are of that loop, and left alone."""
        self.closed = True
        self._waiter = self._closed_future = None
        close_after_loop(self._transport)

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

    # The request body.

    async def _send_body(self, body: AsyncIterator[bytes], length: int | None, head_timeout: float | None) -> None:
        try:
            encoder = BodyEncoder(length)
            async for chunk in body:
                if data := encoder.encode(chunk):
                    await self._write(data, limits.MAX_UPLOAD_STALL if head_timeout is not None else math.inf)
            self._transport.write(encoder.finish())
            self._record_activity()
            self._upload = None
            if head_timeout is not None and self.head is None:
                self._limit(self._loop.time() + head_timeout)
        except Exception as exc:  # noqa: BLE001 - an error of the request body is raised where the response is awaited
            self._upload = None
            self.fail(exc)

    async def _write(self, data: bytes, max_stall: float) -> None:
        self._transport.write(data)
        self._record_activity()
        deadline = self._deadline
        while self._writing_paused:
            self._limit(self._loop.time() + max_stall)
            self._drained = self._loop.create_future()
            await self._drained
            if self.head is None:
                self._deadline = deadline

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._record_activity()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # The response: called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is not None:
            self._reader = None  # what it does not take, the parser has to see whole
            if reader.read(data):
                return
        if self._idle_timeout is not None:
            self._last_activity = self._loop.time()
        error = self._feed(data)
        if error is not None:
            self.fail(error)
        elif self._buffered > HIGH_WATER and not self.complete and not self._reading_paused and not self.closed:
            self._reading_paused = True
            self._transport.pause_reading()
        if self.head is not None:
            self._wake()

    def eof_received(self) -> None:
        if self._until_eof and ended_by_peer(self._transport):
            self.complete = True
        self._on_close()
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alive.discard(self)
        if exc is not None and self._has_upload and not self.complete and not self.closed:
            self._read_early_response()
        self._on_close()
        self._parser = None
        if self._closed_future is not None:
            self._closed_future.set_result(None)

    def _read_early_response(self) -> None:
        """Read the response that the upstream sent before it closed the connection during the upload."""
        unread = iter_unread(self._transport)
        while not self.closed and (data := next(unread, b"")):
            self.data_received(data)

    def _on_close(self) -> None:
        if self.closed:
            self._wake()
            return
        if not self.complete:
            self.error = self._eof_error()
        self._mark_closed()
        self._wake()
