"""A request body that is kept while it is sent."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from servers import run

from canary_mw.exceptions import ClientDisconnected
from canary_mw.upstreams.body_buffer import ReplayBuffer, SyncReplayBuffer


class Feed:
    """A body whose chunks are put in; None ends it, an exception is raised to the reader."""

    def __init__(self, limit: int = 10) -> None:
        self.chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.opened = 0
        self.buffer = ReplayBuffer(self.open, limit, asyncio.get_running_loop())

    async def open(self) -> AsyncIterator[bytes]:
        self.opened += 1
        return self

    def __aiter__(self) -> "Feed":
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.chunks.get()
        if chunk is None:
            raise StopAsyncIteration
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def put(self, *chunks: bytes | Exception | None) -> None:
        for chunk in chunks:
            self.chunks.put_nowait(chunk)


async def opened(buffer: ReplayBuffer) -> AsyncIterator[bytes]:
    body = await buffer.open()
    assert not isinstance(body, bytes)
    return body


async def read(buffer: ReplayBuffer) -> bytes:
    body = await buffer.open()
    return body if isinstance(body, bytes) else b"".join([chunk async for chunk in body])


def test_a_body_may_be_read_again_from_its_beginning() -> None:
    async def main() -> None:
        feed = Feed()
        feed.put(b"ab", b"", b"cd", None)
        assert feed.buffer.can_replay()
        assert [await read(feed.buffer) for _ in range(3)] == [b"abcd"] * 3
        assert feed.opened == 1
        assert feed.buffer.can_replay()
        feed.buffer.close()

    run(main())


def test_a_body_over_the_limit_can_be_read_once() -> None:
    async def main() -> None:
        feed = Feed(limit=3)
        feed.put(b"ab", b"cd", b"ef", None)
        results: list[bytes | None] = []
        feed.buffer.when_complete(results.append)
        assert await read(feed.buffer) == b"abcdef"
        assert not feed.buffer.can_replay()
        feed.buffer.when_complete(results.append)
        assert results == [None, None]
        feed.buffer.close()

    run(main())


def test_a_chunk_that_comes_after_an_attempt_was_cancelled_is_for_the_next_one() -> None:
    async def main() -> None:
        feed = Feed()
        first = await opened(feed.buffer)
        feed.put(b"a")
        assert await anext(first) == b"a"
        waiting = asyncio.ensure_future(anext(first))
        await asyncio.sleep(0)
        feed.put(b"b")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        feed.put(b"c", None)
        assert await read(feed.buffer) == b"abc"
        feed.buffer.close()

    run(main())


@pytest.mark.parametrize("there", [True, False])
def test_a_complete_body_is_reported_when_it_ends_or_at_once(there: bool) -> None:
    async def main() -> None:
        feed = Feed()
        results: list[bytes | None] = []
        if not there:
            feed.buffer.when_complete(results.append)
        feed.put(b"ab", None)
        await read(feed.buffer)
        if there:
            feed.buffer.when_complete(results.append)
        assert results == [b"ab"]
        feed.buffer.close()
        assert results == [b"ab"]

    run(main())


def test_an_error_of_a_body_is_raised_to_its_reader_and_reported_as_incomplete() -> None:
    async def main() -> None:
        for read_on in (True, False):
            feed = Feed()
            results: list[bytes | None] = []
            feed.buffer.when_complete(results.append)
            body = await opened(feed.buffer)
            waiting = asyncio.ensure_future(anext(body))
            await asyncio.sleep(0)
            feed.put(ClientDisconnected("gone"))
            if not read_on:
                waiting.cancel()
            with pytest.raises(ClientDisconnected if read_on else asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0)
            feed.buffer.close()
            assert results == [None]

    run(main())


def test_closing_cancels_the_pending_read() -> None:
    async def main() -> None:
        feed = Feed()
        waiting = asyncio.ensure_future(anext(await opened(feed.buffer)))
        await asyncio.sleep(0)
        feed.buffer.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())


def test_a_body_that_is_read_elsewhere_is_fed() -> None:
    async def main() -> None:
        buffer = ReplayBuffer(None, 10, asyncio.get_running_loop())
        results: list[bytes | None] = []
        buffer.when_complete(results.append)
        buffer.feed(b"ab", last=False)
        buffer.feed(b"c", last=True)
        # A middleware that replays a body repeats its last message.
        buffer.feed(b"", last=True)
        assert results == [b"abc"]
        buffer.close()

    run(main())


# For threads.


def test_a_thread_reads_a_body_again_from_its_beginning() -> None:
    opened: list[None] = []
    results: list[bytes | None] = []

    def source() -> Iterator[bytes]:
        opened.append(None)
        return iter([b"ab", b"cd"])

    buffer = SyncReplayBuffer(source, 10)
    buffer.when_complete(results.append)
    first = buffer.open()
    assert not isinstance(first, bytes)
    assert next(first) == b"ab"
    assert buffer.can_replay()
    assert b"".join(buffer.open()) == b"abcd"  # type: ignore[arg-type]
    assert buffer.open() == b"abcd"
    assert (len(opened), results) == (1, [b"abcd"])


def test_a_thread_reads_a_body_over_the_limit_once() -> None:
    results: list[bytes | None] = []
    buffer = SyncReplayBuffer(lambda: iter([b"ab", b"cd"]), 3)
    buffer.when_complete(results.append)
    assert b"".join(buffer.open()) == b"abcd"  # type: ignore[arg-type]
    assert not buffer.can_replay()
    assert results == [None]


def test_a_body_in_one_chunk_is_kept_for_a_thread() -> None:
    buffer = SyncReplayBuffer(lambda: b"ab", 3)
    assert [buffer.open() for _ in range(2)] == [b"ab"] * 2
