"""The admin app: health, the rules in force, metrics. It only reads, shows no secrets, and no Mapping leads to it."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from canary_mw.admin.rules import describe_rules
from canary_mw.control.store import RuleStore

_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Bytes that are written at once.
_PIECE = 65536


class MetricsRenderer(Protocol):
    """Source of the metrics page."""

    def render(self) -> bytes:
        """The Prometheus text format."""


def create_admin(store: RuleStore, metrics: MetricsRenderer, draining: Callable[[], bool] = lambda: False) -> Starlette:
    """Create the admin app of a rule store.

    Args:
        draining: returns whether the process shuts down and takes no new requests.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("alive\n", headers=_HEADERS)

    def verbose(request: Request) -> str:
        """What is watched, a line each, where `?verbose` asks for it."""
        return "".join(f"{each}\n" for each in store.source_status()) if "verbose" in request.query_params else ""

    async def readyz(request: Request) -> Response:
        if draining():
            return PlainTextResponse("not ready: shutting down\n", status_code=503, headers=_HEADERS)
        if store.generation:
            return PlainTextResponse(
                f"ready: rules {store.generation} are in force\n{verbose(request)}", headers=_HEADERS
            )
        reason = store.error or "they were not read yet"
        text = f"not ready: no rules are in force: {reason}\n{verbose(request)}"
        return PlainTextResponse(text, status_code=503, headers=_HEADERS)

    shown: tuple[object, bytes] = None, b""

    async def rules(_: Request) -> Response:
        nonlocal shown
        # With many Mappings it takes long, in the loop that serves the proxy's clients.
        state = store.generation, store.error, store.diagnostics
        if shown[0] != state:
            shown = state, json.dumps(describe_rules(store), ensure_ascii=False, separators=(",", ":")).encode()
        return _response(shown[1], "application/json")

    async def metrics_(_: Request) -> Response:
        return _response(metrics.render(), _METRICS_TYPE)

    handlers: dict[str, Callable[[Request], Any]] = {
        "/healthz": healthz,
        "/readyz": readyz,
        "/ambassador/v0/check_alive": healthz,
        "/ambassador/v0/check_ready": readyz,
        "/rules": rules,
        "/metrics": metrics_,
    }
    app = Starlette(routes=[Route(path, handler, methods=["GET"]) for path, handler in handlers.items()])
    app.router.redirect_slashes = False
    return app


def _response(body: bytes, media_type: str) -> Response:
    """A response that is sent in pieces: a client that reads slowly then holds no copy of the rest in our memory."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), _PIECE):
            yield body[start : start + _PIECE]

    return StreamingResponse(pieces(), media_type=media_type, headers={**_HEADERS, "content-length": str(len(body))})
