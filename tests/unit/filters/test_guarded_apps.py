"""An app behind an AuthService: what it gets, what it is spared, and that nothing reaches it unasked."""

import asyncio
import json
import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

import httpx
import pytest
from auth_rules import AuthService, auth_service, headers_of
from flask import Flask, request
from middlewares import ASGI_ONLY, current, middleware, serving_middleware, use
from servers import client_of, fetch, mapping, respond, run
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from test_both import Log
from upstream import Peer, serving, silent, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import ConfigError
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

RULES = (
    mapping("own", "/own/", "me")
    + mapping("free", "/free/", "me", bypass_auth="true")
    + mapping("shop", "/shop/", "shop")
)
GRANTED = auth_service(allowed_authorization_headers="[x-user]")
BODY = {"include_body": "{max_bytes: 5, allow_partial: true}"}


async def showing(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that says what it got."""
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await respond(send, json.dumps([headers.get("x-user"), headers.get("cookie"), body.decode()]).encode())


def wsgi_showing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The same for WSGI."""
    size = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(size).decode()
    data = json.dumps([environ.get("HTTP_X_USER"), environ.get("HTTP_COOKIE"), body]).encode()
    start_response("200 OK", [("content-length", str(len(data)))])
    return [data]


def guarded(auth_port: int, rules: str = RULES + GRANTED, app: Any = None, **options: Any) -> Any:
    """The middleware around an app, with an auth service on a port of this machine."""
    app = app or (showing if current() == "asgi" else wsgi_showing)
    upstreams = {"auth": f"http://127.0.0.1:{auth_port}", "shop": f"http://127.0.0.1:{options.pop('shop', 1)}"}
    return middleware(app, rules=StaticSource(rules), local="me", upstreams=upstreams, **options)


@pytest.mark.parametrize("path", ["/own/x", "/elsewhere"])
def test_the_app_gets_the_headers_of_the_service(interface: str, path: str) -> None:
    auth = AuthService((b"200 OK", [b"x-user: bob", b"x-envoy-auth-headers-to-remove: cookie"], b""))

    async def main() -> None:
        async with serving(auth) as service, serving_middleware(guarded(service.origin.port)) as port:
            answer = await fetch(port, path, headers=[("x-user", "admin"), ("cookie", "a=b")])
            assert json.loads(answer.body) == ["bob", None, ""]

    run(main())


def test_the_app_is_spared_what_the_service_refuses(interface: str) -> None:
    auth = AuthService((b"401 No", [b"www-authenticate: Basic", b"content-type: text/x"], b"who are you?"))
    log = Log()

    async def main() -> None:
        async with serving(auth) as service:
            served = guarded(service.origin.port, observers=[log])
            async with serving_middleware(served) as port:
                answer = await fetch(port, "/own/x")
                assert (answer.status, answer.body) == (401, b"who are you?")
                assert answer.header("www-authenticate") == "Basic"
                assert answer.header("content-type") == "text/x"
                await until(lambda: log.has(1))
        end = log.ends[0]
        assert (end.status, end.auth, end.mapping, end.release) == (401, "denied", "own", None)
        assert end.auth_seconds is not None

    run(main())


@pytest.mark.parametrize("status", [299, 420, 499])
def test_a_refusal_may_have_a_status_that_nobody_has_registered(interface: str, status: int) -> None:
    auth = AuthService((b"%d No" % status, [], b"no"))
    log = Log()

    async def main() -> None:
        async with serving(auth) as service:
            served = guarded(service.origin.port, observers=[log])
            async with serving_middleware(served) as port:
                answer = await fetch(port, "/own/x")
                assert (answer.status, answer.body) == (status, b"no")
                await until(lambda: log.has(1))
        assert (log.ends[0].status, log.ends[0].auth) == (status, "denied")

    run(main())


def test_probes_reach_the_app_while_the_service_is_dead(interface: str) -> None:
    async def main() -> None:
        async with serving_middleware(guarded(1)) as port:
            assert (await fetch(port, "/healthz")).status == 200
            assert (await fetch(port, "/own/")).status == 403
            assert (await fetch(port, "/free/")).status == 200

    run(main())


def test_a_test_answers_for_the_service_by_a_transport(interface: str) -> None:
    def allow(call: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if call.headers.get("authorization") else 401, headers={"x-user": "tester"})

    async def main() -> None:
        served = guarded(1, transports={"auth": httpx.MockTransport(allow)})
        async with serving_middleware(served) as port:
            assert (await fetch(port, "/own/")).status == 401
            answer = await fetch(port, "/own/", headers=[("authorization", "A")])
            assert json.loads(answer.body)[0] == "tester"

    run(main())


@pytest.mark.parametrize("path", ["healthz", "", "/a#b", "*"])
def test_a_probe_that_is_no_path_is_refused_at_once(interface: str, path: str) -> None:
    with pytest.raises(ConfigError):
        guarded(1, unguarded=[path])


def test_an_app_behind_a_gateway_that_asks_may_turn_filters_off(interface: str) -> None:
    async def main() -> None:
        async with serving_middleware(guarded(1, filters=False)) as port:
            answer = await fetch(port, "/own/", headers=[("x-user", "granted")])
            assert json.loads(answer.body)[0] == "granted"

    run(main())


@pytest.mark.parametrize("path", ["/own/", "/shop/"])
@pytest.mark.parametrize("size", [5, 200_000])
def test_the_body_that_the_service_has_begun_is_whole_for_all_others(interface: str, path: str, size: int) -> None:
    auth, body = AuthService(), b"0123456789" * (size // 10) + b"x" * (size % 10)
    seen: list[bytes] = []

    async def shop(peer: Peer) -> None:
        seen.append((await peer.request()).body)
        await peer.answer(b"ok")

    async def main() -> None:
        async with serving(auth) as service, serving(shop) as upstream:
            rules = RULES + auth_service(**BODY)
            served = guarded(service.origin.port, rules, shop=upstream.origin.port)
            async with serving_middleware(served) as port:
                answer = await fetch(port, path, "POST", body=body)
                assert answer.status == 200
                got = seen[0] if path == "/shop/" else json.loads(answer.body)[2].encode()
                assert got == body
                assert auth.seen[0].body == body[:5]

    run(main())


def test_a_body_that_may_not_be_cut_is_refused(interface: str) -> None:
    auth = AuthService()

    async def main() -> None:
        rules = RULES + auth_service(include_body="{max_bytes: 5, allow_partial: false}")
        async with serving(auth) as service, serving_middleware(guarded(service.origin.port, rules)) as port:
            assert (await fetch(port, "/own/", "POST", body=b"123456")).status == 413
            assert (await fetch(port, "/own/", "POST", body=b"12345")).status == 200
            assert [each.body for each in auth.seen] == [b"12345"]

    run(main())


def test_a_loop_through_the_auth_service_ends(interface: str) -> None:
    """The auth service is reached through the process that asks it."""

    async def main() -> None:
        rules = mapping("auth", "/check/", "me") + auth_service(path_prefix="/check")
        async with serving_middleware(guarded(1, rules)) as front:
            served = guarded(front, rules)
            async with serving_middleware(served) as port:
                assert (await fetch(port, "/own/")).status in (403, 508)

    run(main())


@ASGI_ONLY  # A thread cannot be told.
def test_a_client_that_leaves_cancels_the_call(interface: str) -> None:
    left = asyncio.Event()

    async def never(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        left.set()

    async def main() -> None:
        log = Log()
        async with (
            serving(never) as service,
            serving_middleware(guarded(service.origin.port, observers=[log])) as port,
        ):
            async with client_of(port) as client:
                await client.ask("GET", "/own/")
                await until(lambda: service.accepted)
            await left.wait()
            await until(lambda: log.has(1))
        assert log.ends[0].reason == "client left"

    run(main())


@ASGI_ONLY
def test_a_websocket_is_asked_about_before_it_is_accepted(interface: str) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    auth = AuthService((b"403 No", [], b"not you"), (b"200 OK", [b"x-user: bob"], b""))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        user = dict(scope["headers"]).get(b"x-user", b"").decode()
        await send({"type": "websocket.send", "text": user})
        await send({"type": "websocket.close"})

    async def main() -> None:
        async with serving(auth) as service, serving_middleware(guarded(service.origin.port, app=app)) as port:
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"ws://127.0.0.1:{port}/own/", proxy=None):
                    pass
            assert refused.value.response.status_code == 403
            async with connect(f"ws://127.0.0.1:{port}/own/", proxy=None) as websocket:
                assert await websocket.recv() == "bob"
        names = headers_of(auth.seen[0]).keys()
        assert not {name for name in names if name.startswith("sec-websocket") or name == "upgrade"}

    run(main())


# Ways to write a path. An app of a framework may route one that the rules do not see as its own.
VARIANTS = (
    *("/own/x", "//own/x", "/own//x", "/OWN/x", "/own/./x", "/own/../own/x", "/own%2fx", "/%6fwn/x", "/own/x/"),
    *("/x/../free/../own/x", "/free/..%2fown/x", "/own/x;a=1", "/own\\x", "/healthz/../own/x", "/own/healthz/../x"),
    *("/./healthz", "//healthz", "/healthz/", "/free/../healthz/x", "/HEALTHZ", "/healthz%2f"),
    *("/own/x%2f..%2f..%2ffree/", "/own%2fx/public", "/own/x%2f..%2f/public", "/a%2f/public"),
)


def starlette_app(reached: list[str]) -> Any:
    """Routes everything below some paths."""

    async def view(request: Request) -> PlainTextResponse:
        reached.append(request.url.path)
        return PlainTextResponse("ok")

    everything = Route("/{path:path}", view)
    return Starlette(routes=[Mount("/own", routes=[everything]), everything])


def flask_app(reached: list[str]) -> Any:
    app = Flask("guarded")

    @app.route("/", defaults={"path": ""})
    @app.route("/<path:path>")
    def view(path: str) -> str:
        reached.append(request.path)
        return "ok"

    return app


def django_app(reached: list[str]) -> Any:
    django, conf = import_module("django"), import_module("django.conf")
    if not conf.settings.configured:
        conf.settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="for tests")
        django.setup()
    urls: Any = ModuleType("guarded_urls")

    def view(request: Any) -> Any:
        reached.append(request.path)
        return import_module("django.http").HttpResponse("ok")

    urls.urlpatterns = [import_module("django.urls").re_path(r"^.*$", view)]
    sys.modules["guarded_urls"] = urls
    handler = import_module("django.core.handlers.wsgi").WSGIHandler()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        with import_module("django.test.utils").override_settings(ROOT_URLCONF="guarded_urls"):
            return handler(environ, start_response)

    return app


@pytest.mark.parametrize(
    ("interface", "make"), [("asgi", starlette_app), ("wsgi", flask_app), ("wsgi", django_app)], indirect=["interface"]
)
def test_no_way_to_write_a_path_gets_to_the_app_unasked(interface: str, make: Any) -> None:
    reached: list[str] = []
    auth = AuthService(*[(b"403 No", [], b"")] * 100)
    rules = RULES.replace("/free/", "/other/").replace("  bypass_auth: true\n", "")
    # For an app, an escaped slash is one: it routes by other segments than the rules.
    rules += mapping("public", '"/[^/]+/public"', "me", prefix_regex="true", bypass_auth="true")

    async def main() -> None:
        async with (
            serving(auth) as service,
            serving_middleware(guarded(service.origin.port, rules + GRANTED, make(reached))) as port,
        ):
            for path in VARIANTS:
                answer = await fetch(port, path)
                assert answer.status in (400, 403, 404), path
        assert reached == []

    run(main())


@pytest.mark.parametrize("body", [b"", b"12345"])
def test_a_connection_that_the_service_has_closed_is_replaced(interface: str, body: bytes) -> None:
    async def once(peer: Peer) -> None:
        """It answers one request, and closes the connection when the next one comes."""
        await peer.request()
        await peer.answer(b"")
        await peer.request()
        peer.reset()

    async def main() -> None:
        rules = RULES + auth_service(**BODY)
        async with serving(once) as service, serving_middleware(guarded(service.origin.port, rules)) as port:
            for _ in range(3):
                assert (await fetch(port, "/own/", "POST", body=body)).status == 200
            assert service.accepted == 3

    run(main())


LIES = {
    "nothing": b"",
    "no HTTP": b"hello\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nx-user: ad",
    "half a body": b"HTTP/1.1 401 No\r\ncontent-length: 10\r\n\r\nhalf",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n",
    "a header that is none": b"HTTP/1.1 200 OK\r\nx user: a\r\ncontent-length: 0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("answer", LIES.values(), ids=list(LIES))
def test_what_is_no_answer_closes_the_door(answer: bytes) -> None:
    async def liar(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        peer.finish()

    async def main() -> None:
        async with serving(liar) as service, serving_middleware(guarded(service.origin.port)) as port:
            assert (await fetch(port, "/own/")).status == 403

    use("asgi")
    run(main())


def test_a_service_that_fails_is_told_of_in_the_log(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    auth = AuthService((b"503 Busy", [], b""))

    async def main() -> None:
        async with serving(auth) as service, serving_middleware(guarded(service.origin.port)) as port:
            assert [(await fetch(port, "/own/")).status for _ in range(2)] == [403, 200]

    caplog.set_level("INFO", logger="canary_mw")
    run(main())
    text = "upstream auth failed: protocol: answered with the status 503 "
    assert [each.getMessage().startswith(text) for each in caplog.records if "failed" in each.getMessage()] == [True]
    assert "AuthService auth)" in caplog.text


def test_a_service_that_does_not_answer_in_time_closes_the_door(interface: str) -> None:
    async def main() -> None:
        rules = RULES + auth_service(timeout_ms=50)
        async with serving(silent) as service, serving_middleware(guarded(service.origin.port, rules)) as port:
            assert (await fetch(port, "/own/")).status == 403
            assert (await fetch(port, "/free/")).status == 200

    run(main())


@ASGI_ONLY
def test_a_client_that_leaves_in_its_body_is_asked_about_nowhere(interface: str) -> None:
    auth, log = AuthService(), Log()

    async def main() -> None:
        rules = RULES + auth_service(include_body="{max_bytes: 50, allow_partial: true}")
        async with (
            serving(auth) as service,
            serving_middleware(guarded(service.origin.port, rules, observers=[log])) as port,
        ):
            async with client_of(port) as client:
                await client.put(b"POST /own/ HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\nhalf")
            await until(lambda: log.has(1))
        assert (auth.seen, log.ends[0].reason) == ([], "client left")

    run(main())
