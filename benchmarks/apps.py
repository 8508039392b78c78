"""ASGI apps that uvicorn serves in a comparison; what they need comes from the environment."""

import os
from pathlib import Path
from typing import Any

from canary_mw.asgi import CanaryMiddleware
from canary_mw.upstreams import ASGIApp, Receive, Scope, Send

RULES = "CANARY_MW_BENCH_RULES"
UPSTREAM = "CANARY_MW_BENCH_UPSTREAM"
# Not even the bare app may be cheaper than an app that names its length and type.
_BODY = b'{"service": "stable"}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The least that an app can do."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def wrapped(path: str | Path) -> CanaryMiddleware:
    """The bare app behind the middleware, as the stable service."""
    return CanaryMiddleware(bare, rules=path, local="stable")


def wrapped_app() -> ASGIApp:
    """The same for uvicorn."""
    return wrapped(os.environ[RULES])


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
