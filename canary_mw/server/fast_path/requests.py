"""Recognises the common request: a whole head in one read, without a body, that no two parsers read differently.

It is stricter than the parser and `check_head`, and refuses nothing: what it does not take, they read. What it takes,
they read in the same way, which `tests/fuzz` compares.
"""

from typing import NamedTuple

from canary_mw.exceptions import ClientError
from canary_mw.http.authority import check_host
from canary_mw.http.headers import FRAMING_HEADERS, HOP_BY_HOP_HEADERS
from canary_mw.http.target import PLAIN_PATH, TARGET_BYTES, normalize_path
from canary_mw.server.fast_path.names import Names

# Those that seldom have a body.
_METHODS = {b"GET": "GET", b"DELETE": "DELETE", b"OPTIONS": "OPTIONS"}
# Far below the limits of the parser.
_MAX_BYTES, _MAX_LINES = 16384, 64
# A tab is left to the parser.
PRINTABLE = bytes(c for c in range(0x20, 0x100) if c != 0x7F)
_PLAIN = PLAIN_PATH + b"."
# They ask for a body, another protocol or an interim response, or concern one hop, or may mark a loop.
_REFUSED = (FRAMING_HEADERS | HOP_BY_HOP_HEADERS | {b"expect", b"via"}) - {b"connection"}
_NAMES = Names(_REFUSED, (b"Connection",))


class PlainRequest(NamedTuple):
    """The head of a request.

    Attributes:
        path: normalised.
        query: with its "?", or empty.
        fields: values by lower-case name, in the order of the request; no name was repeated.
    """

    method: str
    path: bytes
    query: bytes
    fields: dict[bytes, bytes]


def plain_request(data: bytes) -> PlainRequest | None:
    """The request that bytes are from their first to their last; None where the parser has to read them."""
    method = _METHODS.get(data[: data.find(b" ")])
    if method is None or data[-4:] != b"\r\n\r\n" or len(data) > _MAX_BYTES:
        return None
    lines = data.split(b"\r\n")
    del lines[-2:]
    count = len(lines)
    # No other control bytes than those between the lines, and no blanks around a value.
    if len(data.translate(None, PRINTABLE)) != 2 * count + 2 or b" \r\n" in data or b":  " in data:
        return None
    try:
        _, target, version = lines[0].split(b" ")
        del lines[0]
        fields = _fields(lines)
        if fields is None or version != b"HTTP/1.1" or len(fields) != count - 1 or count > _MAX_LINES:
            return None
        if b"connection" in fields and fields[b"connection"] not in (b"keep-alive", b"Keep-Alive"):
            return None
        check_host(fields[b"host"])
        path, mark, query = target.partition(b"?")
        if path[:1] != b"/" or target.translate(None, TARGET_BYTES) or (mark and not query):
            return None
        if path.translate(None, _PLAIN) or b"/." in path:
            path = normalize_path(path)
    except (ValueError, KeyError, ClientError):
        return None
    return PlainRequest(method, path, mark + query, fields)


def _fields(lines: list[bytes]) -> dict[bytes, bytes] | None:
    """The fields of lines; raises ValueError for a line that is none."""
    pairs = [line.split(b": ", 1) for line in lines]
    known = _NAMES.known
    try:
        return {known[name]: value for name, value in pairs}
    except KeyError:
        # A table that is full starts again within `learn`, so that a name may be missing even behind it.
        return {known[name]: value for name, value in pairs} if _NAMES.learn([name for name, _ in pairs]) else None
