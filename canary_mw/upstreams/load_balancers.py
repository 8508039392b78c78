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
from typing import NamedTuple, Protocol

from canary_mw.rules.upstream import LoadBalancerPolicy

# With two endpoints this is Envoy's smallest ring, 1024. The number of points of an endpoint does not depend on the
# number of endpoints, so that a new endpoint takes keys but moves none between the others; up to 64 endpoints.
_POINTS = 512
_RING = 32768
_POINTS_PER_DIGEST = 8
_EIGHT = Struct("<8Q")
# A prime: with every step below it, all entries are visited. Shares differ by about 1 % for 160 endpoints. The table is
# built in about 10 ms; Envoy's 65537 entries would block all requests for 60 ms.
MAGLEV_SIZE = 16381
_CACHED_TABLES = 64


class HasInFlight(Protocol):
    """The part of an endpoint that a policy uses."""

    in_flight: int


class HashTable(NamedTuple):
    """Keys to endpoints: `owners` are indices of endpoints, `bounds` the points of a ring, empty for Maglev."""

    bounds: "array[int]"
    owners: "array[int]"

    def owner(self, key: int) -> int:
        """The endpoint of a key of 64 bits."""
        if not self.bounds:
            return self.owners[key % len(self.owners)]
        index = bisect_right(self.bounds, key)
        return self.owners[index if index < len(self.owners) else 0]


def pick(
    policy: LoadBalancerPolicy,
    endpoints: Sequence[HasInFlight],
    table: HashTable | None,
    key: int | None,
    turn: int,
    random: Callable[[], float],
) -> int:
    """The index of the endpoint for one request.

    Args:
        endpoints: at least one.
        table: that of `hash_table` for these endpoints.
        key: the hash of a request for a hashing policy; without one a random endpoint is picked, as in Envoy.
        turn: counts the requests, for round_robin.
        random: in [0, 1).
    """
    count = len(endpoints)
    if policy == "round_robin" or count == 1:
        return turn % count
    if policy == "least_request":
        return _least_request(endpoints, random)
    if key is None or table is None:
        return int(random() * count)
    return table.owner(key)


def _least_request(endpoints: Sequence[HasInFlight], random: Callable[[], float]) -> int:
    """The less loaded of two random endpoints (Envoy's `choice_count` 2): near the best, in constant time."""
    count = len(endpoints)
    one = int(random() * count)
    other = int(random() * (count - 1))
    other += other >= one
    return other if endpoints[other].in_flight < endpoints[one].in_flight else one


@lru_cache(_CACHED_TABLES)
def hash_table(policy: LoadBalancerPolicy, names: tuple[str, ...]) -> HashTable | None:
    """The table of a hashing policy, None for other policies.

    Args:
        names: of the endpoints, all different; an endpoint has the same name in every process.
    """
    if policy == "ring_hash":
        return _ring(names)
    return _maglev(names) if policy == "maglev" else None


def _ring(names: tuple[str, ...]) -> HashTable:
    """A ring as in ketama: each endpoint has many points, a key belongs to the first point above it."""
    count = min(_POINTS, max(_RING // len(names), 1))
    owner = {point: index for index, name in enumerate(names) for point in _points(name, count)}
    bounds = array("Q", sorted(owner))
    return HashTable(bounds, array("L", map(owner.__getitem__, bounds)))


def _points(name: str, count: int) -> list[int]:
    found: list[int] = []
    for number in range(-(-count // _POINTS_PER_DIGEST)):
        found += _EIGHT.unpack(blake2b(f"{name}_{number}".encode(), digest_size=_EIGHT.size).digest())
    return found[:count]


def _maglev(names: tuple[str, ...]) -> HashTable:
    """Populate the table (Maglev, NSDI 2016, section 3.4): the endpoints take turns, each its next free entry."""
    size = MAGLEV_SIZE
    owners = [-1] * size
    # The endpoints take turns in the order of their names, so that the order given does not matter.
    turns = [[index, *_permutation(names[index])] for index in sorted(range(len(names)), key=names.__getitem__)]
    free = size
    while True:
        for turn in turns:
            index, entry, step = turn
            while owners[entry] >= 0:
                entry = (entry + step) % size
            owners[entry] = index
            turn[1] = entry
            free -= 1
            if not free:
                return HashTable(array("Q"), array("L", owners))


def _permutation(name: str) -> tuple[int, int]:
    """Offset and step of an endpoint in the table: two hashes of its name."""
    digest = blake2b(name.encode(), digest_size=16, person=b"maglev").digest()
    start, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    return start % MAGLEV_SIZE, step % (MAGLEV_SIZE - 1) + 1
