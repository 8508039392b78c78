"""An ordinary app of Starlette, with one of FastAPI mounted in it."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

from fastapi import FastAPI
from ordinary import EVENTS, KEY, digest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from canary_mw.types import ASGIApp


async def home(request: Request) -> Response:
    """A page that caches may keep."""
    if request.headers.get("if-none-match") == '"1"':
        return Response(status_code=304, headers={"etag": '"1"'})
    return JSONResponse({"hello": "world"}, headers={"etag": '"1"', "cache-control": "no-store"})


async def login(request: Request) -> Response:
    """Begins a session."""
    request.session["user"] = parse_qs((await request.body()).decode())["user"][0]
    return RedirectResponse(f"{request.scope['root_path']}/me", 303)


async def me(request: Request) -> Response:
    """Who has begun the session."""
    return PlainTextResponse(request.session.get("user", "nobody"))


async def upload(request: Request) -> Response:
    """Takes a body."""
    return PlainTextResponse(digest(await request.body()), 201)


async def stream(request: Request) -> Response:
    """A body in pieces, with a pause after each."""

    async def chunks() -> AsyncIterator[bytes]:
        for event in EVENTS:
            yield event
            await asyncio.sleep(float(request.query_params.get("pause", 0)))

    return StreamingResponse(chunks(), media_type=request.query_params.get("type", "text/plain"))


async def where(request: Request) -> Response:
    """All that the app knows of the target."""
    scope = request.scope
    seen = [scope["path"], scope["raw_path"].decode(), scope["root_path"], str(request.url), str(request.base_url)]
    return JSONResponse(seen)


async def cookies(_: Request) -> Response:
    """Two cookies."""
    response = Response(status_code=204)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2", path="/sub")
    return response


async def fails(_: Request) -> Response:
    """A mistake."""
    raise LookupError("as it happens")


async def chat(websocket: WebSocket) -> None:
    """Says everything backwards."""
    await websocket.accept(subprotocol="chat")
    while (text := await websocket.receive_text()) != "bye":
        await websocket.send_text(text[::-1])
    await websocket.close(4000, "bye")


def app() -> ASGIApp:
    """The app."""
    api = FastAPI()

    @api.get("/items/{number}")
    async def item(number: int) -> dict[str, int]:
        return {"number": number}

    routes = [
        Route("/", home),
        Route("/login", login, methods=["POST"]),
        Route("/me", me),
        Route("/upload", upload, methods=["POST", "PUT"]),
        Route("/stream", stream),
        Route("/where/{path:path}", where),
        Route("/cookies", cookies, methods=["GET", "DELETE"]),
        Route("/fails", fails),
        WebSocketRoute("/chat", chat),
        Mount("/sub", api),
    ]
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, secret_key=KEY)])
