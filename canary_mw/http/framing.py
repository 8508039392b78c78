"""Checks of a request head and its framing, before anything of it is believed.

What two parsers could read in two ways is refused, not repaired (RFC 9112, sections 3.2, 5, 6 and 11.2): each server
lets some of it by, and each something else. The standalone server's protocol, the shells and `forwarding` all ask here.
"""

from collections.abc import Collection, Iterable
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from re import compile as pattern

from canary_mw.exceptions import BadTarget, ClientError, HeadTooLarge
from canary_mw.http.headers import are_tokens
from canary_mw.http.messages import BodyFraming, RawHeaders
from canary_mw.http.target import TARGET_BYTES, check_method

# Bytes of a head, request line and separators included, and fields in it.
MAX_HEAD = 65536
MAX_FIELDS = 100
# What fits into a signed 64-bit integer, which is what upstreams count in.
MAX_LENGTH = 2**63 - 1

# "2" and "3" is how servers of those say it; their framing is not in the head.
_VERSIONS = frozenset(("1.0", "1.1", "2", "3"))
_VALUE = b"\t" + bytes(c for c in range(0x20, 0x100) if c != 0x7F)
# RFC 3986, section 3.2.2, but for the comma: that is two Hosts joined. A percent sign must begin an escape.
_HOST = pattern(rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
_ONCE = (b"host", b"content-length", b"transfer-encoding")


def check_head(method: str, target: bytes, headers: RawHeaders, version: str) -> dict[bytes, bytes]:
    """Raise for a head that cannot be forwarded as the one thing that it says.

    Args:
        method: as received.
        target: path and query, an absolute URL, or "*".
        headers: pairs of lower-case name and value.
        version: as in the ASGI scope, "1.1" for one.

    Returns:
        The headers by name; of a repeated one the last.

    Raises:
        ClientError: to be answered with 400; the connection must be closed, since nobody knows where its body ends.
        HeadTooLarge: over `MAX_HEAD` bytes or `MAX_FIELDS` fields; likewise.
    """
    known = dict(headers)
    names, values = _fields(headers, known)
    if len(headers) > MAX_FIELDS or len(names) + len(values) + len(target) + 4 * len(headers) > MAX_HEAD:
        raise HeadTooLarge(f"the head is over {MAX_HEAD} bytes or {MAX_FIELDS} fields")
    if not are_tokens(known):
        raise ClientError("a header name is not a token")
    if values.translate(None, _VALUE):
        raise ClientError("a header value holds a control byte")
    if version not in _VERSIONS:
        raise ClientError("the version is not one of HTTP/1.0 and HTTP/1.1")
    check_method(method)
    if target[:1] != b"/" or target.translate(None, TARGET_BYTES):
        _check_target(method, target)
    if b"host" in known:
        check_host(known[b"host"])
    elif version == "1.1":
        raise ClientError("there is no Host")
    if b"content-length" in known or b"transfer-encoding" in known:
        body_framing(known)
        if version == "1.0" and b"transfer-encoding" in known:
            raise ClientError("HTTP/1.0 knows no Transfer-Encoding")
    return known


def _fields(headers: RawHeaders, known: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """All names and all values, each in one piece: the checks then run over bytes, not over fields."""
    if len(known) == len(headers):
        return b"".join(known), b"".join(known.values())
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise ClientError(f"there are several {name.decode().title()} headers")
    return b"".join(names), b"".join([value for _, value in headers])


def well_formed(names: Collection[bytes], values: Iterable[bytes]) -> bool:
    """Whether header names are tokens, and values free of all controls but the tab."""
    return are_tokens(names) and not b"".join(values).translate(None, _VALUE)


@lru_cache(maxsize=256)
def check_host(value: bytes) -> None:
    """Raise ClientError unless a Host is a name or an address, with or without a port (RFC 9110, section 7.2).

    It also refuses an empty one, which is for targets without an authority: not for http.
    """
    found = _HOST.fullmatch(value.strip(b" \t"))
    if found is None or len(value) > 300 or int(found[2] or 0) > 65535:
        raise ClientError("the Host is not a name or an address")
    if found[1] is not None:
        try:
            IPv6Address(found[1].decode())
        except AddressValueError:
            raise ClientError("the Host is not an IPv6 address") from None


def body_framing(known: dict[bytes, bytes]) -> BodyFraming | None:
    """Framing of a request's body, or None when it has none (RFC 9112, section 6).

    Args:
        known: the headers by name, each of them there at most once.

    Raises:
        ClientError: two framings at once, a coding besides chunked, or a length that is not a number.
    """
    coding, length = known.get(b"transfer-encoding"), known.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise ClientError("there are Content-Length and Transfer-Encoding at once")
        if coding.strip(b" \t").lower() != b"chunked":
            raise ClientError("the Transfer-Encoding is not chunked alone")
        return BodyFraming(None)
    if length is None:
        return None
    digits = length.strip(b" \t")
    if not digits.isdigit() or len(digits) > 19 or int(digits) > MAX_LENGTH:
        raise ClientError("the Content-Length is not a number, or one too large")
    return BodyFraming(int(digits))


def _check_target(method: str, target: bytes) -> None:
    """Origin-form, absolute-form, or "*" for OPTIONS (RFC 9112, section 3.2); CONNECT's form is not served."""
    if target.translate(None, TARGET_BYTES):
        raise BadTarget("the target holds a fragment, a control or a non-ASCII byte")
    scheme, separator, rest = target.partition(b"://")
    absolute = separator and scheme.lower() in (b"http", b"https") and rest[:1] not in (b"", b"/", b"?")
    if not absolute and not (target == b"*" and method == "OPTIONS"):
        raise BadTarget("the target is not a path")
