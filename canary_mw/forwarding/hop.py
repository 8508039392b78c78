"""What a request passes through here, and the `via` chain that finds loops."""

from collections.abc import Callable
from typing import NamedTuple

from canary_mw.exceptions import LoopDetected
from canary_mw.http.messages import RawHeaders

# More hops through any canary-mw than a sane chain has: a loop between deployments that do not know each other.
MAX_HOPS = 10


class HopContext(NamedTuple):
    """What a request passes through here.

    Attributes:
        via: name of this deployment in `via`; a request that carries it was here before.
        trusted: the peer's X-Forwarded-* headers are believed and continued, not replaced.
        new_id: gives an `x-request-id` for a request that has none.
        now: gives the seconds since the epoch.
        roll: draws a percent in [0, 100), for shadows.
        shadow_writes: other methods than GET, HEAD and OPTIONS are copied too.
    """

    via: bytes
    trusted: bool
    new_id: Callable[[], bytes]
    now: Callable[[], float] = lambda: 0.0
    roll: Callable[[], float] = lambda: 0.0
    shadow_writes: bool = False


def _passed(headers: RawHeaders, own: bytes) -> bytes:
    """The `via` chain so far, ready to be continued."""
    chain = b", ".join(value for name, value in headers if name == b"via")
    entries = [entry.split() for entry in chain.split(b",")]
    if any(own in entry for entry in entries):
        raise LoopDetected("the request was forwarded by this deployment before")
    if sum(any(word.startswith(b"canary-mw") for word in entry) for entry in entries) >= MAX_HOPS:
        raise LoopDetected(f"the request was forwarded {MAX_HOPS} times")
    return chain + b", "
