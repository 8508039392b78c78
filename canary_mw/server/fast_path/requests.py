"""Recognises the common request: a whole head in one read, without a body, that no two parsers read differently.

It is stricter than the parser and `check_head`, and refuses nothing: what it does not take, they read. What it takes,
they read in the same way, which `tests/fuzz` compares.
"""

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
_KEPT_OPEN = frozenset((b"keep-alive", b"Keep-Alive"))
_NAMES = Names(_REFUSED, (b"Connection",))


# Method; normalised path; query with its "?", or empty; values by lower-case name, in the order of the request. No name
# is repeated.
PlainRequest = tuple[str, bytes, bytes, dict[bytes, bytes]]


def plain_request(data: bytes) -> PlainRequest | None:
    """The request that bytes are from their first to their last; None where the parser has to read them."""
    method = "GET" if data[:4] == b"GET " else _METHODS.get(data[: data.find(b" ")])
    if method is None or data[-4:] != b"\r\n\r\n" or len(data) > _MAX_BYTES:
        return None
    lines = data[:-4].split(b"\r\n")
    count = len(lines)
    # No other control bytes than those between the lines, and no blanks around a value.
    if len(data.translate(None, PRINTABLE)) != 2 * count + 2 or b" \r\n" in data or b":  " in data:
        return None
    try:
        _, target, version = lines[0].split(b" ")
        if version != b"HTTP/1.1" or count > _MAX_LINES:
            return None
        del lines[0]
        pairs = [line.split(b": ", 1) for line in lines]
        known = _NAMES.known
        try:
            fields = {known[name]: value for name, value in pairs}
        except KeyError:
            if not _NAMES.learn([name for name, _ in pairs]):
                return None
            # A table that is full starts again within `learn`, so that a name may be missing even now.
            fields = {known[name]: value for name, value in pairs}
        if len(fields) != count - 1 or fields.get(b"connection", b"keep-alive") not in _KEPT_OPEN:
            return None
        check_host(fields[b"host"])
        path = target
        query = b""
        if b"?" in target:
            path, _, query = target.partition(b"?")
            query = b"?" + query
            if query == b"?" or query.translate(None, TARGET_BYTES):
                return None
        if path.translate(None, _PLAIN) or path[:1] != b"/" or b"/." in path:
            if path[:1] != b"/" or path.translate(None, TARGET_BYTES):
                return None
            path = normalize_path(path)
    except (ValueError, KeyError, ClientError):
        return None
    return method, path, query, fields
