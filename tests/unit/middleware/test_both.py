"""What must be the same with ASGI and WSGI, under real servers, with real upstreams."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from middlewares import Middleware, current, middleware, serving_middleware, use
from servers import Client, client_of, fetch, mapping, respond, run
from upstream import Peer, Script, answering, forever, serving, silent, until
from wsgiservers import respond as wsgi_respond

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.observers import Observer

RULES = (
    mapping("stable", "/shop/", "shop-stable")
    + mapping("gray", "/shop/", "shop-gray", headers="{gray: 'true'}")
    + mapping("quick", "/quick/", "shop-gray", timeout_ms=300)
    + mapping("dead", "/dead/", "127.0.0.1:1")
    + mapping("moved", "/old/", "shop-gray", host_redirect="true", path_redirect="/new/")
)
GRAY = [("gray", "true")]


@pytest.fixture(params=["httptools", "h11", "waitress"])
def server(request: pytest.FixtureRequest) -> str:
    """The servers: uvicorn's two parsers, and waitress."""
    use("wsgi" if request.param == "waitress" else "asgi")
    return str(request.param)


def wrapped(app: Any = None, port: int = 1, **options: Any) -> Middleware:
    """The middleware around an app, with the gray service on a port of this machine."""
    options.setdefault("rules", StaticSource(RULES))
    options.setdefault("local", "shop-stable")
    options.setdefault("upstreams", {"shop-gray": f"http://127.0.0.1:{port}"})
    return middleware(app, **options)


@contextlib.asynccontextmanager
async def forwarded(script: Script, server: str = "httptools", **options: Any) -> AsyncIterator[Client]:
    """A client of the middleware, with a scripted gray service behind it."""
    async with (
        serving(script) as upstream,
        serving_middleware(wrapped(port=upstream.origin.port, **options), server) as port,
        client_of(port) as client,
    ):
        yield client


class Log(Observer):
    """Keeps the records."""

    def __init__(self) -> None:
        self.requests: list[Decided] = []
        self.ends: list[Finished] = []

    def decided(self, record: Decided) -> None:
        self.requests.append(record)

    def finished(self, record: Finished) -> None:
        self.ends.append(record)

    def has(self, ends: int) -> bool:
        return len(self.ends) >= ends


def test_a_target_that_cannot_be_matched_is_a_bad_request(interface: str) -> None:
    async def main() -> None:
        async with serving_middleware(wrapped()) as port:
            answer = await fetch(port, "/shop/%00")
            assert answer.status == 400
            assert answer.header("x-content-type-options") == "nosniff"
            assert b"%00" not in answer.body

    run(main())


def test_rules_may_be_a_path(interface: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    async def main() -> None:
        for rules in (path, str(tmp_path)):
            async with serving_middleware(wrapped(rules=rules)) as port:
                assert (await fetch(port, "/old/")).status == 301

    run(main())


def test_local_names_of_the_environment_win(interface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_MW_LOCAL", "shop-gray")

    async def main() -> None:
        async with serving_middleware(wrapped()) as port:
            assert (await fetch(port, "/shop/", headers=GRAY)).body == b"from the app"

    run(main())


def test_blanks_behind_a_header_value_do_not_hide_it(server: str) -> None:
    async def main() -> None:
        async with forwarded(answering(b"HTTP/1.1 203 OK\r\ncontent-length: 0\r\n\r\n"), server) as client:
            await client.put(b"GET /shop/ HTTP/1.1\r\nhost: a\r\ngray: true \t\r\nx-empty:\r\n\r\n")
            assert b"HTTP/1.1 203" in await client.reader.readuntil(b"\r\n\r\n")

    run(main())


def test_a_gray_request_is_forwarded_and_its_answer_relayed(server: str) -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        assert seen.line == b"PUT /a%2Fb?x=%20 HTTP/1.1"
        assert b"content-length: 4" in seen.headers
        assert b"x-forwarded-for: 127.0.0.1" in seen.headers
        assert sum(line.startswith(b"via: 1.1 canary-mw-") for line in seen.headers) == 1
        await peer.answer(seen.body[::-1], b"x-here: 1", b"connection: x-gone", b"x-gone: 1", status=b"202 Accepted")

    async def main() -> None:
        async with serving(script) as upstream, serving_middleware(wrapped(port=upstream.origin.port), server) as port:
            answer = await fetch(port, "/shop/a%2Fb?x=%20", "PUT", GRAY, b"abcd")
            assert (answer.status, answer.body, answer.whole) == (202, b"dcba", True)
            assert answer.header("x-here") == "1"
            assert answer.header("x-gone") is None

    run(main())


def test_connections_to_the_upstream_are_reused(interface: str) -> None:
    async def main() -> None:
        async with forwarded(forever) as client:
            for _ in range(5):
                assert (await client.get("GET", "/shop/", GRAY)).body == b"1"

    run(main())


def test_the_headers_of_a_trusted_peer_are_continued(interface: str) -> None:
    lines: list[list[bytes]] = []

    async def script(peer: Peer) -> None:
        lines.append((await peer.request()).headers)
        await peer.answer()

    async def main() -> None:
        async with serving(script) as upstream:
            for trusted in ([], ["127.0.0.0/8"]):
                async with serving_middleware(wrapped(port=upstream.origin.port, trusted=trusted)) as port:
                    await fetch(port, "/shop/", headers=[*GRAY, ("x-forwarded-for", "10.9.8.7")])

    run(main())
    assert b"x-forwarded-for: 127.0.0.1" in lines[0]
    assert b"x-forwarded-for: 10.9.8.7, 127.0.0.1" in lines[1]


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n", 304),
    ],
)
def test_an_answer_without_body_has_none(server: str, method: str, answer: bytes, status: int) -> None:
    async def main() -> None:
        async with (
            serving(answering(answer)) as upstream,
            serving_middleware(wrapped(port=upstream.origin.port), server) as port,
        ):
            for _ in range(2):
                got = await fetch(port, "/shop/", method, GRAY)
                assert (got.status, got.body, got.whole) == (status, b"", True)
            assert got.header("content-length") == ("10" if method == "HEAD" else None)

    run(main())


@pytest.mark.parametrize(
    "framing", [b"content-length: 2\r\n\r\nok", b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
)
def test_a_client_of_http_1_0_gets_no_chunks_when_the_answer_is_there(server: str, framing: bytes) -> None:
    async def main() -> None:
        async with forwarded(answering(b"HTTP/1.1 200 OK\r\n" + framing), server) as client:
            await client.put(b"GET /shop/ HTTP/1.0\r\nhost: a\r\ngray: true\r\n\r\n")
            head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
            assert b"content-length: 2" in head.lower()
            assert b"transfer-encoding" not in head.lower()
            assert body == b"ok"

    run(main())


def test_a_chunked_upload_stays_chunked(server: str) -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        # Waitress hands a body over when it is complete.
        assert (b"transfer-encoding: chunked" in seen.headers) is (server != "waitress")
        await peer.answer(seen.body)

    async def main() -> None:
        async with forwarded(script, server) as client:
            await client.ask("POST", "/shop/", [*GRAY, ("transfer-encoding", "chunked")])
            await client.put(b"3\r\nabc\r\n")
            await client.put(b"2\r\nde\r\n0\r\n\r\n")
            assert (await client.answer()).body == b"abcde"

    run(main())


def test_an_answer_is_relayed_while_it_still_comes_in(server: str) -> None:
    async def main() -> None:
        more = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            await more.wait()
            await peer.send(b"6\r\nsecond\r\n", b"0\r\n\r\n")

        async with forwarded(script, server) as client:
            await client.ask("GET", "/shop/", GRAY)
            await client.head()
            assert await client.data() == b"first"
            more.set()
            assert await client.data() == b"second"
            assert await client.data() == b""

    run(main())


def test_a_long_answer_to_a_slow_client_is_held_back(server: str) -> None:
    size = 64 << 20

    async def main() -> None:
        sent = 0

        async def script(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            chunk = bytes(1 << 18)
            while sent < size:
                sent += len(chunk)
                await peer.send(chunk)

        rules = StaticSource(mapping("slow", "/shop/", "shop-gray", timeout_ms=0))
        async with serving(script) as upstream:
            middleware = wrapped(rules=rules, port=upstream.origin.port)
            async with serving_middleware(middleware, server) as port, client_of(port) as client:
                await client.ask("GET", "/shop/")
                await client.head()
                before = -1
                while sent != before:
                    before = sent
                    await asyncio.sleep(0.1)
                assert sent < size / 2
                total = 0
                while data := await client.data():
                    total += len(data)
                assert total == size

    run(main())


def test_an_event_stream_outlives_the_deadline(interface: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\ndata: 1\n\n")
        await asyncio.sleep(0.5)
        await peer.send(b"data: 2\n\n")
        peer.finish()

    async def main() -> None:
        async with serving(script) as upstream, serving_middleware(wrapped(port=upstream.origin.port)) as port:
            answer = await fetch(port, "/quick/")
            assert (answer.body, answer.whole) == (b"data: 1\n\ndata: 2\n\n", True)

    run(main())


@pytest.mark.parametrize(
    ("target", "script", "status", "text"),
    [
        ("/dead/", forever, 503, b"upstream 127.0.0.1 is not reachable\n"),
        ("/quick/", silent, 504, b"upstream shop-gray did not answer in time\n"),
        ("/quick/", answering(b"SSH-2.0\r\n\r\n"), 502, b"upstream shop-gray did not answer as HTTP\n"),
    ],
)
def test_an_upstream_without_answer_is_named_and_nothing_else(
    interface: str, target: str, script: Script, status: int, text: bytes
) -> None:
    async def main() -> None:
        async with serving(script) as upstream, serving_middleware(wrapped(port=upstream.origin.port)) as port:
            answer = await fetch(port, target)
            assert (answer.status, answer.body) == (status, text)
            assert answer.header("content-type") == "text/plain; charset=utf-8"

    run(main())


def test_a_request_that_came_by_before_is_a_loop(interface: str) -> None:
    async def main() -> None:
        async with serving_middleware(wrapped(hop_id="me")) as port:
            answer = await fetch(port, "/shop/", headers=[*GRAY, ("via", "1.1 a, 1.1 canary-mw-me")])
            assert answer.status == 508
            answer = await fetch(port, "/shop/", headers=[*GRAY, ("via", "1.1 a, 1.1 canary-mw-you")])
            assert answer.status == 503

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
    ids=["length", "chunked"],
)
def test_an_answer_that_breaks_off_is_cut_for_the_client_too(
    server: str, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        cut = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(answer)
            await cut.wait()
            peer.finish()

        async with forwarded(script, server) as client:
            await client.ask("GET", "/shop/", GRAY)
            await client.head()
            assert await client.data() == b"half"
            cut.set()
            assert await client.event() is None

    run(main())
    (line,) = [record for record in caplog.records if record.name == "canary_mw.relay"]
    assert "upstream shop-gray failed in the middle of a response" in line.getMessage()


def test_an_answer_that_is_too_slow_is_cut(interface: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await peer.gone()

    async def main() -> None:
        async with serving(script) as upstream, serving_middleware(wrapped(port=upstream.origin.port)) as port:
            answer = await fetch(port, "/quick/")
            assert (answer.status, answer.body, answer.whole) == (200, b"half", False)

    run(main())


def test_an_httpx_transport_may_answer_for_a_service(interface: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/refuse":
            raise httpx.ConnectError("no")
        return httpx.Response(203, headers=[("x-path", request.url.path)], content=request.content)

    async def main() -> None:
        async with serving_middleware(wrapped(transports={"shop-gray": httpx.MockTransport(handler)})) as port:
            answer = await fetch(port, "/shop/a", "POST", GRAY, b"hi")
            assert (answer.status, answer.body, answer.header("x-path")) == (203, b"hi", "/a")
            assert (await fetch(port, "/shop/refuse", headers=GRAY)).status == 503

    run(main())


def test_observers_are_notified_of_every_request(interface: str) -> None:
    log = Log()

    async def main() -> None:
        async with serving_middleware(wrapped(observers=[log])) as port:
            for number, target in enumerate(("/shop/", "/else", "/dead/", "/old/", "/%00")):
                await fetch(port, target)
                await until(partial(log.has, number + 1))

    run(main())
    assert [(each.path, each.service, each.variant) for each in log.requests[:3]] == [
        ("/shop/", "shop-stable", "stable"),
        ("/else", None, None),
        ("/dead/", "127.0.0.1:1", "stable"),
    ]
    assert [(each.status, each.mapping, each.reason) for each in log.ends] == [
        (200, "stable", None),
        (200, None, None),
        (503, "dead", "service unavailable"),
        (301, "moved", "moved permanently"),
        (400, None, "bad request"),
    ]


def test_arguments_that_cannot_work_are_refused(interface: str) -> None:
    with pytest.raises(ConfigError, match="more than scheme, host and port"):
        wrapped(upstreams={"shop-gray": "http://127.0.0.1/path"})
    with pytest.raises(ConfigError, match="trusted peer 'moon'"):
        wrapped(trusted=["moon"])
    with pytest.raises(ConfigError, match="hop id 'a b'"):
        wrapped(hop_id="a b")


def test_both_middlewares_take_the_same_arguments() -> None:
    mine, other = (inspect.signature(each).parameters for each in (CanaryMiddleware, CanaryWSGIMiddleware))
    assert {name: each.kind for name, each in mine.items()} == {name: each.kind for name, each in other.items()}
    assert {name: each.default for name, each in mine.items() if name != "roll"} == {
        name: each.default for name, each in other.items() if name != "roll"
    }


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
def test_a_header_that_needs_trust_is_gone_for_rules_and_app_alike(interface: str, trusted: list[str]) -> None:
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]).get(b"gray"))
        await respond(send, b"from the app")

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        seen.append(environ.get("HTTP_GRAY"))
        return wsgi_respond(start_response, b"from the app")

    async def main() -> None:
        async with serving(forever) as upstream:
            options: dict[str, Any] = {"trusted_headers": ["Gray"], "trusted": trusted, "port": upstream.origin.port}
            served = wrapped(app if current() == "asgi" else wsgi_app, **options)
            async with serving_middleware(served) as port:
                answer = await fetch(port, "/shop/", headers=GRAY)
                assert answer.body == (b"1" if trusted else b"from the app")

    run(main())
    assert seen == ([] if trusted else [None])


def test_an_endpoint_that_refuses_is_passed_over(interface: str) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            urls = ["http://127.0.0.1:1", f"http://127.0.0.1:{upstream.origin.port}"]
            rules = mapping("a", "/a/", "shop-gray", outlier_detection="{consecutive_5xx: 2}")
            served = wrapped(upstreams={"shop-gray": urls}, rules=StaticSource(rules))
            async with serving_middleware(served) as port:
                for _ in range(6):
                    assert (await fetch(port, "/a/")).status == 200
                assert served.ejections() == {"shop-gray": 1}
            served = wrapped(upstreams={"shop-gray": [urls[0], "http://127.0.0.1:2"]}, rules=StaticSource(rules))
            async with serving_middleware(served) as port:
                assert (await fetch(port, "/a/")).status == 503

    run(main())


def test_a_426_names_its_protocols_where_a_server_takes_it(server: str) -> None:
    """PEP 3333 allows WSGI apps no hop-by-hop headers."""
    head = b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade, x-hop\r\nx-hop: 1\r\n"

    async def main() -> None:
        async with forwarded(answering(head + b"content-length: 0\r\n\r\n"), server) as client:
            got = await client.get("GET", "/shop/", GRAY)
            assert got.status == 426
            assert got.header("upgrade") == (None if server == "waitress" else "websocket")
            options = [value for name, value in got.headers if name == b"connection"]
            assert (b"upgrade" in b",".join(options).lower()) is (server != "waitress")
            assert got.header("x-hop") is None

    run(main())


def test_a_request_that_the_module_does_not_let_in_is_counted(interface: str) -> None:
    module = "---\napiVersion: getambassador.io/v2\nkind: Module\nmetadata: {name: ambassador}\n"
    module += "spec: {config: {ip_deny: [{peer: 127.0.0.1}]}}\n"

    async def main() -> None:
        log = Log()
        served = wrapped(rules=StaticSource(RULES + module), observers=[log])
        async with serving_middleware(served) as port:
            assert (await fetch(port, "/shop/")).status == 403
            await until(lambda: log.ends)
        assert served.refusals.refused == {403: 1}
        assert [(each.path, each.status, each.reason) for each in log.ends] == [("/shop/", 403, "forbidden")]

    run(main())


def test_the_least_loaded_endpoint_is_asked(interface: str) -> None:
    """A response that is not complete counts as an active request of its endpoint."""

    async def main() -> None:
        release = asyncio.Event()

        async def held(peer: Peer, name: bytes) -> None:
            while True:
                await peer.request()
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + name)
                await release.wait()
                await peer.send(b".")

        async with serving(lambda peer: held(peer, b"a")) as one, serving(lambda peer: held(peer, b"b")) as two:
            urls = [f"http://127.0.0.1:{each.origin.port}" for each in (one, two)]
            rules = mapping("a", "/a/", "shop-gray", timeout_ms=0, load_balancer="{policy: least_request}")
            served = wrapped(upstreams={"shop-gray": urls}, rules=StaticSource(rules))
            async with serving_middleware(served) as port, contextlib.AsyncExitStack() as stack:
                names = []
                for _ in range(6):
                    client = await stack.enter_async_context(client_of(port))
                    await client.ask("GET", "/a/")
                    await client.head()
                    names.append(await client.data())
                assert sorted(names) == [b"a"] * 3 + [b"b"] * 3
                release.set()

    run(main())


@pytest.mark.parametrize("given", ["path", "source", "store"])
def test_rules_cannot_read_the_environment_of_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interface: str, given: str
) -> None:
    monkeypatch.setenv("CANARY_TEST_SECRET", "hunter2")
    monkeypatch.setenv("CANARY_TEST_REGION", "north")
    monkeypatch.setenv("CANARY_MW_ENV_NAMES", "CANARY_TEST_REGION")
    headers = '{x-a: "$CANARY_TEST_SECRET", x-b: "${CANARY_TEST_SECRET}", x-c: "${CANARY_TEST_REGION}"}'
    text = mapping("gray", "/shop/", "shop-gray", add_request_headers=headers)
    (tmp_path / "rules.yaml").write_text(text)
    store = RuleStore(StaticSource(text))
    rules = {"path": tmp_path, "source": StaticSource(text), "store": store}[given]
    seen: list[list[bytes]] = []

    async def script(peer: Peer) -> None:
        seen.append([line for line in (await peer.head()).headers if line.startswith(b"x-") and line[3:4] == b":"])
        await peer.answer()

    async def main() -> None:
        async with serving(script) as up, serving_middleware(wrapped(port=up.origin.port, rules=rules)) as port:
            assert (await fetch(port, "/shop/")).status == 200

    run(main())
    store.stop()
    assert seen == [[b"x-a: $CANARY_TEST_SECRET", b"x-b: ${CANARY_TEST_SECRET}", b"x-c: north"]]
