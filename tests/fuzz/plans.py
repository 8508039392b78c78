"""How a target goes about its bytes: the first one says how (its four low bits), the second how the rest is cut."""

from collections.abc import Iterator
from typing import NamedTuple

ENDLESS = 300_000
SEGMENT = 4096
_STEPS = 64


class Plan(NamedTuple):
    """How a target goes about its bytes."""

    flags: int
    step: int
    data: bytes


def planned(data: bytes) -> Plan:
    """The two bytes in front, and the rest."""
    flags, step = data[0] & 15 if data else 0, data[1] % _STEPS if len(data) > 1 else 0
    return Plan(flags, step, data[2:])


def endless(data: bytes) -> Iterator[bytes]:
    """The data, and then its last line again and again."""
    yield data
    line = data[data.rfind(b"\n", 0, -1) + 1 :] or b"x"
    segment = line * (SEGMENT // len(line) + 1)
    for _ in range(ENDLESS // SEGMENT):
        yield segment
