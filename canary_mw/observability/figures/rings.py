"""Rings of texts: the last requests of a sample, and the last reloads."""

from collections.abc import Iterator
from struct import Struct

_HEAD = Struct("<QII")
_TAIL = Struct("<Q")


def write_text(cells: memoryview, size: int, number: int, text: bytes) -> bool:
    """Write a text into its slot, between two marks: readers drop one whose marks differ.

    Args:
        cells: of the ring, in bytes.
        size: of a slot.
        number: of the text, from 1.

    Returns:
        False where the text is too long for a slot.
    """
    if len(text) > size - _HEAD.size - _TAIL.size:
        return False
    start = (number - 1) % (len(cells) // size) * size
    end = start + size - _TAIL.size
    _HEAD.pack_into(cells, start, 0, 0, 0)
    _TAIL.pack_into(cells, end, 0)
    cells[start + _HEAD.size : start + _HEAD.size + len(text)] = text
    _TAIL.pack_into(cells, end, number)
    _HEAD.pack_into(cells, start, number, len(text), 0)
    return True


def texts(cells: memoryview, size: int) -> Iterator[tuple[int, bytes]]:
    """The complete texts of a ring with their numbers."""
    for start in range(0, len(cells) - size + 1, size):
        number, length, _ = _HEAD.unpack_from(cells, start)
        (mark,) = _TAIL.unpack_from(cells, start + size - _TAIL.size)
        if number and number == mark and length <= size - _HEAD.size - _TAIL.size:
            yield number, bytes(cells[start + _HEAD.size : start + _HEAD.size + length])
