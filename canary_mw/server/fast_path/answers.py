"""Recognises the common response: a whole one in one read, of a length that is said, on a connection that is kept.

As `requests`, it refuses nothing: what it does not take, the parser reads.
"""

from typing import NamedTuple

from canary_mw.http.headers import HOP_BY_HOP_HEADERS
from canary_mw.http.messages import NO_BODY_STATUSES
from canary_mw.http.response_writer import STATUS_LINES, encode_chunk
from canary_mw.server.fast_path.names import Names
from canary_mw.server.fast_path.requests import PRINTABLE

_MAX_HEAD, _MAX_LINES = 16384, 64
# What concerns this connection alone and says nothing new is left out; any other hop-by-hop header is for the parser.
_LEFT_OUT = frozenset((b"connection", b"keep-alive", b"transfer-encoding"))
_ONCE = (b"content-length", b"connection", b"transfer-encoding")
_KEPT_OPEN = (b"keep-alive", b"Keep-Alive")
_NAMES = Names(
    HOP_BY_HOP_HEADERS - _LEFT_OUT,
    (b"Connection", b"Keep-Alive", b"Transfer-Encoding", b"Content-Length"),
    underscores=True,
)
_join = b": ".join
_HEX = b"0123456789abcdefABCDEF"
_MAX_SIZE_DIGITS = 8
# The first lines that were met, with the status and the line that is sent in their place.
_status_lines: dict[bytes, tuple[int, bytes]] = {}
_MAX_STATUS_LINES = 64


class PlainResponse(NamedTuple):
    """A response.

    Attributes:
        line: its first line as it is sent.
        headers: without those for one hop.
        chunked: it came in the chunked coding, and is sent so.
    """

    status: int
    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    chunked: bool


def plain_response(data: bytes) -> PlainResponse | None:
    """The response that bytes are from their first to their last; None where the parser has to read them."""
    end = data.find(b"\r\n\r\n") + 4
    if not 4 < end <= _MAX_HEAD:
        return None
    head = data[:end]
    lines = head.split(b"\r\n")
    del lines[-2:]
    count = len(lines)
    known_line = _status_lines.get(lines[0]) or _learn_status(lines[0])
    if known_line is None or count > _MAX_LINES:
        return None
    if len(head.translate(None, PRINTABLE)) != 2 * count + 2 or b" \r\n" in head or b":  " in head:
        return None
    del lines[0]
    headers = _headers(lines)
    if headers is None:
        return None
    by_name = dict(headers)
    body: bytes | None = data[end:]
    chunked = b"content-length" not in by_name
    if chunked:
        body = _unchunked(data, end) if by_name.get(b"transfer-encoding") == b"chunked" else None
    elif b"transfer-encoding" in by_name or by_name[b"content-length"] != b"%d" % (len(data) - end):
        return None
    if body is None or by_name.get(b"connection", b"keep-alive") not in _KEPT_OPEN:
        return None
    if len(by_name) != len(headers) and _repeats(headers):
        return None
    if not _LEFT_OUT.isdisjoint(by_name):
        headers = [pair for pair in headers if pair[0] not in _LEFT_OUT]
    return PlainResponse(*known_line, headers, body, chunked)


def encode_plain(found: PlainResponse) -> bytes:
    """A response as bytes, as `render_head` and `encode_chunk` make them."""
    _, line, headers, body, chunked = found
    lines = [line, *map(_join, headers)]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
        body = encode_chunk(body, last=True)
    lines += (b"", body)
    return b"\r\n".join(lines)


def _learn_status(line: bytes) -> tuple[int, bytes] | None:
    """Status and first line of a response that may have a body; None where the parser has to read it."""
    version, code, behind = line[:9], line[9:12], line[12:13]
    if version != b"HTTP/1.1 " or len(code) != 3 or not code.isdigit() or behind not in (b"", b" ") or len(line) > 64:
        return None
    status = int(code)
    if not 200 <= status <= 599 or status in NO_BODY_STATUSES or line.translate(None, PRINTABLE):
        return None
    if len(_status_lines) >= _MAX_STATUS_LINES:
        _status_lines.clear()
    found = _status_lines[line] = status, STATUS_LINES[status]
    return found


def _headers(lines: list[bytes]) -> list[tuple[bytes, bytes]] | None:
    known = _NAMES.known
    try:
        pairs = [line.split(b": ", 1) for line in lines]
        try:
            return [(known[name], value) for name, value in pairs]
        except KeyError:
            # A table that is full starts again within `learn`, so that a name may be missing even behind it.
            return (
                [(known[name], value) for name, value in pairs] if _NAMES.learn([name for name, _ in pairs]) else None
            )
    except (KeyError, ValueError):
        return None


def _repeats(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a header that may be there once is there twice."""
    names = [name for name, _ in headers]
    return any(names.count(name) > 1 for name in _ONCE)


def _unchunked(data: bytes, at: int) -> bytes | None:
    """The body of a chunked response without trailers and extensions, if it ends where the data end."""
    chunks: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at)
        digits = data[at:end]
        if end < 0 or not 0 < len(digits) <= _MAX_SIZE_DIGITS or digits.translate(None, _HEX):
            return None
        size, at = int(digits, 16), end + 2
        if data[at + size : at + size + 2] != b"\r\n":
            return None
        if not size:
            return b"".join(chunks) if at + 2 == len(data) else None
        chunks.append(data[at : at + size])
        at += size + 2
