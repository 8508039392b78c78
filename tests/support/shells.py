"""Both shells behind one face, for tests of what must be the same in both."""

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
SHELLS = ("asgi", "wsgi")
# The one that the running test is about.
_current = ["asgi"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Runs a test once with each; `middleware` makes the one."""
    use(str(request.param))
    return _current[0]


def use(name: str) -> None:
    """From now on "asgi" or "wsgi"."""
    _current[0] = name


def current() -> str:
    """Its name."""
    return _current[0]


# For what the WSGI of waitress does not allow; each use says why.
ASGI_ONLY = pytest.mark.parametrize("shell", ["asgi"], indirect=True)


def middleware(app: Any = None, **options: Any) -> Middleware:
    """The middleware of the shell around an app, by default one that says what it is."""
    if current() == "asgi":
        return CanaryMiddleware(app or hello, **options)
    return CanaryWSGIMiddleware(app or wsgi_hello, **options)


@contextlib.asynccontextmanager
async def serving_shell(served: Middleware, server: str = "httptools") -> AsyncIterator[int]:
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
        return list(served.upstreams._own_of(asyncio.get_running_loop()).client._pools.values())
    return list(served.upstreams._client._pools.values())


def network_transport() -> Any:
    """A transport of httpx over sockets."""
    return httpx.AsyncHTTPTransport() if current() == "asgi" else httpx.HTTPTransport()
