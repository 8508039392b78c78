"""The histories of a worker: every 5 seconds its cumulative counts are copied into rings of 61 slots."""

from array import array
from collections.abc import Sequence

from canary_mw.observability.figures.layout import BLOCK_SLOT_CELLS, SLOT_CELLS, SLOTS, STEPS
from canary_mw.observability.figures.values import FINE

_MASK = (1 << 32) - 1


def write_history(cells: memoryview, tick: int, counts: Sequence[int], begin: int | None) -> None:
    """Write the slots of a series that are due.

    Args:
        cells: of its two rings, as 32-bit numbers.
        tick: a multiple of `FINE`, in seconds since 1970.
        counts: of `totals.snapshot_cells`.
        begin: a time at which it had counted nothing yet, None where that is not known or written already.
    """
    for ring, step in enumerate(STEPS):
        base = ring * SLOTS * SLOT_CELLS
        if begin is not None:
            write_slot(cells, base, SLOT_CELLS, step, begin // step * step, [0] * len(counts))
        if tick % step == 0:
            write_slot(cells, base, SLOT_CELLS, step, tick, counts)


def write_block(cells: memoryview, tick: int, counts: Sequence[int]) -> None:
    """Write the slot of up to `layout.BLOCK` counters."""
    write_slot(cells, 0, BLOCK_SLOT_CELLS, FINE, tick, counts)


def write_slot(cells: memoryview, base: int, size: int, step: int, tick: int, counts: Sequence[int]) -> None:
    """Write one slot between two marks of its time: readers drop one whose marks differ."""
    start = base + tick // step % SLOTS * size
    cells[start] = cells[start + size - 1] = 0
    cells[start + 1 : start + 1 + len(counts)] = array("I", [each & _MASK for each in counts])
    cells[start + size - 1] = tick
    cells[start] = tick


def slots(cells: memoryview, base: int, size: int) -> dict[int, memoryview]:
    """The complete slots of a ring, by their time; the cells are 32-bit numbers."""
    found = {}
    for start in range(base, base + SLOTS * size, size):
        tick = cells[start]
        if tick and tick == cells[start + size - 1]:
            found[tick] = cells[start + 1 : start + size - 1]
    return found
