"""ASGI and WSGI apps that a server runs in a comparison; what they need comes from the environment."""

import os
from collections import deque
from collections.abc import Iterable
from logging import INFO, getLogger
from pathlib import Path
from statistics import median
from time import thread_time_ns
from typing import Any

from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.observability.access_log import AccessLog
from canary_mw.observability.logs.batches import BatchWriter
from canary_mw.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse, WSGIApp

RULES = "CANARY_MW_BENCH_RULES"
UPSTREAM = "CANARY_MW_BENCH_UPSTREAM"
LOG = "CANARY_MW_BENCH_LOG"
TIME = "/time"
_REMEMBERED = 100_000
# Not even the bare app may be cheaper than an app that names its length and type.
_BODY = b'{"service": "stable"}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]
_TEXT_HEADERS = [(name.decode(), value.decode()) for name, value in _HEADERS]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The least that an app can do."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def _lifespan(receive: Receive, send: Send) -> None:
    for what in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{what}.complete"})


def wrapped(path: str | Path, gray: str = "") -> CanaryMiddleware:
    """The bare app behind the middleware, as the stable service; `gray` is the URL of the other one."""
    return CanaryMiddleware(bare, rules=path, local="stable", upstreams={"gray": gray} if gray else None)


def wrapped_app() -> ASGIApp:
    """The same from the environment."""
    return wrapped(os.environ[RULES], os.environ.get(UPSTREAM, ""))


def bare_wsgi(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """The twin of `bare`."""
    start_response("200 OK", [*_TEXT_HEADERS])
    return [_BODY]


def wrapped_wsgi(path: str | Path, gray: str = "") -> CanaryWSGIMiddleware:
    """The twin of `wrapped`."""
    return CanaryWSGIMiddleware(bare_wsgi, rules=path, local="stable", upstreams={"gray": gray} if gray else None)


def wrapped_wsgi_app() -> WSGIApp:
    """The same from the environment."""
    return wrapped_wsgi(os.environ[RULES], os.environ.get(UPSTREAM, ""))


class Timed:
    """A WSGI app that measures another in the threads of a server; `TIME` answers with the figure.

    That is the median of the CPU microseconds that the last calls took, without their clock.
    """

    def __init__(self, app: WSGIApp) -> None:
        self._app = app
        self._costs: deque[int] = deque(maxlen=_REMEMBERED)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == TIME:
            start_response("200 OK", [])
            return [b"%f" % (median(self._costs) / 1000)]
        began = thread_time_ns()
        answer = self._app(environ, start_response)
        self._costs.append(thread_time_ns() - began)
        return answer


def timed_wsgi_app() -> WSGIApp:
    """The bare app, measured."""
    return Timed(bare_wsgi)


def timed_wrapped_wsgi_app() -> WSGIApp:
    """The same behind the middleware."""
    return Timed(wrapped_wsgi_app())


def fastapi_app() -> Any:
    """An app of FastAPI with one route."""
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None)

    @app.get("/{path:path}")
    async def answer(path: str) -> dict[str, str]:
        return {"service": "stable"}

    return app


def wrapped_fastapi_app() -> Any:
    """The same behind the middleware, as the stable service."""
    app = fastapi_app()
    app.add_middleware(CanaryMiddleware, rules=os.environ[RULES], local="stable")
    return app


def production_fastapi_app() -> Any:
    """The same with an access log; the other settings come from the environment."""
    app = fastapi_app()
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    observers = [AccessLog(writer=BatchWriter(log, lambda: None))]
    getLogger("canary_mw.access").setLevel(INFO)
    app.add_middleware(CanaryMiddleware, rules=os.environ[RULES], local="stable", observers=observers)
    return app


def fastapi_proxy_lib_app() -> Any:
    """fastapi-proxy-lib as it comes."""
    from fastapi_proxy_lib.fastapi.app import reverse_http_app

    return reverse_http_app(base_url=f"{os.environ[UPSTREAM]}/")


def asgiproxy_app() -> Any:
    """asgiproxy with room for all connections at once; its default lets 20 requests start at a time."""
    from asgiproxy.config import BaseURLProxyConfigMixin, ProxyConfig
    from asgiproxy.context import ProxyContext
    from asgiproxy.simple_proxy import make_simple_proxy_app

    class Config(BaseURLProxyConfigMixin, ProxyConfig):
        upstream_base_url = os.environ[UPSTREAM]

    return make_simple_proxy_app(ProxyContext(Config(), max_concurrency=1024))
