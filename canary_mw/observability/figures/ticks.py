"""What a worker does with its figures every 5 seconds: heartbeat, histories, and the files of workers that ended."""

import json
from collections.abc import Callable
from time import time

from canary_mw.observability.figures import layout
from canary_mw.observability.figures.files import room_in
from canary_mw.observability.figures.history import write_block, write_history
from canary_mw.observability.figures.layout import Header, Kind
from canary_mw.observability.figures.retire import retire
from canary_mw.observability.figures.storage import Storage
from canary_mw.observability.figures.totals import (
    all_series,
    in_series,
    requests_of,
    snapshot_cells,
    sum_cells,
)
from canary_mw.observability.figures.values import FINE
from canary_mw.observability.figures.writer import FiguresWriter

# Series of one worker that have a history: 64 releases with two variants, and all requests.
MAX_SERIES = 129
# The part of the room for histories; the rest is for rows.
_HISTORY_SHARE = 0.6
_HISTORY_BYTES = layout.HISTORY_KEY + layout.HISTORY_CELLS * 4


class Ticks:
    """Writes the histories of a worker; one thread calls it.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, writer: FiguresWriter, clock: Callable[[], float] = time) -> None:
        self._writer = writer
        self._clock = clock
        self._storage: Storage | None = None
        self._last: int | None = None
        # Bytes for histories; without a folder, what the limit of the memory leaves.
        self._room = layout.MAX_BYTES
        self._records: dict[tuple[str, ...], memoryview] = {}
        self._requests: dict[tuple[str, ...], tuple[int, int]] = {}

    def tick(self) -> float:
        """Do what is due; returns the seconds until more is."""
        now = self._clock()
        tick = int(now) // FINE * FINE
        if tick != self._last and self._writer.storage is not None:
            self._writer.renew()
            self._adopt()
            folder = self._writer.open_folder()
            if folder is not None and self._writer.storage.name:
                retire(folder.descriptor, now)
                self._writer.storage.limit, self._room = room_in(folder.descriptor, self._writer.storage.name)
            self._write(tick, now)
            self._last = tick
        return tick + FINE - now

    def _adopt(self) -> None:
        """Forget what belongs to memory that is no longer in use: that of the parent, or of a file that was removed."""
        if self._storage is not self._writer.storage:
            moved = self._storage is not None
            self._storage = self._writer.storage
            self._records = {}
            if not moved and self._storage is not None:
                self._last = self._storage.header[Header.START] // 1_000_000 // FINE * FINE

    def _write(self, tick: int, now: float) -> None:
        writer = self._writer
        writer.header(Header.HEARTBEAT, int(now * 1e6))
        with writer.lock:
            rows = {key: cells.cast("Q") for key, cells in writer.views(Kind.ROW).items()}
        for series in all_series(rows):
            counts = snapshot_cells(sum_cells(cells for key, cells in rows.items() if in_series(key, series)))
            known = series in self._records
            cells = self._record(series, tick, counts[0])
            if cells is not None:
                write_history(cells[layout.HISTORY_KEY :].cast("I"), tick, counts, None if known else self._last)
        with writer.lock:
            values = [cells[0] if len(cells) == 1 else requests_of(cells) for _, cells in writer.series()]
        for start in range(0, len(values), layout.BLOCK):
            with writer.lock:
                block = writer.record(Kind.COUNTER_HISTORY, (str(start // layout.BLOCK),), layout.BLOCK_CELLS * 4)
            if block is not None:
                write_block(block.cast("I"), tick, values[start : start + layout.BLOCK])

    def _record(self, series: tuple[str, ...], tick: int, requests: int) -> memoryview | None:
        """The record of a series: its own, a new one, or that of the one which is idle for the longest time."""
        seen = self._requests.get(series)
        if seen is None or seen[0] != requests:
            self._requests[series] = requests, tick
        if series not in self._records:
            cells = self._new_record(len(self._records))
            if cells is None:
                cells = self._take_record(series)
            if cells is not None:
                text = json.dumps([label[: layout.MAX_LABEL] for label in series]).encode()
                cells[: len(text)] = text
                self._records[series] = cells
        return self._records.get(series)

    def _new_record(self, number: int) -> memoryview | None:
        writer = self._writer
        storage = writer.storage
        if storage is None or number >= MAX_SERIES or storage.size > storage.limit * _HISTORY_SHARE:
            return None
        if self._room < _HISTORY_BYTES:
            return None
        self._room -= _HISTORY_BYTES
        with writer.lock:
            return writer.record(Kind.HISTORY, (str(number),), _HISTORY_BYTES)

    def _take_record(self, series: tuple[str, ...]) -> memoryview | None:
        self._writer.header(Header.FULL, 1)
        idle = min(self._records, key=lambda each: (not each[0], self._requests[each][1]), default=None)
        if idle is None or not idle[0] or self._requests[idle][1] >= self._requests[series][1]:
            return None
        cells = self._records.pop(idle)
        cells[:] = bytes(len(cells))
        return cells
