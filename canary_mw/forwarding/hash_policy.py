"""The hash key by which a load balancer chooses an endpoint, and the cookie that makes the choice sticky."""

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

from canary_mw.rules.upstream import Cookie, LoadBalancing

if TYPE_CHECKING:
    from canary_mw.http.messages import RequestHead


def hash_key(
    load_balancing: LoadBalancing, head: "RequestHead", new_cookie: Callable[[], bytes]
) -> tuple[int | None, bytes | None]:
    """The hash key of a request, by header, cookie or source address.

    Args:
        new_cookie: returns random bytes for the cookie of a client that has none.

    Returns:
        The key, or None when any endpoint may get the request; and the value of a Set-Cookie header for the response,
        or None.
    """
    if load_balancing.cookie is not None:
        return _cookie_key(load_balancing.cookie, head, new_cookie)
    if load_balancing.header is not None:
        # As in Envoy's header hash policy, the order of repeated headers does not matter.
        values = sorted(value for name, value in head.headers if name == load_balancing.header)
        return (_hash(b",".join(values)) if values else None), None
    if load_balancing.source_ip and head.client:
        return _hash(head.client.encode()), None
    return None, None


def _cookie_key(
    cookie: Cookie, head: "RequestHead", new_cookie: Callable[[], bytes]
) -> tuple[int | None, bytes | None]:
    value = _cookie_value(head, cookie.name)
    if value:
        return _hash(value), None
    if cookie.ttl is None:
        return None, None
    value = b"%016x" % _hash(new_cookie())
    attributes = [b'%b="%b"' % (cookie.name, value)]
    if seconds := int(cookie.ttl):
        attributes.append(b"Max-Age=%d" % seconds)
    if cookie.path:
        attributes.append(b"Path=" + cookie.path)
    attributes.append(b"HttpOnly")
    return _hash(value), b"; ".join(attributes)


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
