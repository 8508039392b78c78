"""The ASGI shell before real servers and real upstreams."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import HTTPS, Client, client_of, fetch, hello, mapping, respond, run, serving_app
from upstream import Peer, Script, answering, forever, serving, silent, until

from canary_mw.asgi import CanaryMiddleware
from canary_mw.exceptions import ConfigError
from canary_mw.inbox import PATIENCE
from canary_mw.observers import Decided, Finished, Observer
from canary_mw.sources import StaticSource
from canary_mw.store import RuleStore
from canary_mw.upstreams import ASGIApp, Message, Receive, Scope, Send

RULES = (
    mapping("stable", "/shop/", "shop-stable")
    + mapping("gray", "/shop/", "shop-gray", headers="{gray: 'true'}")
    + mapping("quick", "/quick/", "shop-gray", timeout_ms=300)
    + mapping("dead", "/dead/", "127.0.0.1:1")
    + mapping("moved", "/old/", "shop-gray", host_redirect="true", path_redirect="/new/")
)
GRAY = [("gray", "true")]


made: list[CanaryMiddleware] = []


def wrapped(app: ASGIApp = hello, port: int = 1, **options: Any) -> CanaryMiddleware:
    """The middleware around an app that knows no lifespan, with the gray service on a port of this machine."""
    options.setdefault("rules", StaticSource(RULES))
    options.setdefault("local", "shop-stable")
    options.setdefault("upstreams", {"shop-gray": f"http://127.0.0.1:{port}"})
    made.append(CanaryMiddleware(app, **options))
    return made[-1]


@pytest.fixture(autouse=True)
def _stop_what_was_made() -> Iterator[None]:
    """Without lifespan nobody tells a middleware that it is over."""
    yield
    while made:
        made.pop().store.stop()


@contextlib.asynccontextmanager
async def forwarded(script: Script, http: str = "httptools", **options: Any) -> AsyncIterator[Client]:
    """A client of the middleware, with a scripted gray service behind it."""
    async with (
        serving(script) as upstream,
        serving_app(wrapped(port=upstream.origin.port, **options), http=http) as port,
        client_of(port) as client,
    ):
        yield client


class Log(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.requests: list[Decided] = []
        self.ends: list[Finished] = []

    def decided(self, record: Decided) -> None:
        self.requests.append(record)

    def finished(self, record: Finished) -> None:
        self.ends.append(record)


@pytest.fixture(params=HTTPS)
def http(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# What goes to the wrapped app.


def test_the_local_service_and_what_matches_nothing_go_to_the_app_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.append(scope)
            await respond(send, b"app", 201)

    async def main() -> None:
        async with serving_app(wrapped(app)) as port:
            assert (await fetch(port, "/shop/a%2Fb?q=1")).status == 201
            assert (await fetch(port, "/other")).body == b"app"

    run(main())
    local, unmatched = seen
    assert local["canary_mw"].mapping.name == "stable"
    assert local["canary_mw"].variant == "stable"
    assert local["raw_path"] == b"/shop/a%2Fb"
    assert unmatched["canary_mw"] is None


def test_the_scope_of_the_server_is_not_changed() -> None:
    async def main() -> None:
        scope = {**_scope("/shop/"), "state": {}}
        before = dict(scope)
        await wrapped()(scope, _nothing, _sink)
        assert scope == before

    run(main())


def test_exceptions_of_the_app_pass_unchanged() -> None:
    error = LookupError("of the app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    async def main() -> None:
        with pytest.raises(LookupError) as caught:
            await wrapped(app)(_scope("/shop/"), _nothing, _sink)
        assert caught.value is error

    run(main())


def test_a_websocket_goes_to_the_app() -> None:
    kinds: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kinds.append(scope["type"])

    async def main() -> None:
        await wrapped(app)({"type": "websocket", "path": "/shop/"}, _nothing, _sink)

    run(main())
    assert kinds == ["websocket"]


def test_a_path_without_raw_form_is_quoted_and_a_missing_client_is_fine() -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def gray(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["raw_path"])
            await respond(send, b"")

        scope = {**_scope("/shop/ü b"), "headers": [(b"host", b"a"), (b"gray", b"true")], "client": None}
        del scope["raw_path"]
        await wrapped(services={"shop-gray": gray})(scope, _nothing, _sink)
        assert seen == [b"/%C3%BC%20b"]

    run(main())


def test_blanks_behind_a_header_value_do_not_hide_it(http: str) -> None:
    async def main() -> None:
        async with forwarded(answering(b"HTTP/1.1 203 OK\r\ncontent-length: 0\r\n\r\n"), http) as client:
            await client.put(b"GET /shop/ HTTP/1.1\r\nhost: a\r\ngray: true \t\r\nx-empty:\r\n\r\n")
            assert b"HTTP/1.1 203" in await client.reader.readuntil(b"\r\n\r\n")

    run(main())


def test_a_target_that_cannot_be_matched_is_a_bad_request() -> None:
    async def main() -> None:
        async with serving_app(wrapped()) as port:
            answer = await fetch(port, "/shop/%00")
            assert answer.status == 400
            assert answer.header("x-content-type-options") == "nosniff"
            assert b"%00" not in answer.body

    run(main())


# Lifespan.


def test_the_rules_are_loaded_at_startup_and_left_at_shutdown() -> None:
    phases: list[tuple[str, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await hello(scope, receive, send)
        await receive()
        phases.append(("up", middleware.store.generation))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return None

    middleware = wrapped(app)

    async def main() -> None:
        async with serving_app(middleware, lifespan="on") as port:
            assert (await fetch(port, "/shop/")).status == 200
            assert _watchers() == 1
        assert _watchers() == 0

    run(main())
    assert phases == [("up", 1)]


@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_an_app_without_lifespan_gets_its_rules_at_the_first_request(lifespan: str) -> None:
    middleware = wrapped()

    async def main() -> None:
        async with serving_app(middleware, lifespan=lifespan) as port:
            assert (await fetch(port, "/old/")).status == 301
        await middleware.aclose()

    run(main())
    assert _watchers() == 0


def test_an_app_that_fails_to_start_leaves_nothing_running() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        sent: list[str] = []

        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            sent.append(message["type"])

        await wrapped(app)({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.failed"]
        assert _watchers() == 0

    run(main())


def test_a_shared_store_is_not_stopped_by_one_of_its_users() -> None:
    store = RuleStore(StaticSource(RULES), local=["shop-stable"], middleware=True)

    async def main() -> None:
        middleware = wrapped(rules=store)
        await middleware(_scope("/shop/"), _nothing, _sink)
        await middleware.aclose()
        assert _watchers() == 1

    run(main())
    store.stop()


def test_rules_may_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    async def main() -> None:
        for rules in (path, str(tmp_path)):
            middleware = wrapped(rules=rules)
            sent = _Sent()
            await middleware(_scope("/old/"), _nothing, sent)
            assert sent.status == 301
            await middleware.aclose()

    run(main())


def test_local_names_of_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_MW_LOCAL", "shop-gray")

    async def main() -> None:
        middleware, sent = wrapped(), _Sent()
        await middleware({**_scope("/shop/"), "headers": [(b"host", b"a"), (b"gray", b"true")]}, _nothing, sent)
        await middleware.aclose()
        assert sent.body == b"from the app"

    run(main())


# Forwarding.


def test_a_gray_request_is_forwarded_and_its_answer_relayed(http: str) -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        assert seen.line == b"PUT /a%2Fb?x=%20 HTTP/1.1"
        assert b"content-length: 4" in seen.headers
        assert b"x-forwarded-for: 127.0.0.1" in seen.headers
        assert sum(line.startswith(b"via: 1.1 canary-mw-") for line in seen.headers) == 1
        await peer.answer(seen.body[::-1], b"x-here: 1", b"connection: x-gone", b"x-gone: 1", status=b"202 Accepted")

    async def main() -> None:
        async with serving(script) as upstream, serving_app(wrapped(port=upstream.origin.port), http=http) as port:
            answer = await fetch(port, "/shop/a%2Fb?x=%20", "PUT", GRAY, b"abcd")
            assert (answer.status, answer.body, answer.whole) == (202, b"dcba", True)
            assert answer.header("x-here") == "1"
            assert answer.header("x-gone") is None

    run(main())


def test_connections_to_the_upstream_are_reused() -> None:
    async def main() -> None:
        async with forwarded(forever) as client:
            for _ in range(5):
                assert (await client.get("GET", "/shop/", GRAY)).body == b"1"

    run(main())


def test_the_headers_of_a_trusted_peer_are_continued() -> None:
    lines: list[list[bytes]] = []

    async def script(peer: Peer) -> None:
        lines.append((await peer.request()).headers)
        await peer.answer()

    async def main() -> None:
        async with serving(script) as upstream:
            for trusted in ([], ["127.0.0.0/8"]):
                async with serving_app(wrapped(port=upstream.origin.port, trusted=trusted)) as port:
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
def test_an_answer_without_body_has_none(http: str, method: str, answer: bytes, status: int) -> None:
    async def main() -> None:
        async with (
            serving(answering(answer)) as upstream,
            serving_app(wrapped(port=upstream.origin.port), http=http) as port,
            client_of(port) as client,
        ):
            for _ in range(2):
                got = await client.get(method, "/shop/", GRAY)
                assert (got.status, got.body, got.whole) == (status, b"", True)
            assert got.header("content-length") == ("10" if method == "HEAD" else None)

    run(main())


@pytest.mark.parametrize(
    "framing", [b"content-length: 2\r\n\r\nok", b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
)
def test_a_client_of_http_1_0_gets_no_chunks_when_the_answer_is_there(http: str, framing: bytes) -> None:
    async def main() -> None:
        async with forwarded(answering(b"HTTP/1.1 200 OK\r\n" + framing), http) as client:
            await client.put(b"GET /shop/ HTTP/1.0\r\nhost: a\r\ngray: true\r\n\r\n")
            head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
            assert b"content-length: 2" in head
            assert b"transfer-encoding" not in head
            assert body == b"ok"

    run(main())


def test_a_chunked_upload_stays_chunked(http: str) -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        assert b"transfer-encoding: chunked" in seen.headers
        await peer.answer(seen.body)

    async def main() -> None:
        async with forwarded(script, http) as client:
            await client.ask("POST", "/shop/", [*GRAY, ("transfer-encoding", "chunked")])
            await client.put(b"3\r\nabc\r\n")
            await client.put(b"2\r\nde\r\n0\r\n\r\n")
            assert (await client.answer()).body == b"abcde"

    run(main())


def test_an_upload_reaches_the_upstream_while_it_still_comes_in(http: str) -> None:
    async def main() -> None:
        first = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.head()
            assert await peer.reader.readexactly(5) == b"first"
            first.set()
            assert await peer.reader.readexactly(6) == b"second"
            await peer.answer(b"done")

        async with forwarded(script, http) as client:
            await client.ask("POST", "/shop/", [*GRAY, ("content-length", "11")])
            await client.put(b"first")
            await first.wait()
            await client.put(b"second")
            assert (await client.answer()).body == b"done"

    run(main())


def test_an_answer_is_relayed_while_it_still_comes_in(http: str) -> None:
    async def main() -> None:
        more = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            await more.wait()
            await peer.send(b"6\r\nsecond\r\n", b"0\r\n\r\n")

        async with forwarded(script, http) as client:
            await client.ask("GET", "/shop/", GRAY)
            await client.head()
            assert await client.data() == b"first"
            more.set()
            assert await client.data() == b"second"
            assert await client.data() == b""

    run(main())


def test_a_long_answer_to_a_slow_client_is_held_back(http: str) -> None:
    size = 64 << 20

    async def main() -> None:
        sent = 0

        async def script(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            piece = bytes(1 << 18)
            while sent < size:
                sent += len(piece)
                await peer.send(piece)

        rules = StaticSource(mapping("slow", "/shop/", "shop-gray", timeout_ms=0))
        async with serving(script) as upstream:
            middleware = wrapped(rules=rules, port=upstream.origin.port)
            async with serving_app(middleware, http=http) as port, client_of(port) as client:
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


def test_an_early_refusal_of_an_upload_reaches_the_client(http: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"too large", status=b"413 Content Too Large")
        await peer.gone()

    async def main() -> None:
        async with forwarded(script, http) as client:
            await client.ask("POST", "/shop/", [*GRAY, ("content-length", "1000000")])
            await client.put(bytes(1000))
            answer = await client.answer()
            assert (answer.status, answer.body) == (413, b"too large")

    run(main())


def test_an_event_stream_outlives_the_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\ndata: 1\n\n")
        await asyncio.sleep(0.5)
        await peer.send(b"data: 2\n\n")
        peer.finish()

    async def main() -> None:
        async with serving(script) as upstream, serving_app(wrapped(port=upstream.origin.port)) as port:
            answer = await fetch(port, "/quick/")
            assert (answer.body, answer.whole) == (b"data: 1\n\ndata: 2\n\n", True)

    run(main())


# What goes wrong.


@pytest.mark.parametrize(
    ("target", "script", "status", "text"),
    [
        ("/dead/", forever, 503, b"upstream 127.0.0.1 is not reachable\n"),
        ("/quick/", silent, 504, b"upstream shop-gray did not answer in time\n"),
        ("/quick/", answering(b"SSH-2.0\r\n\r\n"), 502, b"upstream shop-gray did not answer as HTTP\n"),
    ],
)
def test_an_upstream_without_answer_is_named_and_nothing_else(
    target: str, script: Script, status: int, text: bytes
) -> None:
    async def main() -> None:
        async with serving(script) as upstream, serving_app(wrapped(port=upstream.origin.port)) as port:
            answer = await fetch(port, target)
            assert (answer.status, answer.body) == (status, text)
            assert answer.header("content-type") == "text/plain; charset=utf-8"

    run(main())


def test_a_request_that_came_by_before_is_a_loop() -> None:
    async def main() -> None:
        async with serving_app(wrapped(hop_id="me")) as port:
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
    http: str, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        cut = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(answer)
            await cut.wait()
            peer.finish()

        async with forwarded(script, http) as client:
            await client.ask("GET", "/shop/", GRAY)
            await client.head()
            assert await client.data() == b"half"
            cut.set()
            assert await client.event() is None

    run(main())
    (line,) = [record for record in caplog.records if record.name == "canary_mw.relay"]
    assert "upstream shop-gray failed in mid-answer" in line.getMessage()


def test_an_answer_that_is_too_slow_is_cut() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await peer.gone()

    async def main() -> None:
        async with serving(script) as upstream, serving_app(wrapped(port=upstream.origin.port)) as port:
            answer = await fetch(port, "/quick/")
            assert (answer.status, answer.body, answer.whole) == (200, b"half", False)

    run(main())


# The client leaves.


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"], ids=["before", "within"]
)
def test_a_client_that_leaves_ends_the_call_to_the_upstream(
    http: str, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(answer)
            asked.set()
            await peer.gone()
            gone.set()

        rules = StaticSource(mapping("long", "/shop/", "shop-gray", timeout_ms=0))
        async with serving(script) as upstream:
            log = Log()
            middleware = wrapped(rules=rules, port=upstream.origin.port, observers=[log])
            async with serving_app(middleware, http=http) as port:
                async with client_of(port) as client:
                    await client.ask("GET", "/shop/")
                    if answer:
                        await client.head()
                    await asked.wait()
                    await asyncio.sleep(3 * PATIENCE)
                async with asyncio.timeout(5):
                    await gone.wait()
                await until(lambda: log.ends or None)
                assert log.ends[0].reason == "client left"

    run(main())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_upload_that_breaks_off_is_not_completed_upstream(http: str) -> None:
    async def main() -> None:
        got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        some = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.head()
            first = await peer.read_some()
            some.set()
            got.set_result(first + await peer.gone())

        async with forwarded(script, http) as client:
            await client.ask("POST", "/shop/", [*GRAY, ("transfer-encoding", "chunked")])
            await client.put(b"3\r\nabc\r\n")
            await some.wait()
            await client.close()
            async with asyncio.timeout(5):
                assert await got == b"3\r\nabc\r\n"

    run(main())


def test_a_client_that_leaves_after_its_upload_ends_the_call_too(http: str) -> None:
    async def main() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await peer.gone()
            gone.set()

        rules = StaticSource(mapping("long", "/shop/", "shop-gray", timeout_ms=0))
        async with forwarded(script, http, rules=rules) as client:
            await client.ask("POST", "/shop/", [("content-length", "10")])
            await client.put(b"12345")
            await asyncio.sleep(3 * PATIENCE)
            await client.put(b"67890")
            await asked.wait()
            await client.close()
            async with asyncio.timeout(5):
                await gone.wait()

    run(main())


@pytest.mark.parametrize("fails", [False, True], ids=["replays the body", "fails"])
def test_a_receive_that_cannot_tell_that_the_client_left_is_left_alone(fails: bool) -> None:
    calls = 0
    watched = asyncio.Event()

    async def receive() -> Message:
        nonlocal calls
        calls += 1
        watched.set()
        if fails:
            raise RuntimeError("called after the body")
        return {"type": "http.request", "body": b"", "more_body": False}

    async def script(peer: Peer) -> None:
        await peer.request()
        await watched.wait()
        await peer.answer(b"slow")

    async def main() -> None:
        async with serving(script) as upstream:
            middleware, sent = wrapped(port=upstream.origin.port), _Sent()
            await middleware({**_scope("/shop/"), "headers": [(b"host", b"a"), (b"gray", b"true")]}, receive, sent)
            assert sent.body == b"slow"
            await middleware.aclose()

    run(main())
    assert calls == (1 if fails else 2)


def test_a_server_that_cancels_the_request_is_obeyed() -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await peer.gone()
            gone.set()

        asked = asyncio.Event()
        async with serving(script) as upstream:
            middleware = wrapped(port=upstream.origin.port)
            task = asyncio.create_task(
                middleware({**_scope("/shop/"), "headers": [(b"host", b"a"), (b"gray", b"true")]}, _never, _sink)
            )
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone.wait()
            await middleware.aclose()

    run(main())


# Services of the same process, and other transports.


def test_an_app_may_answer_for_a_service() -> None:
    async def gray(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert scope["path"] == "/ä"
        assert (b"content-length", b"2") in scope["headers"]
        assert scope["canary_mw"].variant == "gray"
        await respond(send, scope["raw_path"] + scope["query_string"] + message["body"], 207, [(b"keep-alive", b"1")])

    async def main() -> None:
        async with serving_app(wrapped(services={"SHOP-gray": gray})) as port:
            answer = await fetch(port, "/shop/%C3%A4?q", "POST", GRAY, b"hi")
            assert (answer.status, answer.body) == (207, b"/%C3%A4qhi")
            assert answer.header("keep-alive") is None
            assert (await fetch(port, "/old/")).header("location") == "http://shop-gray/new/"

    run(main())


def test_an_httpx_transport_may_answer_for_a_service() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/refuse":
            raise httpx.ConnectError("no")
        return httpx.Response(203, headers=[("x-path", request.url.path)], content=await request.aread())

    async def main() -> None:
        async with serving_app(wrapped(transports={"shop-gray": httpx.MockTransport(handler)})) as port:
            answer = await fetch(port, "/shop/a", "POST", GRAY, b"hi")
            assert (answer.status, answer.body, answer.header("x-path")) == (203, b"hi", "/a")
            assert (await fetch(port, "/shop/refuse", headers=GRAY)).status == 503

    run(main())


# Observers.


def test_observers_hear_of_every_request() -> None:
    log = Log()

    async def main() -> None:
        async with serving_app(wrapped(observers=[log]), lifespan="off") as port:
            for target in ("/shop/", "/else", "/dead/", "/old/", "/%00"):
                await fetch(port, target)

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


def test_an_app_that_fails_is_told_to_observers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    async def main() -> None:
        middleware = wrapped(app, observers=[log])
        with pytest.raises(LookupError):
            await middleware(_scope("/"), _nothing, _sink)
        await middleware.aclose()

    log = Log()
    run(main())
    assert (log.ends[0].status, log.ends[0].reason) == (None, "LookupError")


def test_arguments_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than scheme, host and port"):
        wrapped(upstreams={"shop-gray": "http://127.0.0.1/path"})
    with pytest.raises(ConfigError, match="trusted peer 'moon'"):
        wrapped(trusted=["moon"])
    with pytest.raises(ConfigError, match="hop id 'a b'"):
        wrapped(hop_id="a b")


class _Sent:
    """A `send` that keeps the answer."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    async def __call__(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


def _scope(path: str) -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("ascii", "replace"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"a")],
        "client": ("127.0.0.1", 1),
    }


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _never() -> Message:
    return await asyncio.Event().wait()  # type: ignore[return-value]


async def _sink(_: Message) -> None:
    pass


def _watchers() -> int:
    return sum(thread.name == "canary-mw-rules" for thread in threading.enumerate())
