"""An app whose two versions are at one place, for servers in processes of their own: each says who it is.

Environment: `STEPPED_RULES`, the rules, and `STEPPED_STARTED`, where they are loaded before any fork.
"""

import os
from collections.abc import Iterable

from servers import respond as respond_async
from wsgiservers import respond

from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse


def stable(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The stable version."""
    return respond(start_response, b"stable")


def gray(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The gray version."""
    return respond(start_response, b"gray")


async def asgi_stable(scope: Scope, receive: Receive, send: Send) -> None:
    """The stable version for ASGI."""
    if scope["type"] == "http":
        await respond_async(send, b"stable")


async def asgi_gray(scope: Scope, receive: Receive, send: Send) -> None:
    """The gray version for ASGI."""
    await respond_async(send, b"gray")


def create_app() -> CanaryWSGIMiddleware:
    """The app behind the middleware."""
    rules = os.environ["STEPPED_RULES"]
    made = CanaryWSGIMiddleware(stable, rules=rules, services={"gray": gray, "stable": stable})
    if "STEPPED_STARTED" in os.environ:
        made.start()
    return made


def create_asgi() -> CanaryMiddleware:
    """The same for ASGI."""
    rules = os.environ["STEPPED_RULES"]
    return CanaryMiddleware(asgi_stable, rules=rules, services={"gray": asgi_gray, "stable": asgi_stable})
