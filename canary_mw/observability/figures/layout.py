"""The format of a file of figures: a page of header cells, then records, each with a key and cells.

All numbers are little endian. A record is published by the length in the header, which grows after the record is
written: half a record is never read. Cells are unsigned 64-bit numbers, and slots of histories 32-bit ones.
"""

import json
import sys
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from canary_mw.observability.figures.buckets import COUNT
from canary_mw.observability.figures.values import CLASSES, COARSE, FAILURE_KINDS, FALLBACK_RESULTS, FINE

# Changes whenever older code cannot read the file. Rows of both formats are added up, evidence of the newer one alone.
FORMAT = 0x434D_5746_0000_0002
FORMATS = frozenset((FORMAT, FORMAT - 1))
PAGE = 4096
# Names of files: those that are complete, and the one that holds what ended workers have counted.
PREFIX = "figures-"
RETIRED = "figures.retired.2"
# That of the format before: its code still writes it while workers of both run.
OLD_RETIRED = "figures.retired"
LOCK = "figures.lock"
# The whole folder, and rows and counters of one worker.
MAX_BYTES = 32 << 20
# Of them, the file of ended workers; and what every worker may have.
MAX_RETIRED = MAX_BYTES // 4
MIN_BYTES = 1 << 20
MAX_ROWS = 4096
MAX_COUNTERS = 4096
MAX_GAUGES = 1024
MAX_LABEL = 200
# Bytes of a key.
MAX_KEY = 16_384


class Header(IntEnum):
    """Cells of the first page."""

    FORMAT = 0
    USED = 1
    ID = 2
    PID = 3
    START = 4
    HEARTBEAT = 5
    GENERATION = 6
    SINCE = 7
    CONTENT = 8
    CLEAN = 9
    STOPPED = 10
    IN_FLIGHT = 11
    # Whether some series has no history for want of room.
    FULL = 12


class Kind(IntEnum):
    """Kinds of records."""

    FILLER = 0
    ROW = 1
    COUNTER = 2
    HISTORY = 3
    COUNTER_HISTORY = 4
    RING = 5
    # Of the file of ended workers only.
    ENDED = 9
    # Evidence of releases; 6 to 8 were that of the format before.
    ARM = 10
    MEASURE = 11
    KEYS = 12
    TIMES = 13
    GRAY_KEYS = 14
    # Of workers that run only.
    GAUGE = 15
    # Evidence again.
    VALUES = 16


# Their keys are whole: readers take them apart.
EVIDENCE = frozenset((Kind.ARM, Kind.MEASURE, Kind.KEYS, Kind.TIMES, Kind.GRAY_KEYS, Kind.VALUES))


# Cells of a row.
CLASS_0 = 0
ERRORS = CLASS_0 + len(CLASSES)
MICROS = ERRORS + 1
FIRST_BYTE_MICROS = MICROS + 1
BYTES_IN = FIRST_BYTE_MICROS + 1
BYTES_OUT = BYTES_IN + 1
RETRIES = BYTES_OUT + 1
FALLBACK_0 = RETRIES + 1
FAILURE_0 = FALLBACK_0 + len(FALLBACK_RESULTS)
FAILURES_END = FAILURE_0 + len(FAILURE_KINDS)
BUCKET_0 = 32
ROW_CELLS = BUCKET_0 + COUNT

# Slots of a history, in 32-bit numbers: the time, requests, errors, rescued, four classes, buckets, the time again.
SLOTS = 61
SNAPSHOT_CELLS = 7 + COUNT
SLOT_CELLS = 1 + SNAPSHOT_CELLS + 2
STEPS = (FINE, COARSE)
HISTORY_CELLS = len(STEPS) * SLOTS * SLOT_CELLS
# The name of the series lies before its slots, so that another series can take its place.
HISTORY_KEY = 2048
# Counters and rows that share a record of their history; its slots are of `FINE`.
BLOCK = 62
BLOCK_SLOT_CELLS = BLOCK + 2
BLOCK_CELLS = SLOTS * BLOCK_SLOT_CELLS

_RECORD = Struct("<IHHII")
# Bytes of the head of a record.
HEAD = _RECORD.size
_KIND, _KIND_OFFSET = Struct("<H"), 4
assert sys.byteorder == "little"


class Record(NamedTuple):
    """A record of a file.

    Attributes:
        key: labels, as JSON has them.
        offset: of its cells in the file.
        cells: a view of them in bytes.
    """

    kind: int
    key: tuple[str, ...]
    offset: int
    cells: memoryview


def key_text(kind: int, key: tuple[str, ...]) -> bytes:
    """The bytes of a key; long labels of rows and counters are cut."""
    labels = key if kind in EVIDENCE else tuple(label[:MAX_LABEL] for label in key)
    return json.dumps(labels, separators=(",", ":")).encode()


def record_size(key: bytes, cells: int) -> int:
    """The bytes of a record with so many bytes of cells."""
    return _RECORD.size + _padded(len(key)) + _padded(cells)


def write_record(target: memoryview, kind: int, key: bytes, cells: int) -> memoryview:
    """Write the head of a record at the start of a view; returns its cells."""
    begin = _RECORD.size + _padded(len(key))
    _RECORD.pack_into(target, 0, record_size(key, cells), kind, len(key), begin, cells)
    target[_RECORD.size : _RECORD.size + len(key)] = key
    return target[begin : begin + cells]


def rewrite_record(target: memoryview, kind: int, key: bytes, cells: int) -> memoryview:
    """Write a record over a view that is marked as unused, as a reader may look at any moment; returns its cells.

    The mark is removed last. What is left of the view is marked as unused, unless it is too small for that.
    """
    size, begin = record_size(key, cells), _RECORD.size + _padded(len(key))
    if len(target) < size + _RECORD.size:
        size = len(target)
    write_filler(target[size:])
    target[_RECORD.size : size] = key + bytes(size - _RECORD.size - len(key))
    _RECORD.pack_into(target, 0, size, Kind.FILLER, len(key), begin, cells)
    _KIND.pack_into(target, _KIND_OFFSET, kind)
    return target[begin : begin + cells]


def mark_unused(record: memoryview) -> None:
    """Mark a record as unused."""
    _KIND.pack_into(record, _KIND_OFFSET, Kind.FILLER)


def write_filler(target: memoryview) -> None:
    """Mark a view as unused; it is at least as large as the head of a record, or empty."""
    if target:
        _RECORD.pack_into(target, 0, len(target), Kind.FILLER, 0, _RECORD.size, 0)


def records(content: memoryview) -> Iterator[Record]:
    """The records of the content of a file; ends at anything that is no record."""
    used = min(header_cells(content)[Header.USED], len(content))
    position = PAGE
    while position + _RECORD.size <= used:
        size, kind, key_length, begin, length = _RECORD.unpack_from(content, position)
        if size < _RECORD.size or size % 8 or position + size > used or begin + length > size:
            return
        if kind != Kind.FILLER:
            text = bytes(content[position + _RECORD.size : position + _RECORD.size + key_length])
            offset = position + begin
            yield Record(kind, tuple(json.loads(text)), offset, content[offset : offset + length])
        position += size


def header_cells(content: memoryview) -> memoryview:
    """The header cells of the content of a file."""
    return content[:PAGE].cast("Q")


def is_readable(content: memoryview) -> bool:
    """Whether this code can read the content of a file."""
    return len(content) >= PAGE and header_cells(content)[Header.FORMAT] in FORMATS


def _padded(size: int) -> int:
    return size + 7 & ~7
