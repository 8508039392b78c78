"""Lists of ids: who is always in a variant, and who never is."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from heapq import merge
from itertools import chain, islice

# Longer lists keep hashes: 8 bytes an id in place of about 76.
MAX_KEPT_IDS = 50_000
# Sorted at a time, so that no other thread waits long for the interpreter lock.
_CHUNK = 5_000


class IdList:
    """An immutable set of ids, each as bytes.

    A list of more than `MAX_KEPT_IDS` keeps a sorted array of 64-bit hashes. One foreign id in 10^13 is then taken for
    one of a million ids.
    """

    __slots__ = ("_hashes", "_ids")

    def __init__(self, ids: Iterable[bytes] = ()) -> None:
        rest = iter(ids)
        kept: set[bytes] = set()
        for each in rest:
            kept.add(each)
            if len(kept) > MAX_KEPT_IDS:
                break
        long = len(kept) > MAX_KEPT_IDS
        self._hashes = _sorted_hashes(chain(kept, rest)) if long else array("Q")
        self._ids: frozenset[bytes] = frozenset() if long else frozenset(kept)

    def __contains__(self, key: bytes) -> bool:
        if not self._hashes:
            return key in self._ids
        hashed = _hash(key)
        position = bisect_left(self._hashes, hashed)
        return position < len(self._hashes) and self._hashes[position] == hashed

    def __iter__(self) -> Iterator[bytes]:
        """The ids of a list that is short enough to keep them."""
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids) + len(self._hashes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdList) and (self._ids, self._hashes) == (other._ids, other._hashes)

    def __hash__(self) -> int:
        return hash((self._ids, len(self._hashes)))

    def __repr__(self) -> str:
        return f"<IdList of {len(self)}>"


def _hash(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8, usedforsecurity=False).digest())


def _sorted_hashes(ids: Iterator[bytes]) -> "array[int]":
    chunks = []
    while chunk := [_hash(each) for each in islice(ids, _CHUNK)]:
        chunk.sort()
        chunks.append(array("Q", chunk))
    return array("Q", _distinct(merge(*chunks)))


def _distinct(ordered: Iterable[int]) -> Iterator[int]:
    last = -1
    for each in ordered:
        if each != last:
            yield each
            last = each


NO_IDS = IdList()
