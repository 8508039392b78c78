"""Requests of Django, as WSGI has them, and what a middleware has changed of them."""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import LimitedStream
from django.http import HttpRequest

from canary_mw.middleware.wsgi.environ import environ_key
from canary_mw.types import Environ, Scope

# Where an environ or scope has the request.
REQUEST = "canary_mw.request"
DECISION = "canary_mw.decision"


def environ_of(request: HttpRequest) -> Environ:
    """The environ of a request. It is a copy: paths are bytes again, as WSGI has them."""
    environ: Environ = dict(request.META)
    if isinstance(request, ASGIRequest):
        environ |= _of_scope(request)
    for name in ("PATH_INFO", "SCRIPT_NAME"):
        environ[name] = environ[name].encode("utf-8", "surrogatepass").decode("latin-1")
    if hasattr(request, "_body"):
        # A middleware above has read it.
        environ["wsgi.input"] = BytesIO(request.body)
    if "HTTP_HOST" not in environ:
        environ["HTTP_HOST"] = _host_of_server(environ)
    return environ


def _host_of_server(environ: Environ) -> str:
    """What the server is called (PEP 3333, URL reconstruction): Django's test client sends no Host."""
    name, port = environ["SERVER_NAME"], str(environ["SERVER_PORT"])
    usual = "443" if environ["wsgi.url_scheme"] == "https" else "80"
    return str(name) if port == usual else f"{name}:{port}"


def body_of(request: Any) -> Any:
    """The body of a request over ASGI, a file; that of Django's test client cannot be read twice, so it is copied."""
    if not request._stream.seekable():
        request._stream = BytesIO(request._stream.read())
    return request._stream


def _of_scope(request: Any) -> Environ:
    """What the environ of a request over ASGI lacks; its body is there as a whole."""
    scope, stream = request.scope, body_of(request)
    query = scope.get("query_string", b"")
    raw = scope.get("raw_path") or b""
    more = {
        "wsgi.input": stream,
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "CONTENT_LENGTH": str(stream.seek(0, 2)),
    }
    stream.seek(0)
    if raw:
        more["RAW_URI"] = (raw + b"?" + query if query else raw).decode("latin-1")
    if "HTTP_TRANSFER_ENCODING" in request.META:
        del request.META["HTTP_TRANSFER_ENCODING"]
    return more


def update_from_environ(request: Any, environ: Environ) -> None:
    """Put into a request what is left of its headers, and its body."""
    meta = request.META
    _update_headers(meta, {name: value for name, value in environ.items() if name.startswith("HTTP_")})
    meta |= {name: environ[name] for name in ("QUERY_STRING", DECISION) if name in environ}
    _forget_headers(request)
    if environ["wsgi.input"] is not meta.get("wsgi.input", request._stream) and not hasattr(request, "_body"):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        request._stream, request._read_started = LimitedStream(environ["wsgi.input"], length), False


def update_from_scope(request: Any, scope: Scope) -> None:
    """Put into a request what is left of its headers; its body is read from the beginning."""
    if scope["headers"] is not request.scope["headers"]:
        _update_headers(request.META, _joined(scope["headers"]))
        _forget_headers(request)
    request.META[DECISION] = scope["canary_mw"]
    if not request._read_started:
        request._stream.seek(0)


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = environ_key(name), value.decode("latin-1")
        if key.startswith("HTTP_") and b"_" not in name:
            found[key] = f"{found[key]},{text}" if key in found else text
    return found


def _update_headers(meta: dict[str, Any], headers: dict[str, str]) -> None:
    for name in [name for name in meta if name.startswith("HTTP_") and name not in headers]:
        del meta[name]
    meta.update(headers)


def _forget_headers(request: Any) -> None:
    # Django keeps them once they were read.
    request.__dict__.pop("headers", None)
