"""What a hashing load balancer goes by for a request, and the cookie that it issues."""

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

from canary_mw.rules.upstream import Cookie, LoadBalancing

if TYPE_CHECKING:
    from canary_mw.http.messages import RequestHead


def hash_key(
    balancing: LoadBalancing, head: "RequestHead", new_cookie: Callable[[], bytes]
) -> tuple[int | None, bytes | None]:
    """What a hashing policy goes by for a request.

    Args:
        new_cookie: gives random bytes, for a client without cookie.

    Returns:
        The key, None where the request has none and may go anywhere; and the value of a Set-Cookie header for the
        answer, if the client is to get a cookie.
    """
    if balancing.cookie is not None:
        return _cookie_key(balancing.cookie, head, new_cookie)
    if balancing.header is not None:
        # The order of repeated ones is not to matter (Envoy's header hash policy).
        values = sorted(value for name, value in head.headers if name == balancing.header)
        return (_hash(b",".join(values)) if values else None), None
    if balancing.source_ip and head.client:
        return _hash(head.client.encode()), None
    return None, None


def _cookie_key(cookie: Cookie, head: "RequestHead", new: Callable[[], bytes]) -> tuple[int | None, bytes | None]:
    value = _cookie_value(head, cookie.name)
    if value:
        return _hash(value), None
    if cookie.ttl is None:
        return None, None
    value = b"%016x" % _hash(new())
    parts = [b'%b="%b"' % (cookie.name, value)]
    if seconds := int(cookie.ttl):
        parts.append(b"Max-Age=%d" % seconds)
    if cookie.path:
        parts.append(b"Path=" + cookie.path)
    parts.append(b"HttpOnly")
    return _hash(value), b"; ".join(parts)


def _cookie_value(head: "RequestHead", name: bytes) -> bytes:
    """The first value of a cookie, without quotes (RFC 6265, section 4.1.1); empty where it is missing."""
    for header, value in head.headers:
        if header != b"cookie":
            continue
        for pair in value.split(b";"):
            key, _, text = pair.strip().partition(b"=")
            if key == name:
                return text[1:-1] if len(text) > 1 and text[:1] == text[-1:] == b'"' else text
    return b""


def _hash(value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little")
