"""Recognises the common response: a whole one in one read, of a length that is said, on a connection that is kept.

As `requests`, it refuses nothing: what it does not take, the parser reads.
"""

from canary_mw.http.headers import HOP_BY_HOP_HEADERS
from canary_mw.http.messages import NO_BODY_STATUSES
from canary_mw.http.response_writer import STATUS_LINES, encode_chunk
from canary_mw.server.fast_path.names import Names
from canary_mw.server.fast_path.requests import PRINTABLE

_MAX_HEAD, _MAX_LINES = 16384, 64
_KEPT_OPEN = frozenset((b"keep-alive", b"Keep-Alive"))
_FRAMING = (b"content-length", b"connection", b"keep-alive", b"transfer-encoding")
# The spellings that are common; any other one of these names is for the parser.
_SPECIAL = {name: name for name in _FRAMING} | {name.title(): name for name in _FRAMING}
_NAMES = Names(HOP_BY_HOP_HEADERS | set(_FRAMING), ending=b": ", underscores=True)
_HEX = b"0123456789abcdefABCDEF"
_MAX_SIZE_DIGITS = 8
# The first lines that were met, with the status and the line that is sent in their place.
_status_lines: dict[bytes, tuple[int, bytes]] = {}
_MAX_STATUS_LINES = 64

# Status; the lines of the head as they are sent, without those for one hop; body; whether it came in chunks.
PlainResponse = tuple[int, list[bytes], bytes, bool]


def plain_response(data: bytes) -> PlainResponse | None:
    """The response that bytes are from their first to their last; None where the parser has to read them."""
    end = data.find(b"\r\n\r\n")
    lines = data[: end if end > 0 else 0].split(b"\r\n")
    status_line = _status_lines.get(lines[0]) or _learn_status(lines[0])
    if status_line is None or end > _MAX_HEAD or len(lines) > _MAX_LINES:
        return None
    head = data[: end + 2]
    # No other control bytes than those between the lines, and no blanks around a value.
    if len(head.translate(None, PRINTABLE)) != 2 * len(lines) or b" \r\n" in head or b":  " in head:
        return None
    status, lines[0] = status_line
    chunked = _rewrite(lines)
    if chunked is None:
        return None
    if chunked:
        body = _unchunked(data, end + 4)
        return None if body is None else (status, lines, body, True)
    body = data[end + 4 :]
    return (status, lines, body, False) if b"content-length: %d" % len(body) in lines else None


def _rewrite(lines: list[bytes]) -> bool | None:
    """Turn the lines of a head into those that are sent; whether the body is chunked, None for what is not taken."""
    known, chunked, sized, at = _NAMES.known, False, False, 1
    try:
        for line in lines[1:]:
            name, value = line.split(b": ", 1)
            start = known.get(name)
            if start is None:
                kind = _SPECIAL.get(name)
                if kind is None:
                    if not _NAMES.learn((name,)):
                        return None
                    start = known[name]
                elif kind == b"content-length":
                    if sized:
                        return None
                    sized, start = True, b"content-length: "
                elif kind == b"transfer-encoding":
                    if chunked or value != b"chunked":
                        return None
                    chunked = True
                    continue
                elif kind == b"keep-alive" or value in _KEPT_OPEN:
                    continue
                else:
                    return None
            lines[at] = start + value
            at += 1
    except ValueError:
        return None
    del lines[at:]
    return None if chunked is sized else chunked


def headers_of(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The headers of a response that is taken."""
    pairs = [line.split(b": ", 1) for line in lines[1:]]
    return [(name, value) for name, value in pairs]


def encode_plain(lines: list[bytes], body: bytes, *, chunked: bool) -> bytes:
    """A response as bytes, as `render_head` and `encode_chunk` make them."""
    if chunked:
        return b"\r\n".join((*lines, b"transfer-encoding: chunked", b"", encode_chunk(body, last=True)))
    return b"\r\n".join((*lines, b"", body))


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
