"""Checks of a request head and its framing, before any of it is used.

Whatever two parsers could read differently is refused, not repaired (RFC 9112, sections 3.2, 5, 6 and 11.2): every
server accepts some of it, and each accepts something else. Used by the standalone server, the middleware and
`forwarding`.
"""

from collections.abc import Collection, Iterable

from canary_mw.exceptions import BadTarget, ClientError, HeadTooLarge
from canary_mw.http.authority import check_host, split_absolute
from canary_mw.http.headers import are_tokens
from canary_mw.http.messages import BodyFraming, RawHeaders
from canary_mw.http.target import TARGET_BYTES, check_method

# Bytes of a head, request line and separators included, and number of its fields.
MAX_HEAD = 65536
MAX_FIELDS = 100
# The largest signed 64-bit integer: upstreams hold lengths in one.
MAX_LENGTH = 2**63 - 1

# Servers of HTTP/2 and HTTP/3 give "2" and "3"; the framing of those is not in the head.
_VERSIONS = frozenset(("1.0", "1.1", "2", "3"))
_VALUE = b"\t" + bytes(c for c in range(0x20, 0x100) if c != 0x7F)
_SINGLE_HEADERS = (b"host", b"content-length", b"transfer-encoding")


def check_head(method: str, target: bytes, headers: RawHeaders, version: str) -> dict[bytes, bytes]:
    """Raise for a head that is malformed or ambiguous.

    Args:
        method: as received.
        target: path and query, an absolute URL, or "*".
        headers: pairs of lower-case name and value.
        version: as in the ASGI scope, for example "1.1".

    Returns:
        The headers by name; the last value of a repeated name.

    Raises:
        ClientError: respond with 400 and close the connection: the end of the body is not known.
        HeadTooLarge: over `MAX_HEAD` bytes or `MAX_FIELDS` fields; respond with 431 and close as well.
    """
    by_name = dict(headers)
    names, values = _joined(headers, by_name)
    if len(headers) > MAX_FIELDS or len(names) + len(values) + len(target) + 4 * len(headers) > MAX_HEAD:
        raise HeadTooLarge(f"the head is over {MAX_HEAD} bytes or {MAX_FIELDS} fields")
    if not are_tokens(by_name):
        raise ClientError("a header name is not a token")
    if values.translate(None, _VALUE):
        raise ClientError("a header value holds a control byte")
    if version not in _VERSIONS:
        raise ClientError("the version is not one of HTTP/1.0 and HTTP/1.1")
    check_method(method)
    if target[:1] != b"/" or target.translate(None, TARGET_BYTES):
        _check_target(method, target)
    if b"host" in by_name:
        check_host(by_name[b"host"])
    elif version == "1.1":
        raise ClientError("there is no Host")
    if b"content-length" in by_name or b"transfer-encoding" in by_name:
        body_framing(by_name)
        if version == "1.0" and b"transfer-encoding" in by_name:
            raise ClientError("HTTP/1.0 knows no Transfer-Encoding")
    return by_name


def _joined(headers: RawHeaders, by_name: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """All names joined and all values joined, so that one check covers all fields."""
    if len(by_name) == len(headers):
        return b"".join(by_name), b"".join(by_name.values())
    names = [name for name, _ in headers]
    for name in _SINGLE_HEADERS:
        if names.count(name) > 1:
            raise ClientError(f"there are several {name.decode().title()} headers")
    return b"".join(names), b"".join([value for _, value in headers])


def well_formed(names: Collection[bytes], values: Iterable[bytes]) -> bool:
    """Whether header names are tokens, and values hold no control byte but the tab."""
    return are_tokens(names) and not b"".join(values).translate(None, _VALUE)


def body_framing(by_name: dict[bytes, bytes]) -> BodyFraming | None:
    """Framing of a request's body, or None when it has none (RFC 9112, section 6).

    Args:
        by_name: the headers by name; none of them is repeated.

    Raises:
        ClientError: both headers, a coding other than chunked, or a length that is not a number.
    """
    coding, length = by_name.get(b"transfer-encoding"), by_name.get(b"content-length")
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
    """Accept origin-form, absolute-form, and "*" for OPTIONS (RFC 9112, section 3.2), but not CONNECT's form."""
    if target.translate(None, TARGET_BYTES):
        raise BadTarget("the target holds a fragment, a control or a non-ASCII byte")
    if split_absolute(target) is None and not (target == b"*" and method == "OPTIONS"):
        raise BadTarget("the target is not a path")
