"""Responses encoded as bytes: exactly one framing each, whatever the app or the upstream sets (RFC 9112)."""

from http import HTTPStatus
from typing import NamedTuple

from canary_mw.http.framing import well_formed
from canary_mw.http.messages import NO_BODY_STATUSES, RawHeaders

# Set by this module alone.
_OWN_HEADERS = frozenset((b"connection", b"transfer-encoding"))


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    return b"HTTP/1.1 %d %b" % (status, phrase)


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


class RenderedHead(NamedTuple):
    """An encoded head, and the framing of its body.

    Attributes:
        data: the head as bytes.
        empty: the response has no body, whatever the app sends.
        chunked: the body has the chunked coding.
        length: of the body; None where it is empty or chunked, or ends with the connection.
        closes: the connection is closed after this response.
    """

    data: bytes
    empty: bool
    chunked: bool
    length: int | None
    closes: bool


def render_head(status: int, headers: RawHeaders, method: str, version: str, *, closes: bool) -> RenderedHead:
    """Encode the head of a response with the framing that its length, the method and the client's version require.

    Args:
        method: of the request.
        version: of the client, "1.0" or "1.1".
        closes: the connection is to be closed after this response.

    Raises:
        RuntimeError: the status or a header cannot be sent safely.
    """
    if status < 200:
        raise RuntimeError(f"status {status} is not that of a final response")
    by_name = dict(headers)
    names = b"".join(by_name)
    if len(by_name) < len(headers) or names != names.lower() or status == 204 or not _OWN_HEADERS.isdisjoint(by_name):
        headers, closes = _normalized(status, headers, closes)
        by_name = dict(headers)
    if not well_formed(by_name, by_name.values() if len(by_name) == len(headers) else [value for _, value in headers]):
        raise RuntimeError("a header name or value holds bytes that it must not")
    length = by_name.get(b"content-length")
    if length is not None and not length.isdigit():
        raise RuntimeError("the Content-Length is not one number")
    empty = method == "HEAD" or status in NO_BODY_STATUSES
    chunked = length is None and not empty and version == "1.1"
    body_length = None if length is None or empty else int(length)
    closes = closes or (body_length is None and not empty and not chunked)
    lines = [STATUS_LINES[status], *map(b": ".join, headers)]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    lines.append(b"connection: close\r\n\r\n" if closes else b"\r\n")
    return RenderedHead(b"\r\n".join(lines), empty, chunked, body_length, closes)


def _normalized(status: int, headers: RawHeaders, closes: bool) -> tuple[RawHeaders, bool]:
    """Headers in lower case without `_OWN_HEADERS`, and whether the connection is to be closed.

    An `upgrade` header gets the `connection` that belongs to it (RFC 9110, section 7.8).
    """
    headers = [(name.lower(), value) for name, value in headers]
    closes = closes or any(name == b"connection" and b"close" in value.lower() for name, value in headers)
    if sum(name == b"content-length" for name, _ in headers) > 1:
        raise RuntimeError("the Content-Length is not one number")
    drop = _OWN_HEADERS | {b"content-length"} if status == 204 else _OWN_HEADERS
    kept = [pair for pair in headers if pair[0] not in drop]
    if any(name == b"upgrade" for name, _ in kept):
        kept.append((b"connection", b"upgrade"))
    return kept, closes


def encode_chunk(body: bytes, *, last: bool) -> bytes:
    """Part of a body in the chunked coding; `last` ends the body."""
    data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return data + b"0\r\n\r\n" if last else data


def _error_response(status: int, reason: bytes) -> bytes:
    headers = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(reason)))
    return render_head(status, headers, "GET", "1.1", closes=True).data + reason


# Complete responses to requests that cannot be parsed.
ERROR_RESPONSES = {
    400: _error_response(400, b"the request is not well-formed HTTP/1.1\n"),
    408: _error_response(408, b"the request came too slowly\n"),
    431: _error_response(431, b"the request head is too large\n"),
}
