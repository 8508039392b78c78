"""Lanes on requests of `http.client`, and with it of `urllib.request`."""

import http.client
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from canary_mw.propagate.carried import headers_for

_PORTS = {"http": 80, "https": 443}
_NO_HEADERS: Mapping[str, str] = {}


def patches() -> list[tuple[type, str, Callable[[Callable[..., Any]], Callable[..., Any]]]]:
    """What `install` patches."""
    return [(http.client.HTTPConnection, "request", _patched)]


def _patched(original: Callable[..., Any]) -> Callable[..., Any]:
    def request(
        self: Any, method: str, url: str, body: Any = None, headers: Mapping[str, str] = _NO_HEADERS, **kwargs: Any
    ) -> Any:
        host, port = _target(self, url)
        added = headers_for(host, port, headers)
        if added:
            headers = {**{name: value for name, value in headers.items() if name.lower() not in added}, **added}
        return original(self, method, url, body, headers, **kwargs)

    return request


def _target(connection: Any, url: str) -> tuple[str, int]:
    """Host and port that a request is for: those of a tunnel, or of the whole URL that a proxy gets."""
    if connection._tunnel_host:
        return connection._tunnel_host, connection._tunnel_port or 443
    if "://" in url[:8]:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    return connection.host, connection.port
