"""`date` and `server` of a response from gray, where the server around the middleware adds its own: one of each."""

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from servers import Answer, fetch, mapping, run, serving_app
from upstream import Peer, Upstream, serving
from werkzeug.serving import make_server
from wsgiservers import hello as wsgi_hello
from wsgiservers import serving_wsgi

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.host_server import HostProbe, HostServer
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.types import Message, Receive, Scope, Send

MODULE = """---
apiVersion: getambassador.io/v2
kind: Module
name: ambassador
config: {server_name: edge}
"""
RULES = mapping("gray", "/shop/", "gray") + mapping("moved", "/old/", "gray", host_redirect="true")
DATE = "Thu, 01 Jan 1970 00:00:00 GMT"


async def dated(peer: Peer) -> None:
    """Every request gets both headers."""
    while True:
        await peer.request()
        await peer.answer(b"ok", b"date: " + DATE.encode(), b"server: gray")


def options(upstream: Upstream, text: str = RULES) -> dict[str, Any]:
    return {"rules": StaticSource(text), "upstreams": {"gray": f"http://{upstream.origin.authority}"}}


def both(answer: Answer) -> tuple[list[str], list[str]]:
    values = [[v.decode() for k, v in answer.headers if k == name] for name in (b"date", b"server")]
    return values[0], values[1]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("all requests are for gray")


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("lifespan", ["auto", "off"])
@pytest.mark.parametrize("text", [RULES, RULES + MODULE], ids=["", "server_name"])
def test_a_client_of_uvicorn_gets_one_of_each(http: str, lifespan: str, text: str) -> None:
    async def main() -> None:
        async with serving(dated) as upstream:
            middleware = CanaryMiddleware(app, **options(upstream, text))
            async with serving_app(middleware, http=http, lifespan=lifespan, date_header=True) as port:
                for target in ("/shop/", "/old/"):
                    dates, servers = both(await fetch(port, target))
                    assert (len(dates), servers) == (1, ["uvicorn"])
                    assert dates != [DATE]
            await middleware.aclose()

    run(main())


def test_the_server_that_the_module_names_stays_where_the_server_adds_none() -> None:
    async def main() -> None:
        async with serving(dated) as upstream:
            middleware = CanaryMiddleware(app, **options(upstream, RULES + MODULE))
            async with serving_app(middleware, server_header=False) as port:
                assert both(await fetch(port, "/shop/")) == ([DATE], ["edge"])
            await middleware.aclose()

    run(main())


@pytest.mark.parametrize("http", ["httptools", GuardedProtocol])
@pytest.mark.parametrize("lifespan", ["auto", "off"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"server_header": False}, ([DATE], ["gray"])),
        ({}, ([DATE], ["uvicorn"])),
        ({"server_header": False, "headers": [("Server", "mine")]}, ([DATE], ["mine"])),
    ],
)
def test_what_the_server_does_not_add_stays(http: Any, lifespan: str, settings: dict[str, Any], expected: Any) -> None:
    async def main() -> None:
        async with serving(dated) as upstream:
            middleware = CanaryMiddleware(app, **options(upstream))
            async with serving_app(middleware, http=http, lifespan=lifespan, **settings) as port:
                assert both(await fetch(port, "/shop/")) == expected
            await middleware.aclose()

    run(main())


def test_a_client_of_waitress_gets_one_of_each() -> None:
    async def main() -> None:
        async with serving(dated) as upstream:
            middleware = CanaryWSGIMiddleware(wsgi_hello, **options(upstream))
            async with serving_wsgi(middleware) as port:
                answer = await fetch(port, "/shop/")
                dates, servers = both(answer)
                assert (len(dates), servers, answer.header("via")) == (1, ["waitress"], None)
                assert dates != [DATE]
                await asyncio.to_thread(middleware.close)

    run(main())


def test_a_client_of_werkzeug_gets_one_of_each() -> None:
    async def main() -> None:
        async with serving(dated) as upstream:
            middleware = CanaryWSGIMiddleware(wsgi_hello, **options(upstream, RULES + MODULE))
            server = make_server("127.0.0.1", 0, middleware)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                for target in ("/shop/", "/old/"):
                    assert [*map(len, both(await fetch(server.port, target)))] == [1, 1]
            finally:
                await asyncio.to_thread(server.shutdown)
                await asyncio.to_thread(thread.join)
                server.server_close()
                await asyncio.to_thread(middleware.close)

    run(main())


def owned_by(module: str, **attributes: Any) -> Receive:
    """A `receive` that belongs to an object of a module, as servers give them."""

    async def receive(_: object) -> Message:
        raise AssertionError("nobody reads")

    owner = type("Owner", (), {"__module__": module, "receive": receive})()
    for name, value in attributes.items():
        setattr(owner, name, value)
    bound: Receive = owner.receive
    return bound


class Config:
    include_date_header = False
    include_server_header = True


@pytest.mark.parametrize(
    ("receive", "expected"),
    [
        (owned_by("hypercorn.protocol.http_stream"), HostServer(frozenset((b"date", b"server")))),
        (owned_by("hypercorn.asyncio.lifespan", config=Config()), HostServer(frozenset((b"server",)))),
        (owned_by("granian._granian"), HostServer(frozenset((b"date", b"server")))),
        (owned_by("daphne.server"), HostServer(frozenset((b"server",)))),
        (owned_by("uvicorn.new"), HostServer(frozenset((b"date", b"server")), None)),
    ],
)
def test_other_servers_are_known(receive: Receive, expected: HostServer) -> None:
    probe = HostProbe()
    assert probe.look(receive) == expected
    # Remembered, where others have wrapped it later.
    assert probe.look(None) == expected


def test_a_websocket_gets_one_of_each() -> None:
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve

    async def repeat(websocket: Any) -> None:
        await websocket.wait_closed()

    async def main() -> None:
        async with serve(repeat, "127.0.0.1", 0) as sockets:
            port = sockets.sockets[0].getsockname()[1]
            middleware = CanaryMiddleware(
                app, rules=StaticSource(RULES), upstreams={"gray": f"http://127.0.0.1:{port}"}
            )
            async with (
                serving_app(middleware, date_header=True) as there,
                connect(f"ws://127.0.0.1:{there}/shop/") as websocket,
            ):
                assert websocket.response is not None
                counts = Counter(name.lower() for name, _ in websocket.response.headers.raw_items())
                assert (counts["date"], counts["server"]) == (1, 1)
            await middleware.aclose()

    run(main())
