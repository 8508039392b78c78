"""The ASGI middleware under real servers, with real upstreams."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from servers import HTTPS, Client, client_of, fetch, hello, mapping, respond, run, serving_app
from upstream import Peer, Script, serving, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.asgi.receive import WATCH_DELAY
from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.observers import Observer
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

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
    """Without lifespan nothing else stops the store of a middleware."""
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
    """Keeps the records."""

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


def test_nothing_but_the_decision_is_added_to_the_scope_of_the_server() -> None:
    async def main() -> None:
        scope = {**_scope("/shop/"), "state": {}}
        before = dict(scope)
        await wrapped()(scope, _nothing, _sink)
        assert scope.pop("canary_mw").variant == "stable"
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


# Forwarding.


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


# What goes wrong.


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
                    await asyncio.sleep(3 * WATCH_DELAY)
                async with asyncio.timeout(5):
                    await gone.wait()
                await until(lambda: log.ends or None)
                assert log.ends[0].reason == "client left"

    run(main())
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    # No Mapping of these rules leads to the local service, which is said at the start.
    assert [record for record in warnings if record.name != "canary_mw.start"] == []


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
            await asyncio.sleep(3 * WATCH_DELAY)
            await client.put(b"67890")
            await asked.wait()
            await client.close()
            async with asyncio.timeout(5):
                await gone.wait()

    run(main())


@pytest.mark.parametrize("fails", [False, True], ids=["replays the body", "fails"])
def test_a_receive_that_reports_no_disconnect_is_not_called_again(fails: bool) -> None:
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


# Observers.


def test_observers_are_notified_of_an_app_that_fails() -> None:
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
