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

from canary_mw.rules.upstream import Policy

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


class HasInFlight(Protocol):
    """An endpoint, as far as a policy looks at it."""

    in_flight: int


class HashTable(NamedTuple):
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
    endpoints: Sequence[HasInFlight],
    table: HashTable | None,
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


def _less_loaded(endpoints: Sequence[HasInFlight], random: Callable[[], float]) -> int:
    """The better of two different ones (Envoy's `choice_count` 2): near the best, without a look at all of them."""
    count = len(endpoints)
    one = int(random() * count)
    other = int(random() * (count - 1))
    other += other >= one
    return other if endpoints[other].in_flight < endpoints[one].in_flight else one


@lru_cache(_REMEMBERED)
def hash_table(policy: Policy, names: tuple[str, ...]) -> HashTable | None:
    """What a hashing policy looks keys up in, None for the others.

    Args:
        names: of the endpoints, all different; the same name is the same endpoint in every process.
    """
    if policy == "ring_hash":
        return _ring(names)
    return _maglev(names) if policy == "maglev" else None


def _ring(names: tuple[str, ...]) -> HashTable:
    """A ketama-like ring: each endpoint has many points, a key belongs to the first point above it."""
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
                return HashTable(array("Q"), array("L", owners))


def _walk(name: str) -> tuple[int, int]:
    """Where an endpoint starts in the table, and its step: two hashes of its name."""
    digest = blake2b(name.encode(), digest_size=16, person=b"maglev").digest()
    start, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    return start % MAGLEV_SIZE, step % (MAGLEV_SIZE - 1) + 1
