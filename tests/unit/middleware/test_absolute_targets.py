"""Targets of absolute-form under servers that give them to the app as they came: there is one view of them."""

import asyncio
from typing import Any

import pytest
from servers import mapping, respond, run, serving_app

from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import BadTarget
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.asgi.scope import request_head, websocket_request
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.types import Receive, Scope, Send

RULES = mapping("a", "/h/", "app", host="a.example") + mapping("b", "/h/", "127.0.0.1:1", host="b.example")
HOST = (b"host", b"a.example")


def scope_of(target: bytes, host: bytes | None = b"a.example", **changes: Any) -> Scope:
    """As uvicorn makes it with h11, and for websockets."""
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [] if host is None else [(b"x", b"1"), (b"host", host)],
        **changes,
    }


@pytest.mark.parametrize("host", [b"a.example", b"A.example:80", None])
@pytest.mark.parametrize("websocket", [False, True])
def test_host_and_path_are_one_view_for_rules_and_app(host: bytes | None, websocket: bool) -> None:
    scope = scope_of(b"http://a.example/h/%41%20?q", host)
    head = request_head(websocket_request(scope) if websocket else scope)
    assert (head.host, head.path, head.query) == (b"a.example", b"/h/A%20", b"?q")
    assert (scope["path"], scope["raw_path"]) == ("/h/A ", b"/h/%41%20")
    assert HOST in scope["headers"]
    assert len([name for name, _ in scope["headers"] if name == b"host"]) == 1


def test_a_scope_without_a_raw_path_has_one_view_too() -> None:
    scope = scope_of(b"http://a.example/h/x")
    del scope["raw_path"]
    assert request_head(scope).path == b"/h/x"
    assert scope["path"] == "/h/x"


def test_a_root_path_before_the_target_hides_nothing() -> None:
    scope = scope_of(b"/apihttp://a.example/h/x", root_path="/api")
    assert request_head(scope).path == b"/api/h/x"
    assert scope["path"] == "/api/h/x"
    with pytest.raises(BadTarget):
        request_head(scope_of(b"/apihttp://a.example/h/x", b"b.example", root_path="/api"))


@pytest.mark.parametrize("path", [b"/h/http://b.example/", b"/http://b.example/", b"//b.example/h/"])
@pytest.mark.parametrize("root", ["", "/h"])
def test_a_path_that_holds_a_url_is_a_path(path: bytes, root: str) -> None:
    scope = scope_of(path, root_path=root)
    before = dict(scope)
    assert request_head(scope).path == path
    assert scope == before


@pytest.mark.parametrize(
    "target", [b"http://b.example/h/", b"http://me@a.example/h/", b"http:///h/", b"https://a.example:80/h/"]
)
@pytest.mark.parametrize("websocket", [False, True])
def test_another_host_is_refused(target: bytes, websocket: bool) -> None:
    scope = scope_of(target)
    with pytest.raises(BadTarget):
        request_head(websocket_request(scope) if websocket else scope)


UPGRADE = (
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize("more", [b"connection: close\r\n", UPGRADE], ids=["http", "websocket"])
@pytest.mark.parametrize("http", ["h11", GuardedProtocol])
def test_the_app_behind_a_server_gets_the_host_of_the_target_or_nothing(http: Any, more: bytes) -> None:
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["canary_mw"].mapping.name == "a"
        seen.append((scope["path"], dict(scope["headers"])[b"host"]))
        if scope["type"] == "http":
            await respond(send, b"app")
        else:
            await receive()
            await send({"type": "websocket.close"})

    async def ask(port: int, target: bytes, host: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (target, host, more))
        line = await reader.readline()
        writer.close()
        return line[9:12]

    async def main() -> None:
        middleware = CanaryMiddleware(app, rules=StaticSource(RULES), local="app")
        served = b"200" if more != UPGRADE else b"403"
        async with serving_app(middleware, http=http, lifespan="off") as port:
            assert await ask(port, b"http://a.example/h/x", b"a.example") == served
            assert seen == [("/h/x", b"a.example")]
            differs = await ask(port, b"http://a.example/h/x", b"b.example")
            assert differs == (b"400" if http == "h11" else served)
            assert seen == [("/h/x", b"a.example")] * (1 if http == "h11" else 2)
        await middleware.aclose()

    run(main())
