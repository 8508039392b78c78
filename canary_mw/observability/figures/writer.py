"""The figures of one worker: rows, counters, rings and histories, in memory that readers of all workers add up."""

import atexit
import errno
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from time import time
from typing import Any
from weakref import WeakSet

from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.host import HostLogger
from canary_mw.locks import new_rlock
from canary_mw.observability.figures import layout
from canary_mw.observability.figures.files import room_in
from canary_mw.observability.figures.layout import Header, Kind
from canary_mw.observability.figures.rings import write_text
from canary_mw.observability.figures.storage import OpenedFolder, Storage
from canary_mw.observability.figures.values import OTHER, RowKey

logger = HostLogger(logging.getLogger("canary_mw.figures"))

OpenFolder = Callable[[], OpenedFolder | None]
_OTHER_ROW = (OTHER, OTHER, OTHER, OTHER, "")
# Slots of each ring, and their bytes.
RINGS = {"recent": (200, 512), "reloads": (50, 4096)}
# Bytes of a text of that ring, beside its marks.
MAX_RELOAD = RINGS["reloads"][1] - 32


def no_folder() -> OpenedFolder | None:
    """Figures of this process only."""
    return None


class FiguresWriter:
    """The figures of one process.

    Nothing is opened before the first count, so a process that only forks workers has no figures. A forked child begins
    with figures of its own. Where the folder cannot be written, private memory stands in, and a warning is logged.

    Args:
        open_folder: returns the run folder as it is now; None for private memory.

    Attributes:
        open_folder: may be set before the first count.
        lock: is held while figures change. Reentrant: garbage collection inside may end a coroutine, and thereby
            another request. A cell is changed by one statement without a call in it, so that this loses nothing.
        targets: what callers keep of the cells that `row` and `counter` return; emptied where these move.
        storage: None before the first count.
        allocating: whether cells are being allocated; what is counted in the midst of that counts among the others.
        resets: how often everything has begun anew, as in a forked child.
    """

    def __init__(self, open_folder: OpenFolder = no_folder) -> None:
        self.open_folder = open_folder
        self._warned = False
        self._state: dict[Header, int] = {}
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        """Begin anew, in this process."""
        self.lock = new_rlock()
        self.resets = getattr(self, "resets", 0) + 1
        self.targets: dict[Any, Any] = {}
        self.storage: Storage | None = None
        self._views: dict[tuple[int, tuple[str, ...]], memoryview] = {}
        self._amounts = dict.fromkeys(Kind, 0)
        self._texts = dict.fromkeys(RINGS, 0)
        self.allocating = False

    def reset_after_fork(self) -> None:
        """Give up what the parent has opened: its lock on the file must end with the parent."""
        if self.storage is not None:
            self.storage.close()
        self._reset()

    def open(self) -> Storage:
        """The memory of this process; call it with `lock` held."""
        ensure_forked_hooks()
        if self.storage is None:
            self.storage = self._new_storage()
            _note_end_at_exit()
            header = self.storage.header
            header[Header.PID], header[Header.START] = os.getpid(), int(time() * 1e6)
            header[Header.HEARTBEAT] = header[Header.START]
            for cell, value in self._state.items():
                header[cell] = value
        return self.storage

    def _new_storage(self) -> Storage:
        """Memory that has the row of all others: without that one nothing could be counted once there is no room."""
        try:
            folder = self.open_folder()
            storage = Storage(folder)
            if folder is not None:
                storage.limit = room_in(folder.descriptor, storage.name).file
            if self._add_other_row(storage):
                return storage
            storage.discard()
            error = os.strerror(errno.ENOSPC)
        except OSError as exc:
            error = str(exc)
        self.warn("figures of this process are not added to those of the other workers: %s", error)
        storage = Storage()
        self._add_other_row(storage)
        return storage

    def _add_other_row(self, storage: Storage) -> bool:
        cells = storage.allocate(Kind.ROW, _OTHER_ROW, layout.ROW_CELLS * 8)
        if cells is not None:
            self._views[Kind.ROW, _OTHER_ROW] = cells
            self._amounts[Kind.ROW] = 1
        return cells is not None

    def warn(self, text: str, *arguments: object) -> None:
        """Log a warning, once in this process."""
        if not self._warned:
            self._warned = True
            logger.warning(text, *arguments)

    def set_state(self, state: dict[Header, int]) -> None:
        """Set cells of the header that say which rules are in force; forked children begin with them."""
        with self.lock:
            self._state.update(state)
            if self.storage is not None:
                for cell, value in state.items():
                    self.storage.header[cell] = value

    def header(self, cell: Header, value: int) -> None:
        """Set a cell of the header, if anything was counted."""
        with self.lock:
            if self.storage is not None:
                self.storage.header[cell] = value

    def row(self, key: RowKey) -> memoryview:
        """The cells of a row, as 64-bit numbers; call it with `lock` held. Beyond the bound that of all others."""
        labels = (*key[:4], "1" if key.drawn else "")
        found = None
        if self._amounts[Kind.ROW] <= layout.MAX_ROWS or (Kind.ROW, labels) in self._views:
            found = self._view(Kind.ROW, labels, layout.ROW_CELLS * 8)
        return (found or self._views[Kind.ROW, _OTHER_ROW]).cast("Q")

    def counter(self, *key: str) -> memoryview:
        """The cell of a counter, as `row`."""
        found = None
        if self._amounts[Kind.COUNTER] < layout.MAX_COUNTERS or (Kind.COUNTER, key) in self._views:
            found = self._view(Kind.COUNTER, key, 8)
        elif len(key) > 1:
            found = self._view(Kind.COUNTER, (key[0], *[OTHER] * (len(key) - 1)), 8)
        return (found or memoryview(bytearray(8))).cast("Q")

    def add(self, *key: str, count: int = 1) -> None:
        """Add to a counter."""
        with self.lock:
            self.open()
            cell = self.counter(*key)
            cell[0] += count

    def set_counter(self, count: int, *key: str) -> None:
        """Set a counter that is counted elsewhere in this process; it never falls."""
        with self.lock:
            self.open()
            cell = self.counter(*key)
            cell[0] = max(cell[0], count)

    def set_gauges(self, values: Mapping[tuple[str, ...], int]) -> None:
        """Set gauges by name and labels; those that are not named are 0."""
        with self.lock:
            self.open()
            for key, cells in self.views(Kind.GAUGE).items():
                cells.cast("Q")[0] = values.get(key, 0)
            for key, value in values.items():
                if (Kind.GAUGE, key) not in self._views and self._amounts[Kind.GAUGE] < layout.MAX_GAUGES:
                    new = self._view(Kind.GAUGE, key, 8)
                    if new is not None:
                        new.cast("Q")[0] = value

    def text(self, ring: str, text: bytes) -> None:
        """Write a text into a ring; one that is too long is left out."""
        slots, size = RINGS[ring]
        with self.lock:
            self.open()
            cells = self._view(Kind.RING, (ring,), slots * size)
            if cells is not None and write_text(cells, size, self._texts[ring] + 1, text):
                self._texts[ring] += 1

    def record(self, kind: Kind, key: tuple[str, ...], size: int) -> memoryview | None:
        """The cells of any other record, in bytes; None where there is no room. Call it with `lock` held."""
        return self._view(kind, key, size)

    def release(self, is_over: Callable[[tuple[str, ...]], bool]) -> None:
        """Give up the records of evidence whose key is over; call it with `lock` held.

        Nobody may use their cells any more: what callers keep of cells is forgotten.
        """
        self.targets.clear()
        for kind, key in [each for each in self._views if each[0] in layout.EVIDENCE and is_over(each[1])]:
            del self._views[kind, key]
            self._amounts[Kind(kind)] -= 1
            if self.storage is not None:
                self.storage.release(kind, key)

    def views(self, kind: Kind) -> dict[tuple[str, ...], memoryview]:
        """All records of a kind, in their order in the file; call it with `lock` held."""
        return {key: cells for (each, key), cells in self._views.items() if each == kind}

    def series(self) -> list[tuple[tuple[str, ...], memoryview]]:
        """Rows and counters in the order in which the histories of counters have them, as 64-bit numbers."""
        kinds = Kind.ROW, Kind.COUNTER
        return [(key, cells.cast("Q")) for (kind, key), cells in self._views.items() if kind in kinds]

    def _view(self, kind: int, key: tuple[str, ...], size: int) -> memoryview | None:
        found = self._views.get((kind, key))
        # A collection of garbage in the midst of an allocation may end a request.
        if found is not None or self.allocating:
            return found
        assert self.storage is not None
        self.allocating = True
        try:
            found = self.storage.allocate(kind, key, size)
            if found is not None:
                self._views[kind, key] = found
                self._amounts[Kind(kind)] += 1
        finally:
            self.allocating = False
        if found is None:
            self.warn("there is no room for more figures (%s): what is new counts as others", self.storage.size)
        return found

    def renew(self) -> None:
        """Make the file again where somebody has removed it."""
        with self.lock:
            if self.storage is None or self.storage.exists():
                return
            with suppress(OSError):
                self._move(Storage(self.open_folder()))

    def _move(self, storage: Storage) -> None:
        old = self.storage
        assert old is not None
        views = {key: storage.allocate(*key, len(cells)) for key, cells in self._views.items()}
        if None in views.values():
            storage.discard()
            return
        for key, cells in self._views.items():
            views[key][:] = cells  # type: ignore[index]
        storage.header[Header.PID :] = old.header[Header.PID :]
        self.storage, self._views = storage, views  # type: ignore[assignment]
        self.targets.clear()
        old.close()

    def close(self) -> None:
        """The process stops counting; readers keep what it has counted."""
        with self.lock:
            storage, self.storage = self.storage, None
            if storage is not None:
                storage.header[Header.STOPPED] = 1
                storage.close()
            self._reset()


_writers: "WeakSet[FiguresWriter]" = WeakSet()


def _note_end() -> None:
    """The process ends by itself: nobody has killed it."""
    for each in list(_writers):
        each.header(Header.STOPPED, 1)


@cache
def _note_end_at_exit() -> None:
    atexit.register(_note_end)


def _after_fork() -> None:
    for each in list(_writers):
        each.reset_after_fork()


after_fork(_after_fork)
