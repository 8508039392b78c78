"""The upstream client against scripted upstreams, on asyncio's own loop and on uvloop."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from math import inf

import pytest
from upstream import (
    OK,
    ON_BOTH_LOOPS,
    WITH_EVERY_CLIENT,
    Peer,
    Run,
    answering,
    chunks_of,
    forever,
    get,
    req,
    serving,
    silent,
    until,
    whole,
)

from canary_mw.client import limits
from canary_mw.exceptions import ClientDisconnected, ClientError, UpstreamProtocolError, UpstreamTimeout
from canary_mw.http.messages import BodyFraming
from canary_mw.rules.upstream import Origin


@WITH_EVERY_CLIENT
def test_a_small_answer_is_taken_whole_and_the_request_goes_out_byte_for_byte(run: Run) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(OK + b"X-A:  b \r\nx-a: \xe4\xbd\xa0\r\nContent-Length: 2\r\n\r\nok")
        await peer.gone()

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            request = req(target=b"/a%2Fb?q=%zz")
            request.headers.append((b"x-empty", b""))
            response = await client.send(upstream.origin, request)
            assert response.head.status == 200
            assert response.head.headers == [(b"x-a", b"b"), (b"x-a", b"\xe4\xbd\xa0"), (b"content-length", b"2")]
            assert response.take() == b"ok"
            assert response.take() == b""
            assert await response.read() == b""
            response.close()
            response.close()

    run(main)
    assert seen == [(b"GET /a%2Fb?q=%zz HTTP/1.1", [b"host: shop", b"x-empty: "], b"")]


@WITH_EVERY_CLIENT
def test_a_connection_is_used_again(run: Run) -> None:
    async def main() -> None:
        async with serving(forever) as upstream, aclosing(run.client()) as client:
            await asyncio.gather(*(get(client, upstream) for _ in range(3)))
            assert {await get(client, upstream) for _ in range(6)} <= {b"1", b"2", b"3"}
            assert upstream.accepted == 3

    run(main)


@WITH_EVERY_CLIENT
def test_each_origin_has_its_own_connections(run: Run) -> None:
    async def main() -> None:
        async with serving(forever) as one, serving(forever) as two, aclosing(run.client()) as client:
            for upstream in (one, two, one, two):
                assert await get(client, upstream) == b"1"

    run(main)


@WITH_EVERY_CLIENT
def test_a_chunked_answer_comes_as_it_arrives_and_its_trailers_are_dropped(run: Run) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await go.wait()
            await peer.send(b"3;x=y\r\ndef\r\n0\r\nset-cookie: evil\r\n\r\n")
            await peer.request()
            await peer.answer()

        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req())
            assert response.take() is None
            assert await response.read() == b"abc"
            assert response.take() is None
            go.set()
            assert await response.read() == b"def"
            assert await response.read() == b""
            assert response.head.headers == [(b"transfer-encoding", b"chunked")]
            assert await get(client, upstream) == b"ok"
            assert upstream.accepted == 1

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("segments", ["one", "two", "bytes"])
@pytest.mark.parametrize(
    "trailers",
    [
        b"content-length: 6\r\n",
        b"Content-Length: 999\r\nx-sum: 1\r\n",
        b"x-sum: 1\r\nCONTENT-LENGTH: none\r\n",
        b"transfer-encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\ncontent-length: 1\r\n",
        b"transfer-encoding:\r\n",
        b"Host: else\r\n",
        b"connection: keep-alive\r\n",
        b"connection: upgrade\r\nupgrade: websocket\r\n",
        b"keep-alive: 5\r\nx-sum: 1\r\n",
        b"trailer: content-length\r\n",
    ],
)
def test_trailers_that_must_not_be_are_dropped_and_cost_the_connection_but_not_the_response(
    run: Run, trailers: bytes, segments: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number > 1:
            await peer.answer(b"next")
        else:
            head, rest = (
                OK + b"transfer-encoding: chunked\r\n\r\n",
                b"3\r\nabc\r\n3\r\ndef\r\n0\r\n" + trailers + b"\r\n",
            )
            step = {"one": len(rest), "two": len(rest) - len(trailers) - 2, "bytes": 1}[segments]
            await peer.send(head, *(rest[at : at + step] for at in range(0, len(rest), step)))
            assert await peer.read_some() == b""

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req())
            assert await whole(response) == b"abcdef"
            assert response.head.headers == [(b"transfer-encoding", b"chunked")]
            assert await get(client, upstream) == b"next"
            assert upstream.accepted == 2

    run(main)


@WITH_EVERY_CLIENT
def test_take_gives_what_read_has_left(run: Run) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK + b"content-length: 4\r\n\r\nab")
            await go.wait()
            await peer.send(b"cd")
            await peer.gone()

        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req())
            assert await response.read() == b"ab"
            go.set()
            rest = await until(response.take)
            assert rest == b"cd"
            assert await response.read() == b""

    run(main)


@WITH_EVERY_CLIENT
def test_a_close_delimited_answer_ends_with_the_connection(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\n", b"abc", b"def")

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            assert await get(client, upstream) == b"abcdef"
            assert await get(client, upstream) == b"abcdef"
            assert upstream.accepted == 2

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.0 200 OK\r\n", OK + b"connection: close\r\n", OK + b"Connection: x, Close\r\n"],
)
def test_a_connection_that_the_upstream_will_close_is_not_used_again(run: Run, head: bytes) -> None:
    async def main() -> None:
        script = answering(head + b"content-length: 1\r\n\r\na")
        async with serving(script) as upstream, aclosing(run.client()) as client:
            for accepted in (1, 2):
                assert await get(client, upstream) == b"a"
                assert upstream.accepted == accepted

    run(main)


@WITH_EVERY_CLIENT
def test_an_http_1_0_answer_with_keep_alive_is_used_again(run: Run) -> None:
    async def main() -> None:
        answer = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na"
        async with serving(answering(answer)) as upstream, aclosing(run.client()) as client:
            for _ in range(3):
                assert await get(client, upstream) == b"a"
            assert upstream.accepted == 1

    run(main)


@WITH_EVERY_CLIENT
def test_informational_answers_are_skipped(run: Run) -> None:
    async def main() -> None:
        early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        answer = OK + b"content-length: 1\r\n\r\na"
        script = answering(b"HTTP/1.1 100 Continue\r\n\r\n" + early * 50 + answer)
        async with serving(script) as upstream, aclosing(run.client()) as client:
            for _ in range(2):
                response = await client.send(upstream.origin, req())
                assert response.head.headers == [(b"content-length", b"1")]
                assert await whole(response) == b"a"
            assert upstream.accepted == 1

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", OK + b"content-length: 0\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 304 Not Modified\r\netag: a\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 00\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 0\r\n\r\n"),
    ],
)
def test_an_answer_without_a_body_has_none_and_leaves_the_connection_usable(run: Run, method: str, head: bytes) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.send(head)
            await peer.request()
            await peer.answer(b"next")

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            for _ in range(2):
                assert (await client.send(upstream.origin, req(method))).take() == b""
                assert await get(client, upstream) == b"next"
            assert upstream.accepted == 1

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("framing", [b"content-length: 5", b"content-length: 05", b"transfer-encoding: chunked"])
@pytest.mark.parametrize(
    ("method", "status"),
    [("HEAD", b"200 OK"), ("HEAD", b"304 Not Modified"), ("GET", b"204 No Content"), ("GET", b"304 Not Modified")],
)
def test_a_body_that_is_announced_and_does_not_belong_there_never_reaches_the_next_request(
    run: Run, method: str, status: bytes, framing: bytes
) -> None:
    async def script(peer: Peer) -> None:
        while b"/none" not in (await peer.request()).line:
            await peer.answer(b"next")
        await peer.send(b"HTTP/1.1 %b\r\n%b\r\n\r\n" % (status, framing))
        # The body would come late, as the answer to whatever is sent on this connection.
        assert await peer.read_some() == b""

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            for count in (1, 2):
                assert (await client.send(upstream.origin, req(method, b"/none"))).take() == b""
                assert upstream.accepted == count
                assert await get(client, upstream) == b"next"
                assert upstream.accepted == count + 1

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(
    "answer",
    [
        OK + b"content-length: 5\r\n\r\nhello",
        OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n5",
        OK + b"\r\nhello",
        OK + b"content-length: 0\r\n\r\n" + OK + b"content-length: 0\r\n\r\n",
    ],
)
def test_a_body_in_the_answer_to_head_is_dropped_with_the_connection(run: Run, answer: bytes) -> None:
    async def main() -> None:
        async with serving(answering(answer)) as upstream, aclosing(run.client()) as client:
            for accepted in (1, 2):
                assert await get(client, upstream, req("HEAD")) == b""
                assert upstream.accepted == accepted

    run(main)


@WITH_EVERY_CLIENT
def test_a_head_in_many_segments_is_put_together(run: Run) -> None:
    async def main() -> None:
        answer = OK + b"X-Long-Name: long value\r\nContent-Length: 3\r\n\r\nabc"
        script = answering(*(answer[i : i + 1] for i in range(len(answer))))
        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req())
            assert response.head.headers == [(b"x-long-name", b"long value"), (b"content-length", b"3")]
            assert await whole(response) == b"abc"

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(
    ("method", "target", "header"),
    [
        ("GET", b"/a b", (b"x", b"y")),
        ("GET", b"/a\r\nx: y", (b"x", b"y")),
        ("GET", b"/\xc3\xa4", (b"x", b"y")),
        ("GET", b"", (b"x", b"y")),
        ("G T", b"/", (b"x", b"y")),
        ("", b"/", (b"x", b"y")),
        ("GET\u2028", b"/", (b"x", b"y")),
        ("GET", b"/", (b"x", b"y\r\nevil: 1")),
        ("GET", b"/", (b"x", b"y\nevil: 1")),
        ("GET", b"/", (b"x", b"y\revil: 1")),
        ("GET", b"/", (b"x", b"y\0")),
        ("GET", b"/", (b"x\r\nevil", b"y")),
        ("GET", b"/", (b"x y", b"z")),
        ("GET", b"/", (b"x:", b"z")),
        ("GET", b"/", (b"", b"z")),
        ("GET", b"/", (b"\xc3\xa4", b"z")),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_never_written(
    run: Run, method: str, target: bytes, header: tuple[bytes, bytes]
) -> None:
    async def main() -> None:
        async with serving(forever) as upstream, aclosing(run.client()) as client:
            request = req(method, target)
            request.headers.append(header)
            with pytest.raises(UpstreamProtocolError) as caught:
                await client.send(upstream.origin, request)
            assert not caught.value.sent
            assert upstream.accepted == 0

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(
    ("body", "framing", "lines", "arrives"),
    [
        (None, None, [], b""),
        (b"ignored", None, [], b""),
        (None, BodyFraming(0), [b"content-length: 0"], b""),
        (b"hello", BodyFraming(5), [b"content-length: 5"], b"hello"),
        (b"hello", BodyFraming(None), [b"transfer-encoding: chunked"], b"hello"),
        (b"", BodyFraming(None), [b"transfer-encoding: chunked"], b""),
        ((b"he", b"", b"llo", b""), BodyFraming(5), [b"content-length: 5"], b"hello"),
        ((b"he", b"", b"llo"), BodyFraming(None), [b"transfer-encoding: chunked"], b"hello"),
        ((), BodyFraming(0), [b"content-length: 0"], b""),
        ((), BodyFraming(None), [b"transfer-encoding: chunked"], b""),
    ],
)
def test_a_body_is_framed_as_the_request_says(
    run: Run, body: bytes | tuple[bytes, ...] | None, framing: BodyFraming | None, lines: list[bytes], arrives: bytes
) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.answer()

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            for _ in range(2):
                given = chunks_of(*body) if isinstance(body, tuple) else body
                response = await client.send(upstream.origin, req("POST", body=framing), given)
                assert await whole(response) == b"ok"
            assert upstream.accepted == 1

    run(main)
    assert seen == [(b"POST / HTTP/1.1", [b"host: shop", *lines], arrives)] * 2


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("chunks", [(b"abc",), (b"abc", b"defghi"), (b"abcde", b"f"), (b"abcdef",), ()])
def test_a_body_that_breaks_its_content_length_is_never_completed(run: Run, chunks: tuple[bytes, ...]) -> None:
    async def main() -> None:
        arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def script(peer: Peer) -> None:
            await peer.head()
            arrived.set_result(await peer.gone())

        async with serving(script) as upstream, aclosing(run.client()) as client:
            with pytest.raises(ClientError, match="not 5 bytes long"):
                await client.send(upstream.origin, req("POST", body=BodyFraming(5)), chunks_of(*chunks))
            assert len(await arrived) < 5
            with pytest.raises(ClientError):
                await client.send(upstream.origin, req("POST", body=BodyFraming(5)), b"".join(chunks) + b"123456")

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("framing", [BodyFraming(None), BodyFraming(100)])
def test_a_body_that_fails_cuts_the_request_off_and_its_error_reaches_the_caller(
    run: Run, framing: BodyFraming
) -> None:
    async def leaving() -> AsyncIterator[bytes]:
        yield b"x" * 10
        raise ClientDisconnected("left")

    async def main() -> None:
        arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def script(peer: Peer) -> None:
            await peer.head()
            arrived.set_result(await peer.gone())

        async with serving(script) as upstream, aclosing(run.client()) as client:
            with pytest.raises(ClientDisconnected):
                await client.send(upstream.origin, req("POST", body=framing), leaving())
            rest = await arrived
            assert not rest.endswith(b"0\r\n\r\n")
            assert len(rest) < 100

    run(main)


@ON_BOTH_LOOPS
def test_a_body_that_fails_after_the_head_of_the_answer_fails_the_read(run: Run) -> None:
    async def main() -> None:
        answered = asyncio.Event()

        async def leaving() -> AsyncIterator[bytes]:
            yield b"x"
            await answered.wait()
            raise ClientDisconnected("left")

        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.send(OK + b"content-length: 5\r\n\r\nab")
            await peer.gone()

        async with serving(script) as upstream, aclosing(run.client()) as client:
            response = await client.send(upstream.origin, req("POST", body=BodyFraming(None)), leaving())
            assert await response.read() == b"ab"
            answered.set()
            for _ in range(2):
                with pytest.raises(ClientDisconnected):
                    await response.read()
            response.close()

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("goodbye", ["linger", "finish", "reset"])
def test_an_early_answer_comes_through_while_the_body_is_still_on_its_way_up(run: Run, goodbye: str) -> None:
    async def main() -> None:
        answered = asyncio.Event()

        async def script(peer: Peer) -> None:
            if peer.number > 1:
                await forever(peer)
            await peer.head()
            await peer.answer(b"too large", status=b"413 Content Too Large")
            answered.set()
            if goodbye == "linger":
                await peer.gone()
            elif goodbye == "reset":
                await peer.read_some()
                peer.reset()

        async def endless() -> AsyncGenerator[bytes, None]:
            yield b"x"
            await answered.wait()
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0)

        async with serving(script) as upstream, aclosing(run.client()) as client, aclosing(endless()) as body:
            response = await client.send(upstream.origin, req("POST", body=BodyFraming(None)), body)
            assert (response.head.status, await whole(response)) == (413, b"too large")
            assert await get(client, upstream) == b"2"

    run(main)


@WITH_EVERY_CLIENT
def test_an_early_answer_is_found_behind_the_reset_that_an_upload_runs_into(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(10)

            async def body() -> AsyncGenerator[bytes, None]:
                yield b"never read"
                for _ in range(5):
                    await asyncio.sleep(0)
                # In one step of the loop: the answer and the reset are there before anybody can look.
                peer, _ = listener.accept()
                with peer:
                    peer.recv(10)
                    peer.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\n\r\ntoo large")
                for _ in range(100):
                    yield b"x" * 1000

            async with aclosing(run.client()) as client, aclosing(body()) as upload:
                origin = Origin("http", *listener.getsockname())
                response = await client.send(origin, req("POST", body=BodyFraming(None)), upload)
                assert (response.head.status, await whole(response)) == (413, b"too large")
                await asyncio.sleep(0)

    run(main)


@WITH_EVERY_CLIENT
def test_a_limit_that_ends_at_the_head_counts_from_the_last_chunk(run: Run) -> None:
    taken = []

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        # The limit passes meanwhile.
        await asyncio.sleep(0.1)
        yield b"b"
        taken.append("whole")

    async def main() -> None:
        async with serving(silent) as upstream, aclosing(run.client()) as client:
            request = req("POST", body=BodyFraming(None), timeout=0.05, timeout_ends_at_head=True)
            with pytest.raises(UpstreamTimeout):
                await client.send(upstream.origin, request, slow(), inf)
            assert taken == ["whole"]

    run(main)


@ON_BOTH_LOOPS
def test_a_head_before_the_last_chunk_ends_the_limit(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n")
        while b"0\r\n\r\n" not in await peer.read_some():
            pass
        # The limit passes meanwhile.
        await asyncio.sleep(0.1)
        await peer.send(b"2\r\nok\r\n0\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        answered = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            await answered.wait()
            yield b"b"

        async with serving(script) as upstream, aclosing(run.client()) as client:
            request = req("POST", body=BodyFraming(None), timeout=0.05, timeout_ends_at_head=True)
            response = await client.send(upstream.origin, request, body(), inf)
            answered.set()
            assert await whole(response) == b"ok"

    run(main)


@WITH_EVERY_CLIENT
def test_an_upload_that_the_upstream_takes_nothing_of_does_not_wait_for_ever(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UPLOAD_STALL", 0.1)

    async def deaf(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65536)

    async def main() -> None:
        async with serving(deaf) as upstream, aclosing(run.client()) as client:
            request = req("POST", body=BodyFraming(None), timeout=30.0, timeout_ends_at_head=True)
            with pytest.raises(UpstreamTimeout):
                await client.send(upstream.origin, request, endless(), inf)

    run(main)
