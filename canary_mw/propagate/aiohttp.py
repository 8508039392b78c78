"""Lanes on requests of aiohttp: a client middleware, which sees each request of a chain of redirects."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from canary_mw.exceptions import ConfigError
from canary_mw.propagate.carried import headers_for

Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]


async def aiohttp_middleware(request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
    """A middleware for `aiohttp.ClientSession(middlewares=...)`; put it last, so that it sees what is sent."""
    url = request.url
    added = headers_for(url.raw_host or "", url.port or 0, request.headers)
    request.headers.update(added)
    return await handler(request)


def patches() -> list[tuple[type, str, Callable[[Callable[..., Any]], Callable[..., Any]]]]:
    """What `install` patches: here and not where a session is made, whose middlewares a request may replace.

    Raises:
        ConfigError: this aiohttp has no middlewares.
    """
    if not hasattr(aiohttp, "ClientMiddlewareType"):
        hint = "install aiohttp 3.12 or later, or name the clients without it"
        raise ConfigError(f"propagate.install: aiohttp {aiohttp.__version__} has no client middlewares", hint=hint)
    return [(aiohttp.ClientSession, "_request", _patched)]


def _patched(original: Callable[..., Any]) -> Callable[..., Any]:
    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("middlewares")
        middlewares = self._middlewares if given is None else given
        if aiohttp_middleware not in middlewares:
            kwargs["middlewares"] = (*middlewares, aiohttp_middleware)
        return original(self, *args, **kwargs)

    return request
