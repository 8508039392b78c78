"""What an app writes into the scope is seen by the layers outside of the middleware, as without it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from servers import fetch, mapping, run, serving_app
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from upstream import forever, serving
from websockets.asyncio.client import connect

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.observability.observers import Observer
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

RULES = (
    mapping("stable", "/", "app", rewrite='""')
    + mapping("gray", "/", "gray", rewrite='""', headers='{gray: "true"}')
    + mapping("inner", "/inner/", "inner", rewrite="/", allow_upgrade="[websocket]")
)
OPTIONS: dict[str, Any] = {"rules": StaticSource(RULES), "local": "app"}


class Quiet(Observer):
    """Observes, so that the request takes the observed way."""

    def finished(self, record: object) -> None:
        """Nothing."""


class Outside:
    """A layer around everything; notes what it sees when a response starts, and at the end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.at_start: Scope = {}
        self.at_end: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                self.at_start = dict(scope)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            if scope["type"] != "lifespan":
                self.at_end = dict(scope)


def fast_api() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int, request: Request) -> dict[str, Any]:
        return {"gray": request.headers.get("gray"), "x": getattr(request.state, "x", None)}

    @app.websocket("/chat/{room}")
    async def chat(room: str, socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    return app


@pytest.mark.parametrize(
    "more",
    [{}, {"observers": [Quiet()]}, {"trusted_headers": ["gray"]}, {"shadow": True}],
    ids=["plain", "observed", "headers removed", "shadowed"],
)
def test_route_endpoint_and_parameters_are_seen_outside(more: dict[str, Any]) -> None:
    more = dict(more)
    shadow = mapping("copy", "/", "127.0.0.1:1", shadow="true") if more.pop("shadow", False) else ""
    options = {**OPTIONS, "rules": StaticSource(RULES + shadow), **more}
    outside = Outside(CanaryMiddleware(fast_api(), **options))
    headers = [("gray", "true")] if "trusted_headers" in more else []

    async def main() -> None:
        async with serving_app(outside) as port:
            answer = await fetch(port, "/items/3", headers=headers)
            assert answer.body == b'{"gray":null,"x":null}'

    run(main())
    for seen in (outside.at_start, outside.at_end):
        assert seen["route"].path == "/items/{number}"
        assert seen["endpoint"].__name__ == "item"
        assert seen["path_params"] == {"number": "3"} or seen["path_params"] == {"number": 3}
        assert seen["canary_mw"].variant == "stable"
        assert (b"gray", b"true") not in seen["headers"]


def test_a_layer_of_starlette_reads_the_parameters_after_the_call_and_gives_state_to_the_app() -> None:
    seen: dict[str, Any] = {}

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.state.x = 5
        response = await call_next(request)
        seen.update(request.path_params)
        return response

    app = fast_api()
    app.add_middleware(CanaryMiddleware, **OPTIONS)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

    async def main() -> None:
        async with serving_app(app) as port:
            assert (await fetch(port, "/items/4")).body == b'{"gray":null,"x":5}'

    run(main())
    assert seen == {"number": "4"}


class Everyone(AuthenticationBackend):
    """Knows everybody."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:
        return AuthCredentials(["known"]), SimpleUser("ann")


@pytest.mark.parametrize("mounted", ["inside", "around"])
def test_user_and_parameters_of_mounted_apps_are_seen_outside(mounted: str) -> None:
    async def page(request: Request) -> Response:
        request.scope["session"] = {"cart": 1}
        return PlainTextResponse(request.user.display_name)

    inner: ASGIApp = Starlette(routes=[Route("/page/{name}", page)])
    inner = AuthenticationMiddleware(inner, backend=Everyone())
    mounted_one: CanaryMiddleware | None = None
    if mounted == "inside":
        whole: ASGIApp = CanaryMiddleware(Starlette(routes=[Mount("/shop/{tenant}", app=inner)]), **OPTIONS)
    else:
        mounted_one = CanaryMiddleware(inner, **OPTIONS)
        whole = Starlette(routes=[Mount("/shop/{tenant}", app=mounted_one)])
    outside = Outside(whole)

    async def main() -> None:
        async with serving_app(outside) as port:
            assert (await fetch(port, "/shop/t/page/a")).body == b"ann"
        # No lifespan reaches a mounted app.
        if mounted_one is not None:
            await mounted_one.aclose()

    run(main())
    for seen in (outside.at_start, outside.at_end):
        assert (seen["path_params"], seen["endpoint"]) == ({"tenant": "t", "name": "a"}, page)
        assert (seen["user"].display_name, seen["session"]) == ("ann", {"cart": 1})
        assert seen["canary_mw"].mapping.name == "stable"


def test_what_the_endpoint_of_a_websocket_is_called_is_seen_outside() -> None:
    outside = Outside(CanaryMiddleware(fast_api(), **OPTIONS))

    async def main() -> None:
        async with serving_app(outside) as port, connect(f"ws://127.0.0.1:{port}/chat/a"):
            pass

    run(main())
    for seen in (outside.at_start, outside.at_end):
        assert (seen["path_params"], seen["endpoint"].__name__) == ({"room": "a"}, "chat")
        assert seen["canary_mw"].variant == "stable"


def test_the_state_of_a_lifespan_reaches_the_app_and_outside() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"pool": "open"}

    async def page(request: Request) -> Response:
        request.state.user = "ann"
        return PlainTextResponse(request.state.pool)

    outside = Outside(CanaryMiddleware(Starlette(routes=[Route("/page", page)], lifespan=lifespan), **OPTIONS))

    async def main() -> None:
        async with serving_app(outside, lifespan="on") as port:
            assert (await fetch(port, "/page")).body == b"open"

    run(main())
    assert outside.at_end["state"] == {"pool": "open", "user": "ann"}


def test_what_an_app_of_this_process_writes_is_seen_outside_beside_the_request_of_the_client() -> None:
    outside = Outside(CanaryMiddleware(fast_api(), services={"inner": fast_api()}, **OPTIONS))

    async def main() -> None:
        async with serving_app(outside) as port:
            assert (await fetch(port, "/inner/items/3")).status == 200
            for seen in (outside.at_start, outside.at_end):
                assert (seen["path"], seen["root_path"]) == ("/inner/items/3", "")
                assert seen["route"].path == "/items/{number}"
                assert seen["canary_mw"].mapping.name == "inner"
            async with connect(f"ws://127.0.0.1:{port}/inner/chat/b"):
                pass
            for seen in (outside.at_start, outside.at_end):
                assert (seen["path"], seen["path_params"]) == ("/inner/chat/b", {"room": "b"})

    run(main())


def test_an_app_that_fails_has_written_what_it_wrote() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = "ann"
        raise LookupError

    for target in ("/", "/inner/"):
        outside = Outside(CanaryMiddleware(broken, services={"inner": broken}, **OPTIONS))

        async def main(outside: Outside = outside, target: str = target) -> None:
            async with serving_app(outside, lifespan="off") as port:
                assert (await fetch(port, target)).status == 500
            assert isinstance(outside.app, CanaryMiddleware)
            await outside.app.aclose()

        run(main())
        assert outside.at_end["user"] == "ann"


def test_the_decision_about_a_forwarded_request_is_seen_outside() -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            urls = {"gray": f"http://127.0.0.1:{upstream.origin.port}"}
            outside = Outside(CanaryMiddleware(fast_api(), upstreams=urls, **OPTIONS))
            async with serving_app(outside) as port:
                assert (await fetch(port, "/items/3", headers=[("gray", "true")])).body == b"1"
            for seen in (outside.at_start, outside.at_end):
                assert (seen["canary_mw"].variant, "endpoint" in seen) == ("gray", False)

    run(main())
