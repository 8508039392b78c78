"""Which slots a variant of a release owns: claims in a ring of 1,000,000 slots, in whole numbers only.

A variant starts at an edge of its own and takes the first free slots that it meets until it has its number. So a larger
weight only adds users to it, and a smaller one only removes some.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from canary_mw.rules.release import SLOTS, STABLE, ReleaseVariant

# Slots from `start` up to but without `end`.
Range = tuple[int, int]


class Collision(NamedTuple):
    """A walk that met slots of an earlier variant: `slots` of it lie elsewhere than they would without that one."""

    variant: str
    slots: int


class Claims:
    """The owner of every slot.

    Attributes:
        ranges: the slots of each variant, ordered; adjacent ones are one.
        weights: the number of slots of each variant.
        collisions: see `Collision`.
        bounds: the slots at which the owner changes, beginning with 0.
        owners: the owner from each bound on, `STABLE` for none.
    """

    __slots__ = ("bounds", "collisions", "owners", "ranges", "weights")

    def __init__(self, variants: Sequence[ReleaseVariant]) -> None:
        free: list[Range] = [(0, SLOTS)]
        self.ranges: dict[str, list[Range]] = {}
        self.weights = {variant.name: variant.slots or 0 for variant in variants}
        collisions = []
        for variant, start, down in _starts(variants):
            taken, skipped = _walk(free, start, self.weights[variant.name], down=down)
            free = _without(free, taken)
            self.ranges[variant.name] = _merged(taken)
            if skipped:
                collisions.append(Collision(variant.name, skipped))
        self.collisions = tuple(collisions)
        pieces = sorted((low, high, name) for name, spans in self.ranges.items() for low, high in spans)
        self.bounds, self.owners = _cut(pieces)

    def owner(self, slot: int) -> str:
        """The variant that owns a slot, or `STABLE`."""
        return self.owners[bisect_right(self.bounds, slot) - 1]

    def place_in_stable(self, slot: float) -> float:
        """Where a slot of stable lies among all of them, as a percent in [0, 100)."""
        before = total = 0.0
        for low, high, owner in zip(self.bounds, [*self.bounds[1:], SLOTS], self.owners, strict=True):
            if owner == STABLE:
                before += min(max(slot - low, 0), high - low)
                total += high - low
        return min(before * 100 / total, 99.999999) if total else 0.0


def _starts(variants: Sequence[ReleaseVariant]) -> Iterator[tuple[ReleaseVariant, int, bool]]:
    """Each variant with the edge where it starts, and whether it walks down."""
    number = 0
    for variant in variants:
        if variant.at is not None:
            yield variant, variant.at, variant.grows_down
        else:
            yield variant, edge(number // 2), bool(number % 2)
            number += 1


def edge(number: int) -> int:
    """0, 500000, 250000, 750000, 125000 ...: the van der Corput sequence in base 2, in slots."""
    value, step = 0, SLOTS // 2
    while number:
        value += step * (number & 1)
        number >>= 1
        step //= 2
    return value


def _walk(free: list[Range], start: int, wanted: int, *, down: bool) -> tuple[list[Range], int]:
    """The first free slots from an edge on, round the ring, and how many of them lie behind foreign ones."""
    taken: list[Range] = []
    got, position, direct = 0, start, 0
    for low, high in _from(free, start, down=down):
        if got >= wanted:
            break
        number = min(wanted - got, high - low)
        here = (high - number, high) if down else (low, low + number)
        near, far = (here[1], here[0]) if down else here
        if (near - position) % SLOTS == 0 and got == direct:
            direct += number
        position = far
        taken.append(here)
        got += number
    return taken, got - direct


def _from(free: list[Range], start: int, *, down: bool) -> Iterator[Range]:
    """The free ranges in the order in which a walk meets them."""
    above = [(max(low, start), high) for low, high in free if high > start]
    below = [(low, min(high, start)) for low, high in free if low < start]
    yield from (*reversed(below), *reversed(above)) if down else (*above, *below)


def _without(free: list[Range], taken: list[Range]) -> list[Range]:
    for low, high in taken:
        free = [
            piece
            for start, end in free
            for piece in ((start, min(end, low)), (max(start, high), end))
            if piece[0] < piece[1]
        ]
    return free


def _merged(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and merged[-1][1] == low:
            low = merged.pop()[0]
        merged.append((low, high))
    return merged


def _cut(pieces: list[tuple[int, int, str]]) -> tuple[list[int], list[str]]:
    bounds: list[int] = []
    owners: list[str] = []
    position = 0
    for low, high, name in pieces:
        if low > position or not bounds:
            bounds.append(position)
            owners.append(STABLE)
        if bounds[-1] == low:
            owners[-1] = name
        else:
            bounds.append(low)
            owners.append(name)
        position = high
    if position < SLOTS:
        bounds.append(position)
        owners.append(STABLE)
    return bounds, owners


def moved_slots(old: Claims, new: Claims) -> int:
    """The slots that change hands without cause: the old owner did not shrink, or the new one did not grow.

    What stable has does not count: it is the rest.
    """
    cuts = sorted({*old.bounds, *new.bounds, SLOTS})
    return sum(high - low for low, high in pairwise(cuts) if _moves(old, new, low))


def _moves(old: Claims, new: Claims, slot: int) -> bool:
    before, after = old.owner(slot), new.owner(slot)
    if before == after:
        return False
    kept = before != STABLE and new.weights.get(before, 0) >= old.weights[before]
    not_grown = after != STABLE and new.weights[after] <= old.weights.get(after, 0)
    return kept or not_grown


def mixed_slots(old: Claims, new: Claims) -> int:
    """The slots that change hands when the salt changes: the two tables are then independent of each other."""
    names = {*old.weights, *new.weights}
    same = sum(old.weights.get(name, 0) * new.weights.get(name, 0) for name in names)
    stable = (SLOTS - sum(old.weights.values())) * (SLOTS - sum(new.weights.values()))
    return SLOTS - (same + stable) // SLOTS
