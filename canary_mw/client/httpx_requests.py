"""Requests and errors of httpx, for transports of either kind."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from canary_mw.exceptions import UpstreamConnectError, UpstreamProtocolError, UpstreamTimeout
from canary_mw.forwarding.headers import framed_headers
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import Origin

if TYPE_CHECKING:
    import httpx


def httpx_request(
    origin: Origin,
    request: UpstreamRequest,
    stream: "httpx.SyncByteStream | httpx.AsyncByteStream",
    left: float = math.inf,
) -> "httpx.Request":
    """The request as a transport takes it.

    Args:
        left: seconds for each step of the transport.
    """
    import httpx

    url = httpx.URL(scheme=origin.scheme, host=origin.host, port=origin.port, path="/")
    if request.target[:1] == b"/" and request.target[:2] != b"//":
        url = url.copy_with(raw_path=request.target)
    # The deadline of a loop is ours; these end what stands still, an event stream too, and a thread that waits.
    idle = _limit(request.options.idle_timeout, left)
    connect = _limit(request.connect_timeout, left)
    timeout = {"connect": connect, "read": idle, "write": idle, "pool": _limit(None, left)}
    return httpx.Request(
        request.method,
        url,
        headers=framed_headers(request),
        stream=stream,
        extensions={"target": request.target, "timeout": timeout},
    )


def _limit(seconds: float | None, left: float) -> float | None:
    limit = left if seconds is None else min(seconds, left)
    return None if limit == math.inf else limit


@contextmanager
def map_httpx_errors() -> Iterator[None]:
    """Raise our errors in place of those of httpx."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
        raise UpstreamConnectError(str(exc)) from exc
    except (httpx.TimeoutException, TimeoutError) as exc:
        raise UpstreamTimeout(str(exc) or "no answer before the deadline", sent=True) from exc
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as exc:
        raise UpstreamProtocolError(str(exc), sent=True) from exc
