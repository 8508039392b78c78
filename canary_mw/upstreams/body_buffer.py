"""A request body that is kept while it passes, for a second try and for a shadow."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canary_mw.upstreams.aio import OpenBody


class BodyBuffer:
    """What has passed of a body, up to a limit, and who wants to know when all of it has.

    Args:
        limit: bytes that are kept.
    """

    __slots__ = ("_at_end", "_ended", "_kept", "_limit", "_over", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[bytes] = []
        self._size = 0
        self._over = self._ended = False
        self._at_end: Callable[[bytes | None], None] | None = None

    def can_replay(self) -> bool:
        """Whether nothing that was read is lost."""
        return not self._over

    def when_complete(self, use: Callable[[bytes | None], None]) -> None:
        """Have `use` called with the whole body as soon as it is there; with None when it never will be."""
        if self._ended or self._over:
            use(None if self._over else b"".join(self._kept))
        else:
            self._at_end = use

    def feed(self, piece: bytes, *, last: bool) -> None:
        """A piece that was read elsewhere."""
        if not self._ended:
            self._keep(piece)
            if last:
                self._end()

    def close(self) -> None:
        """Nobody reads on."""
        self._tell(None)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            self._over = True
            self._kept.clear()
            self._tell(None)
        else:
            self._kept.append(piece)

    def _end(self) -> None:
        self._ended = True
        if not self._over:
            self._tell(b"".join(self._kept))

    def _tell(self, body: bytes | None) -> None:
        use, self._at_end = self._at_end, None
        if use is not None:
            use(body)


class ReplayBuffer(BodyBuffer):
    """Keeps what passes of a body up to a limit, so that it can be sent again.

    One read is under way at most, and it outlives a try that was cut off: what comes in then is the next one's.

    Args:
        source: gives the body; called once. None where somebody else reads it and tells us by `note`.
        limit: bytes that are kept.
        loop: the running one.
    """

    __slots__ = ("_loop", "_pieces", "_reading", "_source")

    def __init__(self, source: "OpenBody | None", limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit)
        self._source = source
        self._loop = loop
        self._pieces: AsyncIterator[bytes] | None = None
        self._reading: asyncio.Task[bytes | None] | None = None

    async def open(self) -> bytes | AsyncIterator[bytes]:
        """The body from its beginning; only while `repeatable`, once it was read from."""
        if self._ended:
            return b"".join(self._kept)
        if self._pieces is None:
            assert self._source is not None
            body = await self._source()
            if isinstance(body, bytes):
                self._keep(body)
                self._end()
                return body
            self._pieces = body
        return _Pieces(self, tuple(self._kept))

    async def next(self) -> bytes:
        """The next new piece; raises StopAsyncIteration at the end of the body."""
        if self._ended:
            raise StopAsyncIteration
        if self._over and self._reading is None:
            # No other try can follow this one.
            return self._noted(await self._read())
        if self._reading is None:
            self._reading = self._loop.create_task(self._read())
        piece = await asyncio.shield(self._reading)
        self._reading = None
        return self._noted(piece)

    def _noted(self, piece: bytes | None) -> bytes:
        if piece is None:
            self._end()
            raise StopAsyncIteration
        self._keep(piece)
        return piece

    async def _read(self) -> bytes | None:
        assert self._pieces is not None
        return await anext(self._pieces, None)

    def close(self) -> None:
        """Nobody reads on."""
        self._tell(None)
        if self._reading is None:
            return
        if self._reading.done():
            # Asked for, so that an error which nobody waits for is not reported as forgotten.
            _ = self._reading.cancelled() or self._reading.exception()
        else:
            self._reading.cancel()


class _Pieces:
    """A body from its beginning: what was kept, then what is new."""

    __slots__ = ("_kept", "_tee")

    def __init__(self, tee: ReplayBuffer, kept: tuple[bytes, ...]) -> None:
        self._tee = tee
        self._kept = iter(kept)

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> bytes:
        piece = next(self._kept, None)
        return await self._tee.next() if piece is None else piece


class SyncReplayBuffer(BodyBuffer):
    """A `Tee` for a thread.

    Args:
        source: see `Tee`.
    """

    __slots__ = ("_pieces", "_source")

    def __init__(self, source: Callable[[], bytes | Iterator[bytes]] | None, limit: int) -> None:
        super().__init__(limit)
        self._source = source
        self._pieces: Iterator[bytes] | None = None

    def open(self) -> bytes | Iterator[bytes]:
        """The body from its beginning; only while `repeatable`, once it was read from."""
        if self._ended:
            return b"".join(self._kept)
        if self._pieces is None:
            assert self._source is not None
            body = self._source()
            if isinstance(body, bytes):
                self.feed(body, last=True)
                return body
            self._pieces = body
        return chain(tuple(self._kept), self._rest(self._pieces))

    def _rest(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._keep(piece)
            yield piece
        self._end()
