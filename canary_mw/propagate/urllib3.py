"""Lanes on requests of urllib3, and of what stands on it, as requests and botocore.

The headers are a new dictionary for each request: redirects are followed with the one of the app.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3._collections import HTTPHeaderDict

from canary_mw.propagate.carried import header, headers_for

_PORTS = {"http": 80, "https": 443}


def patches() -> list[tuple[type, str, Callable[[Callable[..., Any]], Callable[..., Any]]]]:
    """What `install` patches."""
    return [(urllib3.HTTPConnectionPool, "urlopen", _patched)]


def _patched(original: Callable[..., Any]) -> Callable[..., Any]:
    def urlopen(
        self: Any,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        return original(self, method, url, body, _with_lanes(self, url, headers), *args, **kwargs)

    return urlopen


def _with_lanes(pool: Any, url: str, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    given: Mapping[str, str] = pool.headers if headers is None else headers
    host, port = _target(pool, url)
    added = headers_for(host, port, given)
    return merged(given, added) if added else _without_own(headers, url)


def _target(pool: Any, url: str) -> tuple[str, int]:
    """Host and port that a request is for; the pool of a proxy is for requests to all hosts."""
    if pool.proxy is not None and "://" in url[:8]:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    return pool.host, pool.port or _PORTS.get(pool.scheme, 0)


def _without_own(headers: Mapping[str, str] | None, url: str) -> Mapping[str, str] | None:
    """The headers for a host off the list: a pool of a proxy follows redirects with those that it sent before."""
    if headers is None or "://" not in url[:8]:
        return headers
    own = header()
    if not any(headers.get(name) == value for name, value in own.items()):
        return headers
    return {name: value for name, value in headers.items() if own.get(name.lower()) != value}


def merged(headers: Mapping[str, str], added: Mapping[str, str]) -> Mapping[str, str]:
    """New headers, in which some are replaced."""
    if isinstance(headers, HTTPHeaderDict):
        copied = headers.copy()
        copied.update(added)
        return copied
    kept = {name: value for name, value in headers.items() if _text(name).lower() not in added}
    return {**kept, **added}


def _text(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name
