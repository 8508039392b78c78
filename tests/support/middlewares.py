"""Both middlewares behind one interface, for tests of what must be the same in both."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from servers import hello, serving_app
from wsgiservers import hello as wsgi_hello
from wsgiservers import serving_wsgi

from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware

Middleware = CanaryMiddleware | CanaryWSGIMiddleware
INTERFACES = ("asgi", "wsgi")
# That of the running test.
_current = ["asgi"]


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> str:
    """Runs a test once for ASGI and once for WSGI; `middleware` makes the one of the current interface."""
    use(str(request.param))
    return _current[0]


def use(name: str) -> None:
    """Set the current interface, "asgi" or "wsgi"."""
    _current[0] = name


def current() -> str:
    """The current interface."""
    return _current[0]


# For what the WSGI of waitress does not allow; each use says why.
ASGI_ONLY = pytest.mark.parametrize("interface", ["asgi"], indirect=True)


def middleware(app: Any = None, **options: Any) -> Middleware:
    """The middleware of the current interface around an app, by default `hello`."""
    if current() == "asgi":
        return CanaryMiddleware(app or hello, **options)
    return CanaryWSGIMiddleware(app or wsgi_hello, **options)


@contextlib.asynccontextmanager
async def serving_middleware(served: Middleware, server: str = "httptools") -> AsyncIterator[int]:
    """Serve it by uvicorn with a parser, or by waitress, and close it at the end; yields its port."""
    if isinstance(served, CanaryMiddleware):
        try:
            async with serving_app(served, http=server) as port:
                yield port
        finally:
            await served.aclose()
        return
    async with serving_wsgi(served) as port:
        try:
            yield port
        finally:
            # Before the server ends, so that none of its threads waits for an upstream then.
            await asyncio.to_thread(served.close)


def clients_pools(served: Middleware) -> list[Any]:
    """The pools of our own client."""
    if isinstance(served, CanaryMiddleware):
        return list(served.upstreams._states.of(asyncio.get_running_loop()).client._pools.values())
    return list(served.upstreams._client._pools.values())


def network_transport() -> Any:
    """A transport of httpx over sockets."""
    return httpx.AsyncHTTPTransport() if current() == "asgi" else httpx.HTTPTransport()
