"""Lanes on requests of httpx: set on the request that a transport gets, which a redirect does not copy."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx

from canary_mw.forwarding.messages import FORWARDED
from canary_mw.propagate.carried import headers_for

_PORTS = {"http": 80, "https": 443}


def with_lanes(request: httpx.Request) -> httpx.Request:
    """The request to send: with lanes it is another one, so that nothing is left on the one of the app."""
    if FORWARDED in request.extensions:
        return request
    url = request.url
    port = url.port or _PORTS.get(url.scheme, 0)
    added = headers_for(url.raw_host.decode("ascii"), port, request.headers)
    if not added:
        return request
    sent = object.__new__(type(request))
    sent.__dict__.update(request.__dict__)
    sent.headers = httpx.Headers(request.headers)
    for name, value in added.items():
        sent.headers[name] = value
    return sent


class PropagatingTransport(httpx.BaseTransport):
    """A transport that tells hosts of the list of the lanes of the present request.

    Args:
        inner: sends the requests.
    """

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        return self._inner.handle_request(with_lanes(request))

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        """See httpx."""
        self._inner.close()


class AsyncPropagatingTransport(httpx.AsyncBaseTransport):
    """`PropagatingTransport` for `httpx.AsyncClient`."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        return await self._inner.handle_async_request(with_lanes(request))

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """See httpx."""
        await self._inner.aclose()


def patches() -> list[tuple[type, str, Callable[[Callable[..., Any]], Callable[..., Any]]]]:
    """What `install` patches: the transports that talk HTTP, and with them their subclasses and those of mounts."""
    return [
        (httpx.HTTPTransport, "handle_request", _patched),
        (httpx.AsyncHTTPTransport, "handle_async_request", _patched),
    ]


def _patched(original: Callable[..., Any]) -> Callable[..., Any]:
    def handle(self: Any, request: httpx.Request) -> Any:
        return original(self, with_lanes(request))

    return handle
