"""Adds the counts of workers that have ended to the one file that holds them all, and removes their files."""

import json
from collections.abc import Iterable
from contextlib import suppress
from math import ceil

from canary_mw.observability.attempts import union as evidence
from canary_mw.observability.figures import layout
from canary_mw.observability.figures.files import (
    WorkerFile,
    file_id,
    folder_lock,
    remove,
    retired_content,
    retired_contents,
    worker_files,
    write_text_file,
)
from canary_mw.observability.figures.history import write_block, write_slot
from canary_mw.observability.figures.layout import Header, Kind
from canary_mw.observability.figures.rings import write_text
from canary_mw.observability.figures.storage import Storage
from canary_mw.observability.figures.totals import (
    Part,
    all_series,
    requests_of,
    sum_cells,
    sum_counter_histories,
    sum_counters,
    sum_rows,
)
from canary_mw.observability.figures.values import FINE
from canary_mw.observability.figures.writer import RINGS

# Workers of the past that are remembered.
MAX_ENDED = 16
_MAX_SERIES = 129


def retire(folder: int, now: float) -> None:
    """Add up the workers that have ended, unless somebody holds the lock of the folder.

    Args:
        now: seconds since 1970.
    """
    with folder_lock(folder, exclusive=True, patience=0.0) as locked:
        if not locked:
            return
        dead, _ = worker_files(folder, only_dead=True)
        if not dead:
            return
        retired = retired_content(folder)
        known = merged_ids(retired_contents(folder))
        new = [each for each in dead if file_id(each.content) not in known]
        if new:
            with suppress(OSError):
                write_text_file(folder, layout.RETIRED, merged(retired, new, now))
                known |= {file_id(each.content) for each in new}
        for each in dead:
            if file_id(each.content) in known:
                remove(folder, each.name)


def merged_ids(retired: Iterable[memoryview]) -> set[int]:
    """The files that are added up already."""
    found = (record for each in retired for record in layout.records(each) if record.kind == Kind.ENDED)
    return {int(record.key[0]) for record in found}


def merged(retired: memoryview | None, dead: list[WorkerFile], now: float) -> bytes:
    """The content of the file of ended workers, with more of them."""
    parts = [Part(each) for each in ([retired] if retired is not None else []) + [each.content for each in dead]]
    target = Storage()
    target.limit = layout.MAX_RETIRED
    _write_rows(target, parts)
    _write_histories(target, parts, now)
    _write_texts(target, parts)
    for kind, key, content in evidence.merged([part.others for part in parts]):
        cells = target.allocate(kind, key, len(content))
        if cells is not None:
            cells[:] = content
    _write_ended(target, parts, dead)
    return bytes(target.content())


def _write_rows(target: Storage, parts: list[Part]) -> None:
    things: list[tuple[layout.Kind, tuple[str, ...], list[int]]] = []
    things += [(Kind.ROW, key, cells) for key, cells in sum_rows(parts).items()]
    things += [(Kind.COUNTER, key, [count]) for key, count in sum_counters(parts).items()]
    for kind, key, values in things:
        cells = target.allocate(kind, key, len(values) * 8)
        if cells is not None:
            view = cells.cast("Q")
            for index, value in enumerate(values):
                view[index] = value


def _write_histories(target: Storage, parts: list[Part], now: float) -> None:
    """Write the slots of all series; the last one holds all, since nothing is added later."""
    for number, series in enumerate(all_series(key for part in parts for key in part.rows)):
        size = layout.HISTORY_KEY + layout.HISTORY_CELLS * 4
        cells = target.allocate(Kind.HISTORY, (str(number),), size) if number < _MAX_SERIES else None
        if cells is None:
            target.header[Header.FULL] = 1
            break
        text = json.dumps(series).encode()
        cells[: len(text)] = text
        _write_series(cells[layout.HISTORY_KEY :].cast("I"), parts, series, now)
    _write_blocks(target, parts, now)


def _write_series(cells: memoryview, parts: list[Part], series: tuple[str, ...], now: float) -> None:
    present = [(part, part.present(series)) for part in parts]
    for ring, step in enumerate(layout.STEPS):
        last = ceil(now / step) * step
        ticks = {tick for part in parts if series in part.histories for tick in part.histories[series][ring]}
        ticks |= {_without(part, ring, step) for part in parts if part.start and series not in part.histories}
        for tick in sorted(each for each in ticks if last - layout.SLOTS * step < each < last):
            counts = sum_cells(part.at(series, ring, tick, now) for part, now in present)
            write_slot(cells, ring * layout.SLOTS * layout.SLOT_CELLS, layout.SLOT_CELLS, step, tick, counts)
        counts = sum_cells(cells for _, cells in present)
        write_slot(cells, ring * layout.SLOTS * layout.SLOT_CELLS, layout.SLOT_CELLS, step, last, counts)


def _without(part: Part, ring: int, step: int) -> int:
    """When a worker had counted nothing of a series that has no slot of it: at its last slots, or at its start."""
    ticks = (tick for rings in part.histories.values() for tick in rings[ring])
    return max(ticks, default=int(part.start) // step * step)


def _write_blocks(target: Storage, parts: list[Part], now: float) -> None:
    last = ceil(now / FINE) * FINE
    rows, counters = sum_rows(parts), sum_counters(parts)
    present = {key: requests_of(cells) for key, cells in rows.items()} | counters
    past = sum_counter_histories(parts, now)
    things = list(present)
    for start in range(0, len(things), layout.BLOCK):
        cells = target.allocate(Kind.COUNTER_HISTORY, (str(start // layout.BLOCK),), layout.BLOCK_CELLS * 4)
        if cells is None:
            return
        named = things[start : start + layout.BLOCK]
        for tick, values in [*past.items(), (last, present)]:
            if last - layout.SLOTS * FINE < tick <= last:
                write_block(cells.cast("I"), tick, [values.get(key, 0) for key in named])


def _write_texts(target: Storage, parts: list[Part]) -> None:
    for name, (slots, size) in RINGS.items():
        found = [text for part in parts for text in part.texts.get(name, ())]
        # Each begins with its time.
        found = sorted(found, key=lambda text: float(json.loads(text)[0]))[-slots:]
        cells = target.allocate(Kind.RING, (name,), slots * size) if found else None
        for number, text in enumerate(found, 1):
            if cells is not None:
                write_text(cells, size, number, text)


def _write_ended(target: Storage, parts: list[Part], dead: list[WorkerFile]) -> None:
    ended = [each.key for part in parts for each in part.others if each.kind == Kind.ENDED]
    # What is restored is of no worker.
    for each in (each for each in dead if layout.header_cells(each.content)[Header.PID]):
        cells = layout.header_cells(each.content)
        names = Header.ID, Header.PID, Header.START, Header.HEARTBEAT, Header.GENERATION, Header.SINCE, Header.CONTENT
        numbers = [*(cells[name] for name in names), cells[Header.CLEAN], cells[Header.STOPPED]]
        ended.append(tuple(map(str, numbers)))
    # The files of those that were added up now are removed next; older ones are gone, or are removed with them.
    for key in ended[-max(MAX_ENDED, len(dead)) :]:
        target.allocate(Kind.ENDED, key, 0)
