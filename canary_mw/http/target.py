"""Method, path and query of a request in the one form that is matched and sent."""

from canary_mw.exceptions import BadTarget, ClientError
from canary_mw.http.authority import split_absolute

# A path of these bytes alone is normal: no escapes, no dot segments, no bytes that a target may not hold.
PLAIN_PATH = bytes(c for c in range(0x21, 0x7F) if c not in b'%\\#."<>^`{|}')
# Bytes that a target may hold: visible ASCII without "#".
TARGET_BYTES = bytes(c for c in range(0x21, 0x7F) if c != 0x23)
# For `urllib.parse.quote`: characters of a path that stay unescaped (RFC 3986, section 3.3), and "/".
PATH_SAFE = "/:@!$&'()*+,;=~"
_HEX = {b"%02X" % c: bytes([c]) for c in range(256)}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

# The methods that Node's and Envoy's parsers accept, without CONNECT, which opens a tunnel.
METHODS = frozenset(
    "GET HEAD POST PUT DELETE OPTIONS TRACE PATCH COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND"
    " UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK"
    " SOURCE".split()
)


def check_method(method: str) -> None:
    """Raise ClientError for a method that is not in `METHODS`."""
    if method not in METHODS:
        raise ClientError("the method is unknown")


def check_query(query: bytes) -> bytes:
    """Return the query unchanged, or raise BadTarget for bytes that a target may not hold."""
    if query.translate(None, TARGET_BYTES):
        raise BadTarget("the query holds a fragment, a control or a non-ASCII byte")
    return query


def normalize_path(path: bytes) -> bytes:
    """The one form of a path that is matched and sent, as Envoy's `normalize_path` (RFC 3986, section 6.2.2).

    Escapes of unreserved characters are decoded, "\\" becomes "/", "." and ".." segments are resolved, at most up to
    the root. "//" and every other escape stay as they are: `%2F` is not a slash, `%C3` is not `%c3`.

    Raises:
        BadTarget: it holds a fragment, control or non-ASCII bytes, or an escaped NUL.
    """
    if path[:1] != b"/":
        path = _path_of_absolute(path)
        if path == b"*":
            return path
    if not path.translate(None, PLAIN_PATH):
        return path
    if path.translate(None, TARGET_BYTES):
        raise BadTarget("the path holds a fragment, a control or a non-ASCII byte")
    if b"%" in path:
        path = _decode_unreserved(path)
    path = path.replace(b"\\", b"/")
    return _resolve_dots(path) if b"/." in path else path


def _path_of_absolute(target: bytes) -> bytes:
    absolute = split_absolute(target)
    if absolute is not None:
        return absolute.origin_form
    if target in (b"*", b""):
        return target or b"/"
    raise BadTarget("the target is not a path")


def _decode_unreserved(path: bytes) -> bytes:
    first, *parts = path.split(b"%")
    out = [first]
    for part in parts:
        char = _HEX.get(part[:2].upper())
        if char == b"\0":
            raise BadTarget("the path holds an escaped NUL")
        # After a "%" that begins no escape, decoding could complete one: "%%32e" must not become "%2e".
        unfinished = len(out[-1]) < 3 and out[-1][:1] == b"%"
        out.append(char + part[2:] if char and char[0] in _UNRESERVED and not unfinished else b"%" + part)
    return b"".join(out)


def _resolve_dots(path: bytes) -> bytes:
    out: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del out[-1:]
        elif segment != b".":
            out.append(segment)
    if segments[-1] in (b".", b".."):
        out.append(b"")
    return b"/" + b"/".join(out)
