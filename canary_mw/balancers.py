"""Which of several endpoints gets a request: policies, hash keys and hash tables, as in Envoy's load balancers.

Hashes are the same in every process and Python version, so that all of them send a key to the same endpoint. The tables
do not depend on the order in which endpoints are named.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from .health import HealthCheck, OutlierDetection

if TYPE_CHECKING:
    from .messages import RequestHead

Policy = Literal["round_robin", "least_request", "ring_hash", "maglev"]

# Two endpoints make Envoy's smallest ring, 1024; points that do not depend on the number of endpoints keep every key
# in its place when another one comes. Beyond 64 endpoints the ring stops growing.
_POINTS = 512
_RING = 32768
_POINTS_PER_DIGEST = 8
_EIGHT = Struct("<8Q")
# A prime: every step below it visits all places. Shares differ by about 1 % for 160 endpoints, and it is built in some
# 10 ms where Envoy's 65537 would hold up all requests for 60.
MAGLEV_SIZE = 16381
_REMEMBERED = 64


class Cookie(NamedTuple):
    """A cookie that keeps a client with its endpoint.

    Attributes:
        path: for Set-Cookie, empty for none.
        ttl: seconds, 0 until the browser ends; None: read, but never issued.
    """

    name: bytes
    path: bytes = b""
    ttl: float | None = None


class LoadBalancing(NamedTuple):
    """`load_balancer`; the hashing policies use the first of cookie, header and source_ip that is set."""

    policy: Policy = "round_robin"
    cookie: Cookie | None = None
    header: bytes | None = None
    source_ip: bool = False


class Balancing(NamedTuple):
    """All that a Mapping says about the endpoints of its service; as in Envoy, other settings are another cluster."""

    load_balancer: LoadBalancing = LoadBalancing()
    outlier_detection: OutlierDetection | None = None
    health_checks: tuple[HealthCheck, ...] = ()


class Loaded(Protocol):
    """An endpoint, as far as a policy looks at it."""

    in_flight: int


class Table(NamedTuple):
    """Keys to endpoints: `owners` are indices, `bounds` the upper ends of a ring's arcs, or empty for Maglev."""

    bounds: "array[int]"
    owners: "array[int]"

    def owner(self, key: int) -> int:
        """The endpoint of a key of 64 bits."""
        if not self.bounds:
            return self.owners[key % len(self.owners)]
        place = bisect_right(self.bounds, key)
        return self.owners[place if place < len(self.owners) else 0]


def pick(
    policy: Policy,
    endpoints: Sequence[Loaded],
    table: Table | None,
    key: int | None,
    turn: int,
    random: Callable[[], float],
) -> int:
    """The index of the endpoint for one request.

    Args:
        endpoints: at least one.
        table: that of `table(policy, ...)` for these endpoints.
        key: what a hashing policy goes by; None spreads, as Envoy does.
        turn: counts the requests, for round_robin.
        random: in [0, 1).
    """
    count = len(endpoints)
    if policy == "round_robin" or count == 1:
        return turn % count
    if policy == "least_request":
        return _less_loaded(endpoints, random)
    if key is None or table is None:
        return int(random() * count)
    return table.owner(key)


def _less_loaded(endpoints: Sequence[Loaded], random: Callable[[], float]) -> int:
    """The better of two different ones (Envoy's `choice_count` 2): near the best, without a look at all of them."""
    count = len(endpoints)
    one = int(random() * count)
    other = int(random() * (count - 1))
    other += other >= one
    return other if endpoints[other].in_flight < endpoints[one].in_flight else one


@lru_cache(_REMEMBERED)
def table(policy: Policy, names: tuple[str, ...]) -> Table | None:
    """What a hashing policy looks keys up in, None for the others.

    Args:
        names: of the endpoints, all different; the same name is the same endpoint in every process.
    """
    if policy == "ring_hash":
        return _ring(names)
    return _maglev(names) if policy == "maglev" else None


def _ring(names: tuple[str, ...]) -> Table:
    """A ketama-like ring: each endpoint has many points, a key belongs to the first point above it."""
    count = min(_POINTS, max(_RING // len(names), 1))
    owner = {point: index for index, name in enumerate(names) for point in _points(name, count)}
    bounds = array("Q", sorted(owner))
    return Table(bounds, array("L", map(owner.__getitem__, bounds)))


def _points(name: str, count: int) -> list[int]:
    found: list[int] = []
    for number in range(-(-count // _POINTS_PER_DIGEST)):
        found += _EIGHT.unpack(blake2b(f"{name}_{number}".encode(), digest_size=_EIGHT.size).digest())
    return found[:count]


def _maglev(names: tuple[str, ...]) -> Table:
    """Eisenbud's population (Maglev, NSDI 2016, section 3.4): in turn each endpoint takes its next free place."""
    size = MAGLEV_SIZE
    owners = [-1] * size
    # Places and steps by name; turns by name too, whatever the order given.
    turns = [[index, *_walk(names[index])] for index in sorted(range(len(names)), key=names.__getitem__)]
    free = size
    while True:
        for turn in turns:
            index, place, step = turn
            while owners[place] >= 0:
                place = (place + step) % size
            owners[place] = index
            turn[1] = place
            free -= 1
            if not free:
                return Table(array("Q"), array("L", owners))


def _walk(name: str) -> tuple[int, int]:
    """Where an endpoint starts in the table, and its step: two hashes of its name."""
    digest = blake2b(name.encode(), digest_size=16, person=b"maglev").digest()
    start, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    return start % MAGLEV_SIZE, step % (MAGLEV_SIZE - 1) + 1


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
