"""WSGI apps of this process that serve a service in place of an upstream."""

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.headers import framed_headers
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.http.messages import NO_MOUNT, Mount, RawHeaders, ResponseHead
from canary_mw.middleware.wsgi.environ import with_headers
from canary_mw.types import Environ, ExcInfo, StartResponse, Write, WSGIApp

_REASONS = {status.value: status.phrase for status in HTTPStatus}


def call_app(
    app: WSGIApp, exchange: Exchange, environ: Environ, start_response: StartResponse, mount: Mount = NO_MOUNT
) -> Iterable[bytes] | Reply:
    """Call an app of this process. Its body is relayed as it comes; only its response head goes to the exchange.

    Args:
        mount: of the request; the app is mounted there, too.

    Returns:
        What the app returned, or the reply to send in its place.
    """
    try:
        request = next(exchange)
    except StopIteration as stop:
        reply: Reply = stop.value
        return reply
    started = False

    def start(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        nonlocal started
        if started:
            # The app reports an error, or calls twice by mistake: the server handles both.
            return start_response(status, headers, exc_info)
        started = True
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        outcome = _finish_exchange(exchange, ResponseHead(int(status[:3]), pairs))
        return start_response(status_line(outcome.head.status), text_pairs(outcome.head.headers), exc_info)

    return app(_app_environ(environ, request, mount), start)


def status_line(status: int) -> str:
    """A status line for `start_response`; the reason phrase of an upstream is not relayed (RFC 9112, section 4)."""
    return f"{status} {_REASONS.get(status, 'Unknown')}"


def text_pairs(headers: RawHeaders) -> list[tuple[str, str]]:
    """Headers for `start_response`."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _finish_exchange(exchange: Exchange, head: ResponseHead) -> Relay:
    try:
        exchange.send(head)
    except StopIteration as stop:
        outcome = stop.value
        assert isinstance(outcome, Relay)
        return outcome
    raise RuntimeError("a request to an app cannot be retried")


def _app_environ(environ: Environ, request: UpstreamRequest, mount: Mount) -> Environ:
    path, _, query = request.target.partition(b"?")
    raw = [name for name in ("RAW_URI", "REQUEST_URI") if name in environ]
    return {
        **with_headers(environ, framed_headers(request)),
        **dict.fromkeys(raw, request.target.decode("latin-1")),
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": environ["SCRIPT_NAME"] if mount.root else "",
        "PATH_INFO": unquote_to_bytes(path[len(mount.sent) :]).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
    }
