"""What one file of figures holds, and sums over several files."""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from operator import add

from canary_mw.observability.figures import layout
from canary_mw.observability.figures.history import slots
from canary_mw.observability.figures.layout import BUCKET_0, ROW_CELLS, SNAPSHOT_CELLS, Header, Kind, records
from canary_mw.observability.figures.rings import texts
from canary_mw.observability.figures.values import Snapshot
from canary_mw.observability.figures.writer import RINGS

Key = tuple[str, ...]
Cells = list[int]
_MODULUS = 1 << 32


class Part:
    """The content of one file.

    Attributes:
        content: the whole file.
        header: its first cells.
        start: when its worker began to count, in seconds since 1970.
        rows, counters, gauges: cells by key.
        histories: for each series its rings: the cells of its slots by their time.
        texts: of rings, by their name, the oldest first.
        others: all other records.
    """

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self.header = layout.header_cells(content)
        self.start = self.header[Header.START] / 1e6
        self.rows: dict[Key, memoryview] = {}
        self.counters: dict[Key, int] = {}
        self.gauges: dict[Key, int] = {}
        self.histories: dict[Key, tuple[dict[int, memoryview], ...]] = {}
        self.texts: dict[str, list[bytes]] = {}
        self.others: list[layout.Record] = []
        self._things: list[Key] = []
        self._blocks: dict[int, memoryview] = {}
        self._present: dict[Key, Cells] = {}
        for record in records(content):
            self._add(record)

    def _add(self, record: layout.Record) -> None:
        if record.kind == Kind.ROW:
            self.rows[record.key] = record.cells.cast("Q")
            self._things.append(record.key)
        elif record.kind == Kind.COUNTER:
            self.counters[record.key] = record.cells.cast("Q")[0]
            self._things.append(record.key)
        elif record.kind == Kind.GAUGE:
            self.gauges[record.key] = record.cells.cast("Q")[0]
        elif record.kind == Kind.HISTORY:
            self._add_history(record.cells)
        elif record.kind == Kind.COUNTER_HISTORY:
            self._blocks[int(record.key[0])] = record.cells.cast("I")
        elif record.kind == Kind.RING:
            self.texts[record.key[0]] = [text for _, text in sorted(texts(record.cells, RINGS[record.key[0]][1]))]
        else:
            self.others.append(record)

    def _add_history(self, cells: memoryview) -> None:
        key = series_key(cells)
        numbers = cells[layout.HISTORY_KEY :].cast("I")
        if key is not None:
            length = layout.SLOTS * layout.SLOT_CELLS
            rings = range(len(layout.STEPS))
            self.histories[key] = tuple(slots(numbers, ring * length, layout.SLOT_CELLS) for ring in rings)

    @cached_property
    def counter_history(self) -> dict[int, dict[Key, int]]:
        """Counters and the requests of rows, by time."""
        found: dict[int, dict[Key, int]] = {}
        present = self.counters | {key: requests_of(cells) for key, cells in self.rows.items()}
        for number, cells in self._blocks.items():
            named = self._things[number * layout.BLOCK : (number + 1) * layout.BLOCK]
            for tick, values in slots(cells, 0, layout.BLOCK_SLOT_CELLS).items():
                slot = found.setdefault(tick, {})
                slot.update((key, _widened(value, present[key])) for key, value in zip(named, values, strict=False))
        return found

    def present(self, series: Key) -> Cells:
        """What a slot of a series would hold now, but without a bound; see `snapshot_cells`."""
        if series not in self._present:
            rows = self._rows_of.get(series, ()) if series[0] else self.rows.values()
            self._present[series] = snapshot_cells(sum_cells(rows) or [0] * ROW_CELLS)
        return self._present[series]

    @cached_property
    def _rows_of(self) -> dict[Key, list[memoryview]]:
        found: dict[Key, list[memoryview]] = {}
        for key, cells in self.rows.items():
            if key[4]:
                found.setdefault((key[0], key[3]), []).append(cells)
        return found

    def at(self, series: Key, ring: int, tick: int, present: Cells) -> Cells:
        """What a series had counted at a time: that of the last slot before it.

        Before its first slot a series is taken as it was there; a worker that did not run had counted nothing.

        Args:
            present: of the series.
        """
        rings = self.histories.get(series)
        if tick <= self.start or (rings is None and not self.header[Header.FULL]):
            return [0] * SNAPSHOT_CELLS
        if rings is None or not rings[ring]:
            return present
        before = [each for each in rings[ring] if each <= tick]
        slot = rings[ring][max(before) if before else min(rings[ring])]
        return list(map(_widened, slot, present))


class SeriesSlots(Mapping[int, Snapshot]):
    """The slots of a series in several files, added up where they are looked at."""

    def __init__(self, parts: list[Part], series: Key, ring: int, now: float) -> None:
        self._parts = [(part, part.present(series)) for part in parts]
        self._series = series
        self._ring = ring
        found = {tick for part in parts if series in part.histories for tick in part.histories[series][ring]}
        self._ticks = sorted(tick for tick in found if tick <= now)[-layout.SLOTS :]
        self._known: dict[int, Snapshot] = {}

    def cells(self, tick: int) -> Cells:
        """As the item, in the order of a slot."""
        return sum_cells(part.at(self._series, self._ring, tick, present) for part, present in self._parts)

    def __getitem__(self, tick: int) -> Snapshot:
        if tick not in self._known:
            if tick not in self._ticks:
                raise KeyError(tick)
            self._known[tick] = snapshot_of(self.cells(tick))
        return self._known[tick]

    def __iter__(self) -> Iterator[int]:
        return iter(self._ticks)

    def __len__(self) -> int:
        return len(self._ticks)


def _widened(value: int, present: int) -> int:
    """The count of a slot, which has 32 bits, given that of the present."""
    return present - (present - value) % _MODULUS


def in_series(row: Key, series: Key) -> bool:
    """Whether the requests of a row belong to a series: all to the one without a name, drawn ones to their variant."""
    return not series[0] or (row[0] == series[0] and row[3] == series[1] and bool(row[4]))


def series_key(cells: memoryview) -> Key | None:
    """Whose history a record holds; None while that changes."""
    try:
        found = json.loads(bytes(cells[: layout.HISTORY_KEY]).rstrip(b"\0") or b"null")
    except ValueError:
        return None
    return tuple(found) if found else None


def requests_of(row: Iterable[int]) -> int:
    """The requests of a row."""
    return sum(list(row)[layout.CLASS_0 : layout.ERRORS])


def all_series(rows: Iterable[Key]) -> list[Key]:
    """The series of rows, first that of all requests."""
    return [("", ""), *dict.fromkeys((row[0], row[3]) for row in rows if row[0] and row[4])]


def snapshot_cells(row: Cells) -> Cells:
    """What a slot keeps of a row."""
    classes = row[layout.CLASS_0 : layout.ERRORS]
    return [sum(classes), row[layout.ERRORS], row[layout.FALLBACK_0], *classes[2:], *row[BUCKET_0:ROW_CELLS]]


def snapshot_of(cells: Cells) -> Snapshot:
    """The value of a slot."""
    requests, errors, rescued, two, three, four, five, *buckets = cells
    return Snapshot(requests, errors, rescued, (two, three, four, five), tuple(buckets))


def sum_cells(found: Iterable[Iterable[int]]) -> Cells:
    """Cells of several rows or files in sum."""
    total: Cells = []
    for cells in found:
        total = list(map(add, total, cells)) if total else list(cells)
    return total


def sum_rows(parts: Iterable[Part]) -> dict[Key, Cells]:
    """The rows of several files in sum."""
    total: dict[Key, Cells] = {}
    for part in parts:
        for key, cells in part.rows.items():
            total[key] = list(map(add, total[key], cells)) if key in total else list(cells)
    return total


def sum_counters(parts: Iterable[Part]) -> dict[Key, int]:
    """The counters of several files in sum."""
    total: dict[Key, int] = {}
    for part in parts:
        for key, count in part.counters.items():
            total[key] = total.get(key, 0) + count
    return total


def sum_gauges(parts: Iterable[Part]) -> dict[Key, int]:
    """The gauges of several files in sum."""
    total: dict[Key, int] = {}
    for part in parts:
        for key, value in part.gauges.items():
            total[key] = total.get(key, 0) + value
    return total


def sum_counter_histories(parts: Iterable[Part], now: float) -> dict[int, dict[Key, int]]:
    """Counters and rows of several files by time; each file counts with its last slot that is not later."""
    known = [(part, sorted(part.counter_history)) for part in parts]
    ticks = sorted({tick for _, each in known for tick in each if tick <= now})[-layout.SLOTS :]
    total: dict[int, dict[Key, int]] = {tick: {} for tick in ticks}
    for part, own in known:
        for tick in ticks:
            before = [each for each in own if each <= tick]
            slot = part.counter_history[before[-1] if before else own[0]] if own and tick > part.start else {}
            for key, count in slot.items():
                total[tick][key] = total[tick].get(key, 0) + count
    return total
