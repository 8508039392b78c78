"""Conversion of requests to httpx, and of its errors to ours, for asynchronous and synchronous transports."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from canary_mw.exceptions import UpstreamConnectError, UpstreamProtocolError, UpstreamTimeout
from canary_mw.forwarding.headers import framed_headers
from canary_mw.forwarding.messages import FORWARDED, UpstreamRequest
from canary_mw.rules.upstream import Origin

if TYPE_CHECKING:
    import httpx


def httpx_request(
    origin: Origin,
    request: UpstreamRequest,
    stream: "httpx.SyncByteStream | httpx.AsyncByteStream",
    remaining: float = math.inf,
) -> "httpx.Request":
    """Build the httpx request for a transport.

    Args:
        remaining: seconds that each step of the transport may take, `math.inf` for no limit.
    """
    import httpx

    url = httpx.URL(scheme=origin.scheme, host=origin.host, port=origin.port, path="/")
    if request.target[:1] == b"/" and request.target[:2] != b"//":
        url = url.copy_with(raw_path=request.target)
    # On an event loop the caller enforces the deadline. These timeouts end idle exchanges, event streams included, and
    # bound the steps of a blocking transport.
    idle = step_limit(request.options.idle_timeout, remaining)
    connect = step_limit(request.connect_timeout, remaining)
    timeout = {"connect": connect, "read": idle, "write": idle, "pool": step_limit(None, remaining)}
    return httpx.Request(
        request.method,
        url,
        headers=framed_headers(request),
        stream=stream,
        extensions={"target": request.target, "timeout": timeout, FORWARDED: True},
    )


def step_limit(seconds: float | None, remaining: float) -> float | None:
    """The seconds of a step that has a limit of its own, None for no limit, and so many seconds left."""
    limit = remaining if seconds is None else min(seconds, remaining)
    return None if limit == math.inf else limit


@contextmanager
def map_httpx_errors() -> Iterator[None]:
    """Convert httpx exceptions to `UpstreamError` subclasses."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
        raise UpstreamConnectError(str(exc)) from exc
    except (httpx.TimeoutException, TimeoutError) as exc:
        raise UpstreamTimeout(str(exc) or "no answer before the deadline", sent=True) from exc
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as exc:
        raise UpstreamProtocolError(str(exc), sent=True) from exc
