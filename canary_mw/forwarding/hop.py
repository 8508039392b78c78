"""What this process adds to a request as one hop of a chain of proxies; loop detection by `via`."""

import hmac
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from canary_mw.exceptions import LoopDetected
from canary_mw.http.messages import RawHeaders, RequestHead

# More hops through any canary-mw than this are a loop, for instance between deployments with different via tokens.
MAX_HOPS = 10
_SIGNED = re.compile(rb"\(([0-9a-f]{64})\)")


class HopContext(NamedTuple):
    """What forwarding needs to know about this process and the peer.

    Attributes:
        via: the via token of this deployment; a request whose `via` holds it is in a loop.
        trusted: the peer is trusted: its X-Forwarded-* headers are kept and appended to, not replaced.
        new_id: returns an `x-request-id` for a request that has none.
        now: returns the time in seconds since the epoch.
        roll: returns a random percent in [0, 100), for shadows.
        shadow_writes: shadows also get copies of methods other than GET, HEAD and OPTIONS.
        comment_key: signs the comments in `via`; None for bare ones.
    """

    via: bytes
    trusted: bool
    new_id: Callable[[], bytes]
    now: Callable[[], float] = lambda: 0.0
    roll: Callable[[], float] = lambda: 0.0
    shadow_writes: bool = False
    comment_key: bytes | None = None


def via_prefix(headers: RawHeaders, own: bytes) -> bytes:
    """The received `via` value, followed by a comma, so that this hop can be appended.

    Args:
        own: the via token of this deployment.

    Raises:
        LoopDetected: this deployment is in the chain, or more than `MAX_HOPS` hops are.
    """
    chain = b", ".join(value for name, value in headers if name == b"via")
    entries = [entry.split() for entry in chain.split(b",")]
    if any(own in entry for entry in entries):
        raise LoopDetected("the request was forwarded by this deployment before")
    if sum(any(word.startswith(b"canary-mw") for word in entry) for entry in entries) >= MAX_HOPS:
        raise LoopDetected(f"the request was forwarded {MAX_HOPS} times")
    return chain + b", "


def comment_for(service: bytes, headers: RawHeaders, key: bytes | None) -> bytes:
    """The comment in `via` by which the next canary-mw knows that a request was sent to its service.

    Args:
        service: `Service.via_comment`.
        headers: of the request to it.
        key: of the signature, which holds for this service and the request's id; None for none.
    """
    if key is None:
        return service
    request_id = next((value for name, value in headers if name == b"x-request-id"), b"")
    return b"(%b)" % _signature(key, service, request_id)


def is_sent_and_signed(keys: Sequence[bytes], head: RequestHead, service: bytes) -> bool:
    """Whether `via` holds the comment of `comment_for` by one of the keys. Bare comments are ignored."""
    request_id = head.header(b"x-request-id")
    if not request_id:
        return False
    via = b",".join(value for name, value in head.headers if name == b"via")
    found = _SIGNED.findall(via)[-MAX_HOPS:]
    wanted = [_signature(key, service, request_id) for key in keys]
    return any(hmac.compare_digest(each, signature) for each in found for signature in wanted)


def _signature(key: bytes, service: bytes, request_id: bytes) -> bytes:
    # None of the lines holds a line break, and the first one sets it apart from other signatures by the same key.
    text = b"\n".join((b"canary-mw-via", service, request_id))
    return hmac.digest(key, text, "sha256").hex().encode()
