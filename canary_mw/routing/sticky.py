"""The slot of a key: the first 64 bits of SHA-256 over salt, ":" and key, scaled to 1,000,000 slots."""

from collections.abc import Callable
from hashlib import sha256

from canary_mw.routing.foreign_hashes import foreign_slot
from canary_mw.rules.release import SLOTS, HashFunction

SlotOf = Callable[[bytes], int]


def slot_function(function: HashFunction) -> SlotOf:
    """The function that gives the slot of a key; what does not depend on the key is computed here."""
    if function.kind != "sha256":
        return foreign_slot(function)
    # The salt is hashed once.
    copy = sha256(function.name.encode() + b":", usedforsecurity=False).copy

    def slot(key: bytes) -> int:
        hashed = copy()
        hashed.update(key)
        return int.from_bytes(hashed.digest()[:8]) * SLOTS >> 64

    return slot


def salted(prefix: str, name: str) -> SlotOf:
    """The slots of a layer or a holdout, which are independent of those of the releases in it."""
    return slot_function(HashFunction("sha256", f"{prefix}.{name}"))
