"""Lists of ids: who is always in a variant, and who never is."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

# Longer lists keep hashes: 8 bytes an id in place of about 76.
MAX_KEPT_IDS = 50_000
# The most ids of one list.
MAX_IDS = 1_000_000


class IdList:
    """An immutable set of ids, each as bytes.

    A list of more than `MAX_KEPT_IDS` keeps a sorted array of 64-bit hashes. One foreign id in 10^13 is then taken for
    one of a million ids.
    """

    __slots__ = ("_hashes", "_ids")

    def __init__(self, ids: Iterable[bytes] = ()) -> None:
        self._ids = frozenset(ids)
        self._hashes = array("Q")
        if len(self._ids) > MAX_KEPT_IDS:
            self._hashes = array("Q", sorted(map(_hash, self._ids)))
            self._ids = frozenset()

    def __contains__(self, key: bytes) -> bool:
        if not self._hashes:
            return key in self._ids
        hashed = _hash(key)
        position = bisect_left(self._hashes, hashed)
        return position < len(self._hashes) and self._hashes[position] == hashed

    def __len__(self) -> int:
        return len(self._ids) + len(self._hashes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdList) and (self._ids, self._hashes) == (other._ids, other._hashes)

    def __hash__(self) -> int:
        return hash((self._ids, len(self._hashes)))

    def __repr__(self) -> str:
        return f"<IdList of {len(self)}>"


def _hash(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest())


NO_IDS = IdList()
