"""Heads of answers as they leave our server: one framing each, whatever an app or an upstream says (RFC 9112)."""

from http import HTTPStatus
from typing import NamedTuple

from canary_mw.http.framing import well_formed
from canary_mw.http.messages import NO_BODY_STATUSES, RawHeaders

_OURS = frozenset((b"connection", b"transfer-encoding"))


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    return b"HTTP/1.1 %d %b" % (status, phrase)


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


class RenderedHead(NamedTuple):
    """A head, and what tells the end of the body behind it.

    Attributes:
        data: the head as it is written.
        empty: there is no body, whatever follows.
        chunked: the body goes out in chunks.
        length: of the body; None where nothing but the end of the connection tells it, or one of the above does.
        closes: the connection ends with this answer.
    """

    data: bytes
    empty: bool
    chunked: bool
    length: int | None
    closes: bool


def render_head(status: int, headers: RawHeaders, method: str, version: str, *, closes: bool) -> RenderedHead:
    """The head of an answer with the framing that its length, the method and the client's version ask for.

    Args:
        method: of the request.
        version: of the client, "1.0" or "1.1".
        closes: the connection is to end with this answer.

    Raises:
        RuntimeError: of these parts nothing can be made that is safe to write.
    """
    if status < 200:
        raise RuntimeError(f"status {status} is not that of a final answer")
    known = dict(headers)
    names = b"".join(known)
    if len(known) < len(headers) or names != names.lower() or status == 204 or not _OURS.isdisjoint(known):
        headers, closes = _tidied(status, headers, closes)
        known = dict(headers)
    if not well_formed(known, known.values() if len(known) == len(headers) else [value for _, value in headers]):
        raise RuntimeError("a header name or value holds bytes that it must not")
    length = known.get(b"content-length")
    if length is not None and not length.isdigit():
        raise RuntimeError("the Content-Length is not one number")
    empty = method == "HEAD" or status in NO_BODY_STATUSES
    chunked = length is None and not empty and version == "1.1"
    left = None if length is None or empty else int(length)
    closes = closes or (left is None and not empty and not chunked)
    lines = [STATUS_LINES[status], *map(b": ".join, headers)]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    lines.append(b"connection: close\r\n\r\n" if closes else b"\r\n")
    return RenderedHead(b"\r\n".join(lines), empty, chunked, left, closes)


def _tidied(status: int, headers: RawHeaders, closes: bool) -> tuple[RawHeaders, bool]:
    """Headers in lower case without those of the framing that are ours, and whether the connection is to end."""
    headers = [(name.lower(), value) for name, value in headers]
    closes = closes or any(name == b"connection" and b"close" in value.lower() for name, value in headers)
    if sum(name == b"content-length" for name, _ in headers) > 1:
        raise RuntimeError("the Content-Length is not one number")
    drop = _OURS | {b"content-length"} if status == 204 else _OURS
    return [pair for pair in headers if pair[0] not in drop], closes


def encode_chunk(body: bytes, *, last: bool) -> bytes:
    """A piece of a body in chunks."""
    data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return data + b"0\r\n\r\n" if last else data


def _refusal(status: int, reason: bytes) -> bytes:
    headers = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(reason)))
    return render_head(status, headers, "GET", "1.1", closes=True).data + reason


# What is written without a look at what was asked for.
ERROR_RESPONSES = {
    400: _refusal(400, b"the request is not well-formed HTTP/1.1\n"),
    408: _refusal(408, b"the request came too slowly\n"),
    431: _refusal(431, b"the request head is too large\n"),
}
