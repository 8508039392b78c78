"""An app whose gray version is at the same place, for servers in processes of their own: it says who was chosen.

Environment: `STEPPED_RULES`, the rules.
"""

import os
from collections.abc import Iterable

from servers import respond as respond_async
from wsgiservers import respond

from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The version that was chosen."""
    decision = environ["canary_mw.decision"]
    return respond(start_response, b"stable" if decision is None else decision.variant.encode())


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """The same."""
    if scope["type"] == "http":
        decision = scope["canary_mw.decision"]
        await respond_async(send, b"stable" if decision is None else decision.variant.encode())


def create_app() -> CanaryWSGIMiddleware:
    """The app behind the middleware."""
    return CanaryWSGIMiddleware(app, rules=os.environ["STEPPED_RULES"], services={"gray": app, "here": app})


def create_asgi() -> CanaryMiddleware:
    """The same for ASGI."""
    return CanaryMiddleware(asgi_app, rules=os.environ["STEPPED_RULES"], services={"gray": asgi_app, "here": asgi_app})
