"""A bounded sample of keys: the same keys give the same sample, in any order and in any number of processes."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

FAILED_CAP = 65_536
SEEN_CAP = 16_384


class Entry(NamedTuple):
    """What is known of a key.

    Attributes:
        epoch: number of the epoch in which it was first seen, or failed first.
        arm: 0 for stable, else the number of the gray variant that it got then.
        bits: flags of whoever keeps the sample.
        step: the last step in which that happened.
    """

    epoch: int
    arm: int
    bits: int = 0
    step: int = 0

    def merged(self, other: "Entry") -> "Entry":
        """The entry of one key of which two processes know; it does not matter which is asked."""
        first = min(self, other)
        return Entry(first.epoch, first.arm, self.bits | other.bits, max(self.step, other.step))


class KeySample:
    """Keys whose `level` low bits are 0. The level rises while they are more than `cap`.

    The variant of a key follows from other bits of its hash, so the sample holds as many gray keys in a hundred as all
    keys do.

    Args:
        cap: the most keys that are kept, at least 1.
    """

    __slots__ = ("_entries", "cap", "level")

    def __init__(self, cap: int = FAILED_CAP) -> None:
        self.cap = cap
        self.level = 0
        self._entries: dict[int, Entry] = {}

    def add(self, digest: int, entry: Entry) -> bool:
        """Add what happened to a key; returns whether the key is new and kept.

        Args:
            digest: 64 bits of the hash of the key.
        """
        if digest & ((1 << self.level) - 1):
            return False
        known = self._entries.get(digest)
        self._entries[digest] = entry if known is None else known.merged(entry)
        if len(self._entries) > self.cap:
            self._thin(self.level + 1)
        return known is None and digest in self._entries

    def update(self, other: "KeySample") -> None:
        """Add the keys of another process; what that process has thinned out is left out here, too."""
        self._thin(max(self.level, other.level))
        for digest, entry in other.items():
            self.add(digest, entry)

    def _thin(self, level: int) -> None:
        """Raise the level to at least `level`, and as far as the cap asks."""
        while level > self.level or len(self._entries) > self.cap:
            self.level += 1
            bit = 1 << (self.level - 1)
            self._entries = {digest: entry for digest, entry in self._entries.items() if not digest & bit}

    def items(self) -> Iterator[tuple[int, Entry]]:
        """The kept keys with their entries."""
        return iter(self._entries.items())

    def values(self) -> Iterator[Entry]:
        """The entries of the kept keys."""
        return iter(self._entries.values())

    def __contains__(self, digest: int) -> bool:
        return digest in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def estimate(self) -> int:
        """About how many keys there were; exact while nothing was thinned out."""
        return len(self._entries) << self.level


def union(samples: Iterable[KeySample], cap: int = FAILED_CAP) -> KeySample:
    """One sample of all keys of several processes."""
    result = KeySample(cap)
    for each in samples:
        result.update(each)
    return result
