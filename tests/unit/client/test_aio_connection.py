"""What one connection makes of broken, planted, endless and late answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
from upstream import (
    OK,
    ON_BOTH_LOOPS,
    WITH_EVERY_CLIENT,
    Peer,
    Run,
    answering,
    forever,
    get,
    req,
    serving,
    silent,
    until,
    whole,
)

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.limits import Limits
from canary_mw.exceptions import UpstreamConnectError, UpstreamProtocolError, UpstreamTimeout
from canary_mw.http.messages import BodyFraming

CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", id="HTTP/2.0"),
        pytest.param(b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"HTTP/1.1 099 Low\r\ncontent-length: 0\r\n\r\n", id="status 099"),
        pytest.param(b"HTTP/1.1 600 High\r\ncontent-length: 0\r\n\r\n", id="status 600"),
        pytest.param(b"HTTP/1.1 1000 High\r\ncontent-length: 0\r\n\r\n", id="status 1000"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="101"),
        pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n" + OK + b"content-length: 0\r\n\r\n", id="101 and more"),
        pytest.param(OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="CL and TE"),
        pytest.param(OK + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n", id="TE and CL"),
        pytest.param(OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd", id="two lengths"),
        pytest.param(OK + b"content-length: 3, 3\r\n\r\nabc", id="a list of lengths"),
        pytest.param(OK + b"content-length: +3\r\n\r\nabc", id="+3"),
        pytest.param(OK + b"content-length:\r\n\r\n", id="no length"),
        pytest.param(OK + b"content-length: 18446744073709551616\r\n\r\n", id="2^64"),
        pytest.param(OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="gzip, chunked"),
        pytest.param(OK + b"transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n", id=",chunked"),
        pytest.param(OK + b"transfer-encoding: xchunked\r\n\r\nabc", id="xchunked"),
        pytest.param(OK + b"transfer-encoding: identity\r\n\r\nabc", id="identity"),
        pytest.param(OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", id="chunked twice"),
        pytest.param(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked in 1.0"),
        pytest.param(OK + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n", id="folded line"),
        pytest.param(OK + b"x: a\rb\r\ncontent-length: 0\r\n\r\n", id="CR in a value"),
        pytest.param(OK + b"x: a\0b\r\ncontent-length: 0\r\n\r\n", id="NUL in a value"),
        pytest.param(OK + b"x : a\r\ncontent-length: 0\r\n\r\n", id="blank before the colon"),
        pytest.param(OK + b": a\r\ncontent-length: 0\r\n\r\n", id="no name"),
        pytest.param(b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", id="bare LF"),
        pytest.param(OK + b"x: 1\r\n" * 257 + b"content-length: 0\r\n\r\n", id="258 lines"),
        pytest.param(OK + b"x: " + b"v" * 102400 + b"\r\ncontent-length: 0\r\n\r\n", id="a head over 100 KiB"),
        pytest.param(OK + b"x: " + b"v" * 400000, id="a head without end"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9000, id="hints without end"),
    ],
)
def test_an_answer_that_is_not_clean_http_is_refused_and_its_connection_closed(run: Run, answer: bytes) -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            peer.writer.write(answer)
            await peer.gone()
            closed.set()

        async with serving(script) as upstream, aclosing(run.client()) as client:
            with pytest.raises(UpstreamProtocolError, match=r"127\.0\.0\.1:") as caught:
                await client.send(upstream.origin, req(replayable=True))
            assert caught.value.sent
            await closed.wait()
            assert upstream.accepted == 1

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("size", [256, 1])
def test_a_head_at_the_limits_passes(run: Run, size: int) -> None:
    async def main() -> None:
        lines = b"x: 1\r\n" * 255 if size == 256 else b"x: " + b"v" * 102000 + b"\r\n"
        body = b"b" * 300000
        script = answering(OK + lines + b"content-length: %d\r\n\r\n" % len(body) + body)
        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req())
            assert len(response.head.headers) == size or len(response.head.headers) == 2
            assert await whole(response) == body

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK + b"content-length: 10\r\n\r\nabc", id="short of its length"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n", id="no last chunk"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\n", id="no end of the trailers"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0x1\r\na\r\n", id="a bad chunk size"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n5\nhello\n", id="bare LF after a chunk size"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nx: " + b"v" * 400000, id="trailers without end"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nhost: a\r\n", id="no end of trailers that must not be"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nx y: 1\r\n\r\n", id="a trailer that is none"),
        pytest.param(CHUNKED + b"3\r\nabc\r\ncontent-length: 1\r\n\r\n", id="a trailer before the last chunk"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n5;" + b"v" * 400000, id="a chunk extension without end"),
    ],
)
def test_an_answer_that_ends_early_never_looks_complete(run: Run, answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req())
            assert await response.read() == b"abc"
            for _ in range(2):
                with pytest.raises(UpstreamProtocolError):
                    await response.read()
            assert response.take() is None
            response.close()
            with pytest.raises(UpstreamProtocolError, match="closed before its end"):
                await response.read()

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("head", [b"", b"content-length: 10\r\n"])
def test_a_reset_within_a_body_is_an_error_even_where_the_close_would_end_it(run: Run, head: bytes) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK + head + b"\r\nabc")
            await go.wait()
            peer.reset()

        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req())
            assert await response.read() == b"abc"
            go.set()
            with pytest.raises(UpstreamProtocolError, match="ended early"):
                await response.read()
            response.close()

    run(main)


@WITH_EVERY_CLIENT
def test_a_connection_that_ends_within_the_head_is_a_protocol_error(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"x: ")

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            with pytest.raises(UpstreamProtocolError, match="within the head"):
                await client.send(upstream.origin, req(replayable=True))
            assert upstream.accepted == 1

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("end", [Peer.finish, Peer.reset])
def test_a_fresh_connection_lost_before_any_answer_is_not_retried(run: Run, end: Callable[[Peer], None]) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        end(peer)

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            with pytest.raises(UpstreamConnectError, match="lost before a response") as caught:
                await client.send(upstream.origin, req(replayable=True))
            assert caught.value.sent
            assert upstream.accepted == 1

    run(main)


# One user's answer must never become the next one's.


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("planted", [OK + b"content-length: 4\r\n\r\nevil", b"HTTP/1.1 2", b"garbage", b"\0"])
def test_an_answer_planted_behind_another_in_one_segment_is_dropped(run: Run, planted: bytes) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK + b"content-length: 4\r\n\r\ngood" + planted)

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            for accepted in (1, 2, 3):
                response = await client.send(upstream.origin, req())
                assert await whole(response) == b"good"
                assert upstream.accepted == accepted

    run(main)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("planted", [OK + b"content-length: 4\r\n\r\nevil", b"\r\n"])
def test_an_answer_planted_on_an_idle_connection_closes_it(run: Run, planted: bytes) -> None:
    async def main() -> None:
        plant, closed = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            if peer.number > 1:
                await forever(peer)
            await peer.request()
            await peer.answer(b"good")
            await plant.wait()
            await peer.send(planted)
            await peer.gone()
            closed.set()

        async with serving(script) as upstream, aclosing(HTTP11Client()) as client:
            assert await get(client, upstream) == b"good"
            plant.set()
            await closed.wait()
            assert await get(client, upstream) == b"2"

    run(main)


@ON_BOTH_LOOPS
def test_bytes_beyond_a_complete_answer_close_the_connection_and_keep_the_answer(run: Run) -> None:
    async def main() -> None:
        plant, closed = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK + b"content-length: 4\r\n\r\ngo")
            await plant.wait()
            await peer.send(b"od", b"evil")
            await peer.gone()
            closed.set()

        async with serving(script) as upstream, aclosing(HTTP11Client()) as client:
            response = await client.send(upstream.origin, req())
            plant.set()
            await closed.wait()
            assert await whole(response) == b"good"

    run(main)


@WITH_EVERY_CLIENT
def test_an_unread_answer_is_not_left_for_the_next_request(run: Run) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK + b"content-length: 6\r\n\r\nold")
            if peer.number > 1:
                await peer.send(b"new")

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req())
            response.close()
            response.close()
            with pytest.raises(UpstreamProtocolError):
                await response.read()
            assert await get(client, upstream) == b"oldnew"
            assert upstream.accepted == 2

    run(main)


@WITH_EVERY_CLIENT
def test_an_answer_complete_but_unread_gives_its_connection_back(run: Run) -> None:
    async def main() -> None:
        script = answering(CHUNKED, b"3\r\nabc\r\n", b"0\r\n\r\n")
        async with serving(script) as upstream, aclosing(run.client()) as client:
            for _ in range(3):
                response = await client.send(upstream.origin, req())
                assert await until(response.take) == b"abc"
                response.close()
            assert upstream.accepted == 1

    run(main)


# Back-pressure


async def still(value: Callable[[], int]) -> int:
    """The value once it has not changed for a while."""
    last, turns = value(), 0
    while turns < 30:
        await asyncio.sleep(0.001)
        last, turns = (last, turns + 1) if value() == last else (value(), 0)
    return last


@WITH_EVERY_CLIENT
def test_an_answer_that_nobody_reads_stops_the_upstream(run: Run) -> None:
    async def main() -> None:
        block, count = b"x" * 65536, 1000
        sent = 0

        async def script(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.send(OK + b"content-length: %d\r\n\r\n" % (len(block) * count))
            for _ in range(count):
                await peer.send(block)
                sent += 1
            await forever(peer)

        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req(timeout=None))
            assert 0 < await still(lambda: sent) < count
            first = len(await response.read())
            assert first <= 512 * 1024
            assert first + len(await whole(response)) == len(block) * count
            assert await get(client, upstream) == b"1"

    run(main)


@WITH_EVERY_CLIENT
def test_an_upload_that_nobody_reads_stops_the_client(run: Run) -> None:
    async def main() -> None:
        count, given = 1000, 0
        read_on = asyncio.Event()

        async def script(peer: Peer) -> None:
            await read_on.wait()
            await peer.answer(b"%d" % len((await peer.request()).body))

        async def body() -> AsyncIterator[bytes]:
            nonlocal given
            for _ in range(count):
                given += 1
                yield b"x" * 65536

        async with serving(script) as upstream, aclosing(run.client()) as client:
            sending = asyncio.ensure_future(
                client.send(upstream.origin, req("PUT", body=BodyFraming(count << 16)), body())
            )
            assert 0 < await still(lambda: given) < count
            read_on.set()
            assert await whole(await sending) == b"%d" % (count << 16)
            assert given == count

    run(main)


# Deadlines


@WITH_EVERY_CLIENT
def test_no_answer_before_the_deadline_is_a_timeout_that_closes_the_connection(run: Run) -> None:
    async def main() -> None:
        async with serving(silent) as upstream, aclosing(run.client()) as client:
            with pytest.raises(UpstreamTimeout, match="no answer before") as caught:
                await client.send(upstream.origin, req(timeout=0.02))
            assert caught.value.sent
            await until(lambda: not upstream.scripts)

    run(main)


@WITH_EVERY_CLIENT
def test_the_deadline_holds_for_the_body_too(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-length: 9\r\n\r\nabc")
        await peer.gone()

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req(timeout=0.5))
            with pytest.raises(UpstreamTimeout, match="no end of the answer"):
                await whole(response)
            response.close()
            await until(lambda: not upstream.scripts)

    run(main)


@WITH_EVERY_CLIENT
def test_a_connection_keeps_the_deadline_of_its_own_exchange_not_of_the_one_before(run: Run) -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.answer(b"first")
            await peer.request()
            await asyncio.sleep(1.1)
            await peer.answer(b"second")
            await peer.request()
            await peer.gone()

        async with serving(script) as upstream, aclosing(run.client()) as client:
            assert await get(client, upstream, req(timeout=1.0)) == b"first"
            assert await get(client, upstream, req(timeout=30.0)) == b"second"
            async with asyncio.timeout(10):
                with pytest.raises(UpstreamTimeout):
                    await client.send(upstream.origin, req(timeout=0.02))
            assert upstream.accepted == 1

    run(main)


@WITH_EVERY_CLIENT
def test_a_cancelled_deadline_does_not_end_an_event_stream(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await asyncio.sleep(1.1)
        await peer.send(b"3\r\nabc\r\n0\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req(timeout=1.0))
            response.cancel_deadline()
            assert await whole(response) == b"abc"
            response.cancel_deadline()

    run(main)


@WITH_EVERY_CLIENT
def test_an_idle_connection_outlives_the_deadline_of_its_last_exchange(run: Run) -> None:
    async def main() -> None:
        async with serving(forever) as upstream, aclosing(run.client()) as client:
            assert await get(client, upstream, req(timeout=0.5)) == b"1"
            await asyncio.sleep(0.6)
            assert await get(client, upstream) == b"1"

    run(main)


# Cancellation


@ON_BOTH_LOOPS
@pytest.mark.parametrize("upload", [False, True])
def test_cancelling_send_closes_the_connection_at_once(run: Run, upload: bool) -> None:
    async def main() -> None:
        arrived, closed = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.head()
            arrived.set()
            assert not (await peer.gone()).endswith(b"0\r\n\r\n")
            closed.set()

        async def stuck() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

        async with serving(script) as upstream, aclosing(HTTP11Client()) as client:
            request = req("POST", body=BodyFraming(None)) if upload else req()
            task = asyncio.ensure_future(client.send(upstream.origin, request, stuck() if upload else None))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await closed.wait()

    run(main)


@ON_BOTH_LOOPS
def test_cancelling_read_closes_the_connection_at_once(run: Run) -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            await peer.gone()
            closed.set()

        async with serving(script) as upstream, aclosing(HTTP11Client()) as client:
            response = await client.send(upstream.origin, req())
            task = asyncio.ensure_future(response.read())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await closed.wait()
            with pytest.raises(UpstreamProtocolError):
                await response.read()
            response.close()

    run(main)


@ON_BOTH_LOOPS
def test_closing_an_answer_wakes_the_one_who_reads_it(run: Run) -> None:
    async def main() -> None:
        async with serving(answering(CHUNKED)) as upstream, aclosing(HTTP11Client()) as client:
            response = await client.send(upstream.origin, req())
            task = asyncio.ensure_future(response.read())
            await asyncio.sleep(0)
            response.close()
            with pytest.raises(UpstreamProtocolError, match="closed before its end"):
                await task

    run(main)


@WITH_EVERY_CLIENT
def test_a_small_head_limit_is_kept(run: Run) -> None:
    async def main() -> None:
        script = answering(OK + b"x: " + b"v" * 200 + b"\r\ncontent-length: 0\r\n\r\n")
        limits = Limits(max_head=128)
        async with serving(script) as upstream, aclosing(run.client(limits=limits)) as client:
            with pytest.raises(UpstreamProtocolError, match="over 128 bytes"):
                await client.send(upstream.origin, req())

    run(main)
