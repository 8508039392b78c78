"""A shop that is both variants of a release, for servers in processes of their own; it fails where a request says so.

Environment: `PREFORKED_RULES`, the file of the rules.
"""

import os
from collections.abc import Iterable

from servers import respond
from wsgiservers import respond as wsgi_respond

from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

LOCAL = ("shop-stable", "shop-gray")


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """200, or 500."""
    return wsgi_respond(start_response, b"app", "500 Internal Server Error" if "HTTP_X_FAIL" in environ else "200 OK")


def create_app() -> CanaryWSGIMiddleware:
    """The app behind the middleware."""
    return CanaryWSGIMiddleware(app, rules=os.environ["PREFORKED_RULES"], local=LOCAL)


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """200, or 500."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    fails = any(name == b"x-fail" for name, _ in scope["headers"])
    await respond(send, b"app", 500 if fails else 200)


def create_asgi_app() -> CanaryMiddleware:
    """The app behind the middleware."""
    return CanaryMiddleware(asgi_app, rules=os.environ["PREFORKED_RULES"], local=LOCAL)
