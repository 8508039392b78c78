"""The middlewares around ordinary apps, which know nothing of them: those of `ordinary_asgi` and its siblings."""

import hashlib
import os

from servers import mapping

from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware
from canary_mw.control.sources.static import StaticSource
from canary_mw.types import ASGIApp, WSGIApp

RULES = mapping("stable", "/", "stable", rewrite='""') + mapping(
    "gray", "/", "gray", rewrite='""', headers='{gray: "true"}'
)
# Both versions have it.
KEY = "of the sessions"
EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]


def wrapped(app: ASGIApp, gray: str) -> CanaryMiddleware:
    """The middleware around an app that is stable, with the URL of its gray version."""
    return CanaryMiddleware(app, rules=StaticSource(RULES), local="stable", upstreams={"gray": gray})


def wrapped_wsgi(app: WSGIApp, gray: str) -> CanaryWSGIMiddleware:
    """The same for WSGI."""
    return CanaryWSGIMiddleware(app, rules=StaticSource(RULES), local="stable", upstreams={"gray": gray})


def wrapped_if_told(app: WSGIApp) -> WSGIApp:
    """In a process of its own: wrapped, if the variable `ORDINARY_GRAY` has the URL of the gray version."""
    gray = os.environ.get("ORDINARY_GRAY")
    return wrapped_wsgi(app, gray) if gray else app


def digest(data: bytes) -> str:
    """What the apps say of an upload."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"
