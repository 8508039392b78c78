"""The cells of evidence in a file of figures: arms, samples of keys, and times of the first answers."""

from enum import IntEnum
from struct import Struct
from zlib import crc32

from canary_mw.observability.figures.layout import key_text

Key = tuple[str, ...]


class Arm(IntEnum):
    """Cells of an arm: a variant in an epoch of an attempt. Its key is release, attempt, weights, variant.

    A repeat is a request of a key that had failed, or had been slow, before. Requests without a key never repeat; their
    first failures are counted here, and those of keys follow from the samples of all workers.
    """

    REQUESTS = 0
    ERRORS = 1
    REPEATS = 2
    JUDGED = 3
    SLOW_REPEATS = 4
    FAILED = 6
    SLOW = 7
    BEGIN = 9


ARM_CELLS = 10
# Kinds of entries of a sample: the first failure of a key, and its first slow answer by each threshold.
FAILED = 0
SLOW = 1

# A chunk of a sample: its level, and its number of entries; then digest, arm and kind of each. Its key is release,
# attempt and the number of the chunk.
CHUNK = Struct("<QQ")
ENTRY = Struct("<QII")
# Times: their number, then as many 32-bit microseconds. The key is release and attempt.
TIMES = 2000


def arm_id(key: Key) -> int:
    """What entries of a sample know an arm by."""
    return crc32(key_text(key))


def entries(cells: memoryview) -> tuple[int, list[tuple[int, int, int]]]:
    """The level of a chunk, and its entries."""
    level, count = CHUNK.unpack_from(cells)
    end = min(CHUNK.size + count * ENTRY.size, len(cells) - (len(cells) - CHUNK.size) % ENTRY.size)
    return level, list(ENTRY.iter_unpack(cells[CHUNK.size : end]))


def times(cells: memoryview) -> list[float]:
    """The seconds that are kept."""
    count = min(cells[:8].cast("Q")[0], TIMES)
    return [micros / 1e6 for micros in cells[8 : 8 + 4 * count].cast("I")]
