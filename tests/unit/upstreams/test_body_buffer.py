"""A body that is kept while it passes."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from servers import run

from canary_mw.exceptions import ClientDisconnected
from canary_mw.upstreams.body_buffer import ReplayBuffer, SyncReplayBuffer


class Feed:
    """A body that comes as it is put in; None ends it, an exception breaks it off."""

    def __init__(self, limit: int = 10) -> None:
        self.pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.opened = 0
        self.tee = ReplayBuffer(self.open, limit, asyncio.get_running_loop())

    async def open(self) -> AsyncIterator[bytes]:
        self.opened += 1
        return self

    def __aiter__(self) -> "Feed":
        return self

    async def __anext__(self) -> bytes:
        piece = await self.pieces.get()
        if piece is None:
            raise StopAsyncIteration
        if isinstance(piece, Exception):
            raise piece
        return piece

    def put(self, *pieces: bytes | Exception | None) -> None:
        for piece in pieces:
            self.pieces.put_nowait(piece)


async def opened(tee: ReplayBuffer) -> AsyncIterator[bytes]:
    body = await tee.open()
    assert not isinstance(body, bytes)
    return body


async def read(tee: ReplayBuffer) -> bytes:
    body = await tee.open()
    return body if isinstance(body, bytes) else b"".join([piece async for piece in body])


def test_a_body_may_be_read_again_from_its_beginning() -> None:
    async def main() -> None:
        feed = Feed()
        feed.put(b"ab", b"", b"cd", None)
        assert feed.tee.can_replay()
        assert [await read(feed.tee) for _ in range(3)] == [b"abcd"] * 3
        assert feed.opened == 1
        assert feed.tee.can_replay()
        feed.tee.close()

    run(main())


def test_a_body_over_the_limit_passes_once() -> None:
    async def main() -> None:
        feed = Feed(limit=3)
        feed.put(b"ab", b"cd", b"ef", None)
        told: list[bytes | None] = []
        feed.tee.when_complete(told.append)
        assert await read(feed.tee) == b"abcdef"
        assert not feed.tee.can_replay()
        feed.tee.when_complete(told.append)
        assert told == [None, None]
        feed.tee.close()

    run(main())


def test_what_comes_after_a_try_was_cut_off_is_the_next_ones() -> None:
    async def main() -> None:
        feed = Feed()
        first = await opened(feed.tee)
        feed.put(b"a")
        assert await anext(first) == b"a"
        waiting = asyncio.ensure_future(anext(first))
        await asyncio.sleep(0)
        feed.put(b"b")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        feed.put(b"c", None)
        assert await read(feed.tee) == b"abc"
        feed.tee.close()

    run(main())


@pytest.mark.parametrize("there", [True, False])
def test_the_end_is_told_when_it_is_there_or_at_once(there: bool) -> None:
    async def main() -> None:
        feed = Feed()
        told: list[bytes | None] = []
        if not there:
            feed.tee.when_complete(told.append)
        feed.put(b"ab", None)
        await read(feed.tee)
        if there:
            feed.tee.when_complete(told.append)
        assert told == [b"ab"]
        feed.tee.close()
        assert told == [b"ab"]

    run(main())


def test_a_body_that_breaks_off_is_told_by_whoever_reads_it_and_by_nobody_else() -> None:
    async def main() -> None:
        for read_on in (True, False):
            feed = Feed()
            told: list[bytes | None] = []
            feed.tee.when_complete(told.append)
            body = await opened(feed.tee)
            waiting = asyncio.ensure_future(anext(body))
            await asyncio.sleep(0)
            feed.put(ClientDisconnected("gone"))
            if not read_on:
                waiting.cancel()
            with pytest.raises(ClientDisconnected if read_on else asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0)
            feed.tee.close()
            assert told == [None]

    run(main())


def test_closing_ends_the_read_that_is_under_way() -> None:
    async def main() -> None:
        feed = Feed()
        waiting = asyncio.ensure_future(anext(await opened(feed.tee)))
        await asyncio.sleep(0)
        feed.tee.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())


def test_a_body_that_somebody_else_reads_is_noted() -> None:
    async def main() -> None:
        tee = ReplayBuffer(None, 10, asyncio.get_running_loop())
        told: list[bytes | None] = []
        tee.when_complete(told.append)
        tee.feed(b"ab", last=False)
        tee.feed(b"c", last=True)
        # As a middleware that replays a body does for ever.
        tee.feed(b"", last=True)
        assert told == [b"abc"]
        tee.close()

    run(main())


# For threads.


def test_a_thread_reads_a_body_again_from_its_beginning() -> None:
    opened: list[None] = []
    whole: list[bytes | None] = []

    def source() -> Iterator[bytes]:
        opened.append(None)
        return iter([b"ab", b"cd"])

    tee = SyncReplayBuffer(source, 10)
    tee.when_complete(whole.append)
    first = tee.open()
    assert not isinstance(first, bytes)
    assert next(first) == b"ab"
    assert tee.can_replay()
    assert b"".join(tee.open()) == b"abcd"  # type: ignore[arg-type]
    assert tee.open() == b"abcd"
    assert (len(opened), whole) == (1, [b"abcd"])


def test_a_thread_reads_a_body_over_the_limit_once() -> None:
    whole: list[bytes | None] = []
    tee = SyncReplayBuffer(lambda: iter([b"ab", b"cd"]), 3)
    tee.when_complete(whole.append)
    assert b"".join(tee.open()) == b"abcd"  # type: ignore[arg-type]
    assert not tee.can_replay()
    assert whole == [None]


def test_a_body_in_one_piece_is_kept_for_a_thread() -> None:
    tee = SyncReplayBuffer(lambda: b"ab", 3)
    assert [tee.open() for _ in range(2)] == [b"ab"] * 2
