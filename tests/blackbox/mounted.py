"""A small app with the middleware around it, for a server in a process of its own."""

import os

from canary_mw import CanaryMiddleware
from canary_mw.upstreams import Receive, Scope, Send


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
