"""The cells of evidence in a file of figures: arms, what happened in them, keys, and times of the first answers."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from struct import Struct

Key = tuple[str, ...]


class Arm(IntEnum):
    """Cells of an arm: a variant in an epoch of an attempt. Its key is release, attempt, weights, variant, step.

    `KEYLESS` are requests that are a key of their own, of releases with analysis. `NUMBER` is what entries of keys in
    the same file know the arm by.
    """

    REQUESTS = 0
    KEYLESS = 1
    BEGIN = 2
    NUMBER = 3


ARM_CELLS = len(Arm)


class Count(IntEnum):
    """Cells of a measure in an arm. Its key is that of the arm, and the name of the measure.

    A repeat is a request of a key to which it had happened before, in the attempt or in the step. Events are recorded
    while their request is under way, which then counts as a repeat: `FIRST` and `STEP_FIRST` are those requests.
    `KEYLESS` is how often it happened to requests that are a key of their own, where those are not kept as keys.
    """

    BAD = 0
    UNJUDGED = 1
    REPEATS = 2
    STEP_REPEATS = 3
    KEYLESS = 4
    FIRST = 5
    STEP_FIRST = 6
    # 0 as long as no request is judged; `UNJUDGED` are those up to then.
    BEGUN = 7


COUNT_CELLS = len(Count)

# A chunk of keys: its level, and its number of entries; then the entries. Its key is release, attempt, the name of the
# measure, 0 or 1, and the number of the chunk. Keys that stay where others are thinned out are written under the other
# of 0 and 1 before the old chunks are emptied, so that they are there at every moment.
#
# An entry is what happened to a key first in a step: its digest, `Arm.NUMBER` of the arm, 16 bits of a hash of the
# network of the client (0 where it is not known), and the second since 1970.
CHUNK = Struct("<QQ")
ENTRY = Struct("<QHHI")
# The name of the keys that were seen at all.
SEEN = "seen"
# Times: their number, then as many 32-bit microseconds. The key is release, attempt, and what was taken off gray's.
TIMES = 2000
# Values that an app has recorded: their number, then as many 64-bit thousandths, doubled, and 1 more for those of gray.
# The key is release, attempt, and the name with this before it.
VALUE = "value "
SCALE = 1000


def entries(cells: memoryview) -> tuple[int, Iterator[tuple[int, int, int, int]]]:
    """The level of a chunk, and its entries."""
    level, count = CHUNK.unpack_from(cells)
    end = min(CHUNK.size + count * ENTRY.size, len(cells) - (len(cells) - CHUNK.size) % ENTRY.size)
    return level, ENTRY.iter_unpack(cells[CHUNK.size : end])


def times(cells: memoryview) -> list[float]:
    """The seconds that are kept."""
    count = min(cells[:8].cast("Q")[0], TIMES)
    return [micros / 1e6 for micros in cells[8 : 8 + 4 * count].cast("I")]


def values(cells: memoryview) -> list[int]:
    """The values that are kept, as they are kept."""
    numbers = cells.cast("Q")
    return numbers[1 : 1 + min(numbers[0], TIMES)].tolist()


def of_both(kept: Sequence[int]) -> list[float]:
    """The values, if there are some of gray and some of stable: those of one side alone say nothing of the other."""
    return [(each >> 1) / SCALE for each in kept] if {each & 1 for each in kept} == {0, 1} else []


def first_values(kept: Sequence[int]) -> Sequence[int]:
    """As many as are kept; of both sides where there are such."""
    found = list(kept[:TIMES])
    other = next((each for each in kept[TIMES:] if found and all(each & 1 != one & 1 for one in found)), None)
    return found if other is None else [*found[:-1], other]


def gray_keys(cells: memoryview) -> list[int]:
    """The digests of the first keys of a step: their number, then as many.

    The key is release, attempt, step, variant, and how many there are room for.
    """
    numbers = cells.cast("Q")
    return numbers[1 : 1 + min(numbers[0], len(numbers) - 1)].tolist()
