"""Adds up the figures of all workers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from canary_mw.observability.attempts import register
from canary_mw.observability.attempts.evidence_of import evidence_of
from canary_mw.observability.figures import layout
from canary_mw.observability.figures.files import file_id, folder_lock, retired_contents, worker_files
from canary_mw.observability.figures.layout import ROW_CELLS, Header, Kind
from canary_mw.observability.figures.retire import merged_ids, retire
from canary_mw.observability.figures.totals import (
    Part,
    SeriesSlots,
    all_series,
    snapshot_cells,
    snapshot_of,
    sum_cells,
    sum_counter_histories,
    sum_counters,
    sum_gauges,
    sum_rows,
)
from canary_mw.observability.figures.values import (
    CounterHistory,
    Figures,
    History,
    RecentRequest,
    ReloadRecord,
    Row,
    RowKey,
    SeriesKey,
    Worker,
)

_GAUGES = {"in_flight": Header.IN_FLIGHT}


def read(folder: int, now: float) -> Figures:
    """The figures of all workers that count in a folder; those that have ended are added up for good.

    Args:
        folder: the descriptor of the run folder; it stays the caller's.
        now: seconds since 1970.
    """
    retire(folder, now)
    with folder_lock(folder, exclusive=False):
        files, skipped = worker_files(folder)
        retired = retired_contents(folder)
        attempts = register.read(folder)
    known = merged_ids(retired)
    # A file that is added up already may not be removed yet.
    files = [each for each in files if file_id(each.content) not in known]
    alive = [Part(each.content) for each in files if each.alive]
    dead = [Part(each.content) for each in files if not each.alive]
    past = [Part(each) for each in retired]
    return figures_of(alive, dead, past, now, attempts, shared=True, skipped=tuple(skipped))


def read_private(
    content: memoryview | None,
    now: float,
    attempts: register.Attempts | None = None,
    restored: memoryview | None = None,
) -> Figures:
    """The figures of this process alone, given the content of its memory, and evidence of before a restart."""
    own, past = ([Part(each)] if each is not None else [] for each in (content, restored))
    return figures_of(own, [], past, now, attempts or {}, shared=False)


def figures_of(
    alive: list[Part],
    dead: list[Part],
    past: list[Part],
    now: float,
    attempts: register.Attempts,
    *,
    shared: bool,
    skipped: tuple[str, ...] = (),
) -> Figures:
    """Add up files.

    Args:
        alive, dead: of workers that run, and of those that ended.
        past: what ended workers have counted, added up.
        attempts: of releases.
    """
    parts = [*past, *dead, *alive]
    rows = sum_rows(parts)
    ended = [_ended(each.key) for part in past for each in part.others if each.kind == Kind.ENDED]
    ended += [_worker(part, ended=True) for part in dead]
    return Figures(
        now,
        {_row_key(key): row_of(cells) for key, cells in rows.items() if any(cells)},
        sum_counters(parts),
        {name: sum(part.header[cell] for part in alive) for name, cell in _GAUGES.items()},
        sum_gauges(alive),
        Histories(parts, all_series(rows), now),
        CounterHistory(_by_key(sum_counter_histories(parts, now), rows)),
        tuple(sorted(_worker(part) for part in alive)),
        tuple(sorted(ended, key=lambda worker: -worker.heartbeat)),
        tuple(_texts(parts, "recent", RecentRequest)),
        tuple(_texts(parts, "reloads", ReloadRecord)),
        evidence_of([part.others for part in parts], attempts),
        shared,
        skipped,
    )


def _row_key(labels: tuple[str, ...]) -> RowKey:
    release, mapping, service, variant, drawn = labels
    return RowKey(release, mapping, service, variant, bool(drawn))


def _by_key(slots: dict[int, dict[tuple[str, ...], int]], rows: Any) -> dict[int, dict[Any, int]]:
    return {
        tick: {_row_key(key) if key in rows else key: count for key, count in values.items()}
        for tick, values in slots.items()
    }


class Histories(Mapping[SeriesKey, History]):
    """The histories of all series, added up where they are looked at."""

    def __init__(self, parts: list[Part], series: list[tuple[str, ...]], now: float) -> None:
        self._parts = parts
        self._now = now
        self._known: dict[SeriesKey, History | None] = {SeriesKey(*each): None for each in series}

    def __getitem__(self, key: SeriesKey) -> History:
        known = self._known[key]
        if known is None:
            present = sum_cells(part.present(key) for part in self._parts) or snapshot_cells([0] * ROW_CELLS)
            slots = (SeriesSlots(self._parts, key, ring, self._now) for ring in (0, 1))
            known = self._known[key] = History(snapshot_of(present), *slots)
        return known

    def __iter__(self) -> Iterator[SeriesKey]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _worker(part: Part, *, ended: bool = False) -> Worker:
    cells = part.header
    end = ("stopped" if cells[Header.STOPPED] else "killed") if ended else ""
    return Worker(
        cells[Header.PID],
        cells[Header.START] / 1e6,
        cells[Header.HEARTBEAT] / 1e6,
        cells[Header.GENERATION],
        cells[Header.SINCE] / 1e6,
        f"{cells[Header.CONTENT]:016x}",
        bool(cells[Header.CLEAN]),
        end,
    )


def _ended(labels: tuple[str, ...]) -> Worker:
    _, pid, start, heartbeat, generation, since, content, clean, stopped = map(int, labels)
    end = "stopped" if stopped else "killed"
    return Worker(pid, start / 1e6, heartbeat / 1e6, generation, since / 1e6, f"{content:016x}", bool(clean), end)


def _texts(parts: list[Part], ring: str, kind: Any) -> list[Any]:
    """The values of a ring, the newest first."""
    found = []
    for text in (text for part in parts for text in part.texts.get(ring, ())):
        with suppress(ValueError, TypeError):
            time, *values = json.loads(text)
            found.append(kind(time, *(tuple(each) if isinstance(each, list) else each for each in values)))
    return sorted(found, key=lambda value: -value.time)


def row_of(cells: Sequence[int]) -> Row:
    """The value of the cells of a row."""
    return Row(
        tuple(cells[layout.CLASS_0 : layout.ERRORS]),
        cells[layout.ERRORS],
        cells[layout.MICROS] / 1e6,
        cells[layout.FIRST_BYTE_MICROS] / 1e6,
        cells[layout.BYTES_IN],
        cells[layout.BYTES_OUT],
        cells[layout.RETRIES],
        tuple(cells[layout.FALLBACK_0 : layout.FAILURE_0]),
        tuple(cells[layout.FAILURE_0 : layout.FAILURES_END]),
        tuple(cells[layout.BUCKET_0 : layout.ROW_CELLS]),
    )
