"""Requests to services from an event loop: overrides, exchanges and transports."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import httpx
import pytest
from servers import run
from upstream import answering, forever, serving

from canary_mw.client.interfaces import UpstreamResponse
from canary_mw.client.limits import Limits
from canary_mw.exceptions import (
    ConfigError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.http.messages import BodyFraming, ResponseHead
from canary_mw.middleware.asgi.in_process import call_app
from canary_mw.rules.upstream import Origin
from canary_mw.types import Message, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams

Exchange = Generator[UpstreamRequest, ResponseHead, Relay | Reply]
HOST = [(b"host", b"shop")]


def request(service: str = "shop", **options: Any) -> UpstreamRequest:
    options.setdefault("timeout", 30.0)
    return UpstreamRequest(service, options.pop("method", "GET"), b"/a?b", list(HOST), **options)


def once(asked: UpstreamRequest) -> Exchange:
    return Relay((yield asked))


async def no_body() -> bytes:
    raise AssertionError("the request has no body")


async def whole(response: UpstreamResponse | None) -> bytes:
    assert response is not None
    chunks = []
    while chunk := await response.read():
        chunks.append(chunk)
    response.close()
    return b"".join(chunks)


def over(handler: Callable[[httpx.Request], Any]) -> Upstreams:
    return Upstreams(transports={"shop": httpx.MockTransport(handler)})


# Resolving.


@pytest.mark.parametrize("name", ["shop.prod:81", "shop.prod", "SHOP.prod", "*"])
def test_a_service_is_overridden_by_any_of_its_names(name: str) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            upstreams = Upstreams({name: f"http://127.0.0.1:{upstream.origin.port}/"})
            _, response = await upstreams.run(once(request("shop.prod:81")), no_body)
            assert await whole(response) == b"1"
            await upstreams.aclose()

    run(main())


def test_the_most_specific_name_wins() -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            urls: dict[str, str] = dict.fromkeys(("*", "shop"), "http://127.0.0.1:1")
            upstreams = Upstreams({**urls, "shop:81": f"http://127.0.0.1:{upstream.origin.port}"})
            _, response = await upstreams.run(once(request("shop:81")), no_body)
            assert await whole(response) == b"1"
            await upstreams.aclose()

    run(main())


def test_several_urls_are_used_in_turn() -> None:
    async def main() -> None:
        async with serving(answering(_ok(b"one"))) as one, serving(answering(_ok(b"two"))) as two:
            upstreams = Upstreams({"*": [f"http://127.0.0.1:{each.origin.port}" for each in (one, two)]})
            bodies = [await whole((await upstreams.run(once(request()), no_body))[1]) for _ in range(4)]
            assert bodies[:2] == bodies[2:]
            assert sorted(bodies[:2]) == [b"one", b"two"]
            await upstreams.aclose()

    run(main())


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://shop/path", "more than scheme, host and port"),
        ("http://shop?x", "more than scheme, host and port"),
        ("shop:80", "not a URL of a host"),
        ("ftp://shop", "not a URL of a host"),
        ("http://user@shop", "not a URL of a host"),
        ("http://shop:port", "not a URL of a host"),
        ("http://[shop", "not a URL of a host"),
        ([], "no URL"),
    ],
)
def test_an_override_that_is_no_url_of_a_host_is_refused(url: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Upstreams({"shop": url})


def test_each_loop_has_connections_of_its_own() -> None:
    upstreams = Upstreams()

    async def main() -> None:
        async with serving(forever) as upstream:
            text = f"127.0.0.1:{upstream.origin.port}"
            for _ in range(2):
                _, response = await upstreams.run(once(request(text)), no_body)
                assert await whole(response) == b"1"
            await upstreams.aclose()
            _, response = await upstreams.run(once(request(text)), no_body)
            assert await whole(response) == b"2"
            await upstreams.aclose()
            await upstreams.aclose()

    for _ in range(2):
        run(main())


def test_the_client_of_a_loop_that_was_closed_is_forgotten() -> None:
    upstreams = Upstreams(limits=Limits(keepalive_expiry=0))

    async def main() -> None:
        async with serving(forever) as upstream:
            _, response = await upstreams.run(once(request(f"127.0.0.1:{upstream.origin.port}")), no_body)
            assert await whole(response) == b"1"

    for _ in range(3):
        run(main())
    assert upstreams._states.all() == []


# Exchanges.


def test_an_exchange_may_reply_without_a_request() -> None:
    def exchange() -> Exchange:
        yield from ()
        return Reply(204)

    async def main() -> None:
        assert await Upstreams().run(exchange(), no_body) == (Reply(204), None)

    run(main())


def test_an_exchange_may_send_another_request_after_a_response_and_after_an_error() -> None:
    def exchange() -> Exchange:
        try:
            yield request("127.0.0.1:1")
        except UpstreamConnectError:
            first = yield request("one")
        second = yield request("two")
        return Reply(first.status + second.status)

    async def main() -> None:
        def handler(asked: httpx.Request) -> httpx.Response:
            return httpx.Response({"one": 201, "two": 203}[asked.url.host])

        transport = httpx.MockTransport(handler)
        upstreams = Upstreams(transports={"one": transport, "two": transport})
        outcome, response = await upstreams.run(exchange(), no_body)
        assert outcome == Reply(404)
        assert response is None
        await upstreams.aclose()

    run(main())


def test_a_response_is_closed_when_the_exchange_fails_on_it() -> None:
    closed = asyncio.Event()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b""

        async def aclose(self) -> None:
            closed.set()

    def exchange() -> Exchange:
        yield request()
        raise LookupError

    async def main() -> None:
        upstreams = over(lambda _: httpx.Response(200, stream=Endless()))
        with pytest.raises(LookupError):
            await upstreams.run(exchange(), no_body)
        await upstreams.aclose()
        assert closed.is_set()

    run(main())


# httpx transports.


def test_a_transport_gets_the_raw_target_and_the_framing() -> None:
    seen: list[httpx.Request] = []

    async def handler(asked: httpx.Request) -> httpx.Response:
        seen.append(asked)
        return httpx.Response(200, headers=[("X-Twice", "1"), ("x-twice", "2")], content=await asked.aread())

    async def main() -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"abc"
            yield b"d"

        async def opened() -> AsyncIterator[bytes]:
            return body()

        async def at_once() -> bytes:
            return b"abcd"

        upstreams = over(handler)
        for framing, give in (
            (BodyFraming(4), at_once),
            (BodyFraming(None), opened),
            (BodyFraming(0), no_body),
            (None, no_body),
        ):
            outcome, response = await upstreams.run(once(request(method="POST", body=framing)), give)
            assert await whole(response) == (b"abcd" if give is not no_body else b"")
            assert isinstance(outcome, Relay)
            assert [pair for pair in outcome.head.headers if pair[0] == b"x-twice"] == [
                (b"x-twice", b"1"),
                (b"x-twice", b"2"),
            ]
        odd = request()
        odd.target = b"//host/%2e%2e"
        await whole((await upstreams.run(once(odd), no_body))[1])
        await upstreams.aclose()

    run(main())
    assert [each.headers.raw for each in seen[:4]] == [
        [*HOST, (b"content-length", b"4")],
        [*HOST, (b"transfer-encoding", b"chunked")],
        [*HOST, (b"content-length", b"0")],
        HOST,
    ]
    assert seen[0].url == "http://shop/a?b"
    assert [each.extensions["target"] for each in (seen[0], seen[4])] == [b"/a?b", b"//host/%2e%2e"]


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (httpx.ConnectError("no"), UpstreamConnectError),
        (httpx.ConnectTimeout("slow"), UpstreamConnectError),
        (httpx.PoolTimeout("full"), UpstreamConnectError),
        (httpx.ReadTimeout("slow"), UpstreamTimeout),
        (httpx.RemoteProtocolError("what"), UpstreamProtocolError),
        (httpx.UnsupportedProtocol("what"), UpstreamProtocolError),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else each.__name__,
)
def test_errors_of_a_transport_are_translated(error: Exception, ours: type[UpstreamError]) -> None:
    class Breaking(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"half"
            raise error

    def before(_: httpx.Request) -> httpx.Response:
        raise error

    async def main() -> None:
        with pytest.raises(ours):
            await over(before).run(once(request()), no_body)
        upstreams = over(lambda _: httpx.Response(200, stream=Breaking()))
        _, response = await upstreams.run(once(request()), no_body)
        assert response is not None
        assert response.take() is None
        assert await response.read() == b"half"
        with pytest.raises(ours):
            await response.read()
        response.close()
        response.close()
        await upstreams.aclose()

    run(main())


def test_the_deadline_counts_for_a_transport_too_until_it_is_cancelled() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await asyncio.sleep(0.2)
            yield b"late"

    async def main() -> None:
        with pytest.raises(UpstreamTimeout):
            await over(hang).run(once(request(timeout=0.05)), no_body)
        upstreams = over(lambda _: httpx.Response(200, stream=Slow()))
        for cancelled in (False, True):
            _, response = await upstreams.run(once(request(timeout=0.1)), no_body)
            assert response is not None
            if cancelled:
                response.cancel_deadline()
                assert await response.read() == b"late"
            else:
                with pytest.raises(UpstreamTimeout):
                    await response.read()
            response.close()
        await upstreams.aclose()

    run(main())


def test_a_real_transport_works_and_gives_its_connection_back() -> None:
    async def main() -> None:
        async with serving(forever) as upstream, httpx.AsyncHTTPTransport() as transport:
            upstreams = Upstreams({"*": _url(upstream.origin)}, {"shop": transport})
            for _ in range(3):
                _, response = await upstreams.run(once(request()), no_body)
                assert await whole(response) == b"1"
            await upstreams.aclose()

    run(main())


# Apps.


def test_an_app_that_replies_nothing_of_its_own_is_replaced() -> None:
    def refusing(asked: UpstreamRequest) -> Exchange:
        yield asked
        return Reply(403)

    def talking(asked: UpstreamRequest) -> Exchange:
        yield asked
        yield asked
        return Reply(200)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})

    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    async def never() -> Message:
        raise AssertionError

    async def main() -> None:
        assert await call_app(app, refusing(request()), {}, never, keep) == Reply(403)
        assert sent == []
        with pytest.raises(RuntimeError, match="cannot be retried"):
            await call_app(app, talking(request()), {}, never, keep)

    run(main())


def test_httpx_is_loaded_only_where_a_transport_is_used() -> None:
    script = "import canary_mw.middleware.asgi.middleware, sys; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _url(origin: Origin) -> str:
    return f"{origin.scheme}://{origin.authority}"
