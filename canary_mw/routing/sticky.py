"""The slot of a key: the first 64 bits of SHA-256 over salt, ":" and key, scaled to 1,000,000 slots.

The hash functions of feature flag products are here too, so that a release keeps the users that such a product has
chosen. Texts are hashed as UTF-8. Unleash's node client and flagd's for JavaScript hash other texts than ASCII
differently.
"""

from collections.abc import Callable
from hashlib import sha256
from importlib import import_module
from typing import cast

from canary_mw.rules.release import SLOTS, HashFunction

SlotOf = Callable[[bytes], int]


def slot_function(function: HashFunction) -> SlotOf:
    """The function that gives the slot of a key; what does not depend on the key is computed here."""
    foreign = foreign_slot_function(function)
    if foreign is not None:
        return foreign
    digest = digest_function(function)
    return lambda key: digest(key) * SLOTS >> 64


def digest_function(function: HashFunction) -> SlotOf:
    """The function that gives the first 64 bits of the hash of a key, also where another hash gives the slot."""
    # The salt is hashed once.
    copy = sha256(function.name.encode() + b":", usedforsecurity=False).copy

    def digest(key: bytes) -> int:
        hashed = copy()
        hashed.update(key)
        return int.from_bytes(hashed.digest()[:8])

    return digest


def foreign_slot_function(function: HashFunction) -> SlotOf | None:
    """The function that gives the slot of a key as another product does; None for ours."""
    return None if function.kind == "sha256" else _foreign_slot(function)


def salted(prefix: str, name: str) -> SlotOf:
    """The slots of a layer or a holdout, which are independent of those of the releases in it."""
    return slot_function(HashFunction("sha256", f"{prefix}.{name}"))


_MASK = 0xFFFFFFFF
_C1, _C2 = 0xCC9E2D51, 0x1B873593


def _murmur3_python(data: bytes) -> int:
    """MurmurHash3, x86, 32 bits, seed 0."""
    value, length = 0, len(data)
    for start in range(0, length & ~3, 4):
        value ^= _mixed(int.from_bytes(data[start : start + 4], "little"))
        value = (value << 13 | value >> 19) & _MASK
        value = (value * 5 + 0xE6546B64) & _MASK
    if length & 3:
        value ^= _mixed(int.from_bytes(data[length & ~3 :], "little"))
    value ^= length
    value = (value ^ value >> 16) * 0x85EBCA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK
    return value ^ value >> 16


def _mixed(block: int) -> int:
    block = block * _C1 & _MASK
    return (block << 15 | block >> 17) * _C2 & _MASK


def _find_murmur3() -> Callable[[bytes], int]:
    try:
        native = import_module("mmh3").hash
    except ImportError:
        return _murmur3_python
    return lambda data: cast(int, native(data, 0, signed=False))


def fnv1a(text: str) -> int:
    """FNV-1a of 32 bits over UTF-16 units, as JavaScript computes it."""
    value = 0x811C9DC5
    units = text.encode("utf-16-le", "surrogatepass")
    for start in range(0, len(units), 2):
        value = (value ^ (units[start] | units[start + 1] << 8)) * 0x01000193 & _MASK
    return value


def _foreign_slot(function: HashFunction) -> Callable[[bytes], int]:
    """The function that gives the slot of a key, for another kind than sha256."""
    name, murmur3 = function.name.encode(), _find_murmur3()
    if function.kind == "unleash":
        return lambda key: murmur3(name + b":" + key) % 100 * (SLOTS // 100)
    if function.kind == "growthbook":
        return lambda key: fnv1a(str(fnv1a(function.name + _text(key)))) % 10_000 * (SLOTS // 10_000)
    if function.kind == "flagd-v2":
        return lambda key: murmur3(name + key) * SLOTS >> 32
    return lambda key: murmur3(b"\x82" + cbor_text(name) + cbor_text(key)) * SLOTS >> 32


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def cbor_text(text: bytes) -> bytes:
    """A text as CBOR (RFC 8949, section 3.1)."""
    length = len(text)
    if length < 24:
        return bytes((0x60 | length,)) + text
    size = 1 if length < 1 << 8 else 2 if length < 1 << 16 else 4
    return bytes((0x78 + (size.bit_length() - 1),)) + length.to_bytes(size) + text
