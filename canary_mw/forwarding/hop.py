"""What this process adds to a request as one hop of a chain of proxies; loop detection by `via`."""

from collections.abc import Callable
from typing import NamedTuple

from canary_mw.exceptions import LoopDetected
from canary_mw.http.messages import RawHeaders

# More hops through any canary-mw than this are a loop, for instance between deployments with different via tokens.
MAX_HOPS = 10


class HopContext(NamedTuple):
    """What forwarding needs to know about this process and the peer.

    Attributes:
        via: the via token of this deployment; a request whose `via` holds it is in a loop.
        trusted: the peer is trusted: its X-Forwarded-* headers are kept and appended to, not replaced.
        new_id: returns an `x-request-id` for a request that has none.
        now: returns the time in seconds since the epoch.
        roll: returns a random percent in [0, 100), for shadows.
        shadow_writes: shadows also get copies of methods other than GET, HEAD and OPTIONS.
    """

    via: bytes
    trusted: bool
    new_id: Callable[[], bytes]
    now: Callable[[], float] = lambda: 0.0
    roll: Callable[[], float] = lambda: 0.0
    shadow_writes: bool = False


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
