"""A request body that is kept while it is sent, for a retry and for a shadow."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from canary_mw.forwarding.fallback import KeptBody
from canary_mw.http.messages import BodyFraming

if TYPE_CHECKING:
    from canary_mw.upstreams.aio import OpenBody


class BodyBuffer:
    """The part of a body that was read so far, up to a limit; a callback gets the whole body.

    Args:
        limit: bytes that are kept; a longer body is not kept at all.
        keeps_first: the first chunk is kept until the next one is read, however long it is. It is read before a
            connection is there, so that it can go elsewhere when there is none.
    """

    __slots__ = ("_chunks", "_complete", "_keeps_first", "_limit", "_on_complete", "_overflowed", "_size")

    def __init__(self, limit: int, *, keeps_first: bool = False) -> None:
        self._limit = limit
        self._keeps_first = keeps_first
        self._chunks: list[bytes] = []
        self._size = 0
        self._overflowed = self._complete = False
        self._on_complete: Callable[[bytes | None], None] | None = None

    def can_replay(self) -> bool:
        """Whether all that was read is kept."""
        return not self._overflowed

    def state(self, framing: BodyFraming) -> KeptBody:
        """What is known of a body with this framing."""
        length = self._size if framing.length is None and self._complete else framing.length
        return KeptBody(self.can_replay(), length)

    def when_complete(self, callback: Callable[[bytes | None], None]) -> None:
        """Call a function with the whole body as soon as it was read; with None once that cannot happen any more."""
        if self._complete or self._size > self._limit:
            callback(None if self._size > self._limit else b"".join(self._chunks))
        else:
            self._on_complete = callback

    def feed(self, chunk: bytes, *, last: bool) -> None:
        """Add a chunk that was read elsewhere."""
        if not self._complete:
            self._append(chunk)
            if last:
                self._finish()

    def close(self) -> None:
        """Nothing more is read."""
        self._notify(None)

    def _append(self, chunk: bytes) -> None:
        first = not self._size
        self._size += len(chunk)
        if self._size > self._limit:
            self._notify(None)
            self._overflowed = not (first and self._keeps_first)
        if self._overflowed:
            self._chunks.clear()
        else:
            self._chunks.append(chunk)

    def _finish(self) -> None:
        self._complete = True
        if not self._overflowed:
            self._notify(b"".join(self._chunks))

    def _notify(self, body: bytes | None) -> None:
        callback, self._on_complete = self._on_complete, None
        if callback is not None:
            callback(body)


class ReplayBuffer(BodyBuffer):
    """Keeps a body up to a limit while it is read, so that it can be sent again.

    At most one read of the source is pending. It outlives an attempt that was cancelled, and the next attempt gets its
    chunk.

    Args:
        source: gives the body; called once. None if it is read elsewhere and added by `feed`.
        limit: bytes that are kept.
        loop: the running one.
    """

    __slots__ = ("_loop", "_pending_read", "_source", "_source_chunks")

    def __init__(
        self, source: "OpenBody | None", limit: int, loop: asyncio.AbstractEventLoop, *, keeps_first: bool = False
    ) -> None:
        super().__init__(limit, keeps_first=keeps_first)
        self._source = source
        self._loop = loop
        self._source_chunks: AsyncIterator[bytes] | None = None
        self._pending_read: asyncio.Task[bytes | None] | None = None

    @property
    def opened(self) -> bool:
        """Whether the source was read."""
        return self._complete or self._source_chunks is not None

    async def open(self) -> bytes | AsyncIterator[bytes]:
        """The body from its beginning; after the first call only while `can_replay`."""
        if self._complete:
            return b"".join(self._chunks)
        if self._source_chunks is None:
            assert self._source is not None
            body = await self._source()
            if isinstance(body, bytes):
                self._append(body)
                self._finish()
                return body
            self._source_chunks = body
        return _ReplayedBody(self, tuple(self._chunks))

    async def next(self) -> bytes:
        """The next new chunk; raises StopAsyncIteration at the end of the body."""
        if self._complete:
            raise StopAsyncIteration
        if self._overflowed and self._pending_read is None:
            # No other attempt can follow this one.
            return self._record(await self._read())
        if self._pending_read is None:
            self._pending_read = self._loop.create_task(self._read())
        chunk = await asyncio.shield(self._pending_read)
        self._pending_read = None
        return self._record(chunk)

    def _record(self, chunk: bytes | None) -> bytes:
        if chunk is None:
            self._finish()
            raise StopAsyncIteration
        self._append(chunk)
        return chunk

    async def _read(self) -> bytes | None:
        assert self._source_chunks is not None
        return await anext(self._source_chunks, None)

    def close(self) -> None:
        """Nothing more is read."""
        self._notify(None)
        if self._pending_read is None:
            return
        if self._pending_read.done():
            # Retrieved, so that asyncio does not report it as never retrieved.
            _ = self._pending_read.cancelled() or self._pending_read.exception()
        else:
            self._pending_read.cancel()


class _ReplayedBody:
    """A body from its beginning: the chunks that were kept, then new ones."""

    __slots__ = ("_buffer", "_chunks")

    def __init__(self, buffer: ReplayBuffer, kept: tuple[bytes, ...]) -> None:
        self._buffer = buffer
        self._chunks = iter(kept)

    def __aiter__(self) -> "_ReplayedBody":
        return self

    async def __anext__(self) -> bytes:
        chunk = next(self._chunks, None)
        return await self._buffer.next() if chunk is None else chunk


class SyncReplayBuffer(BodyBuffer):
    """A `ReplayBuffer` for a thread.

    Args:
        source: see `ReplayBuffer`.
    """

    __slots__ = ("_source", "_source_chunks")

    def __init__(
        self, source: Callable[[], bytes | Iterator[bytes]] | None, limit: int, *, keeps_first: bool = False
    ) -> None:
        super().__init__(limit, keeps_first=keeps_first)
        self._source = source
        self._source_chunks: Iterator[bytes] | None = None

    @property
    def opened(self) -> bool:
        """Whether the source was read."""
        return self._complete or self._source_chunks is not None

    def open(self) -> bytes | Iterator[bytes]:
        """The body from its beginning; after the first call only while `can_replay`."""
        if self._complete:
            return b"".join(self._chunks)
        if self._source_chunks is None:
            assert self._source is not None
            body = self._source()
            if isinstance(body, bytes):
                self.feed(body, last=True)
                return body
            self._source_chunks = body
        return chain(tuple(self._chunks), self._rest(self._source_chunks))

    def _rest(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._append(chunk)
            yield chunk
        self._finish()
