"""The admin port: health, the rules in force, metrics. Read only, no secrets, and never reached through a Mapping."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .group import MappingGroup
from .store import RuleStore

_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Rendered(Protocol):
    """What gives the metrics."""

    def render(self) -> bytes:
        """The Prometheus text format."""


def create_admin(store: RuleStore, metrics: Rendered, draining: Callable[[], bool] = lambda: False) -> Starlette:
    """The admin app about a store.

    Args:
        draining: whether the process is about to end, and wants no new requests.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("alive\n", headers=_HEADERS)

    async def readyz(_: Request) -> Response:
        if draining():
            return PlainTextResponse("not ready: shutting down\n", status_code=503, headers=_HEADERS)
        if store.generation:
            return PlainTextResponse(f"ready: rules {store.generation} are in force\n", headers=_HEADERS)
        reason = store.error or "they were not read yet"
        return PlainTextResponse(f"not ready: no rules are in force: {reason}\n", status_code=503, headers=_HEADERS)

    async def rules(_: Request) -> Response:
        return JSONResponse(describe(store), headers=_HEADERS)

    async def metrics_(_: Request) -> Response:
        return Response(metrics.render(), media_type=_METRICS_TYPE, headers=_HEADERS)

    pages: dict[str, Callable[[Request], Any]] = {
        "/healthz": healthz,
        "/readyz": readyz,
        "/ambassador/v0/check_alive": healthz,
        "/ambassador/v0/check_ready": readyz,
        "/rules": rules,
        "/metrics": metrics_,
    }
    app = Starlette(routes=[Route(path, page, methods=["GET"]) for path, page in pages.items()])
    app.router.redirect_slashes = False
    return app


def describe(store: RuleStore) -> dict[str, Any]:
    """The rules in force as JSON values."""
    table = store.table
    return {
        "generation": store.generation,
        "error": None if store.error is None else str(store.error),
        "diagnostics": [str(each) for each in store.diagnostics],
        "groups": [_group(group) for group in table.groups],
    }


def _group(group: MappingGroup) -> dict[str, Any]:
    first = group.first
    return {
        "prefix": first.prefix,
        "kind": first.kind,
        "host": group.host.text,
        "method": first.method and first.method.value,
        "conditions": [str(each) for each in (*first.conditions, *first.query)],
        "precedence": first.precedence,
        "members": list(_members(group)),
        "shadow": group.shadow and group.shadow.name,
    }


def _members(group: MappingGroup) -> Iterator[dict[str, Any]]:
    """Each with the percent of the draws that it gets."""
    low = 0.0
    for bound, decision in group.shares:
        mapping = decision.mapping
        yield {
            "mapping": mapping.name,
            "namespace": mapping.namespace,
            "service": mapping.service.text,
            "variant": decision.variant,
            "local": decision.local,
            "percent": max(bound - low, 0.0),
            "file": mapping.file,
            "line": mapping.line,
        }
        low = max(low, bound)


class AdminServer(uvicorn.Server):
    """A second server in the loop of the first, which alone answers to signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield

    @classmethod
    async def start(cls, app: Starlette, host: str, port: int) -> "AdminServer":
        """Listen, together with the other workers of this machine that use the same port.

        Raises:
            OSError: the port is taken by somebody else.
        """
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, proxy_headers=False, server_header=False, ws="none"
        )
        server = cls(config)
        server.socket = _listen(host, port)
        server.task = asyncio.get_running_loop().create_task(server.serve(sockets=[server.socket]))
        return server

    socket: socket.socket
    task: "asyncio.Task[None]"

    async def stop(self) -> None:
        """Answer what is being asked, and end."""
        self.should_exit = True
        await self.task


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise OSError(exc.errno, f"admin port {host}:{port}: {exc.strerror}") from exc
    return listener
