"""A small app with the middleware around it, for a server in a process of its own."""

import os
from collections.abc import Iterable

from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 404 to everything: no request of a check is for the app."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def create_app() -> CanaryMiddleware:
    """With the rules that the environment names."""
    return CanaryMiddleware(app, rules=os.environ["BLACKBOX_RULES"])


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """As `app`."""
    start_response("404 Not Found", [("content-length", "0")])
    return []


def create_wsgi_app() -> CanaryWSGIMiddleware:
    """As `create_app`."""
    return CanaryWSGIMiddleware(wsgi_app, rules=os.environ["BLACKBOX_RULES"])
