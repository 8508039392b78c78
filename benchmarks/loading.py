"""`python -m benchmarks.loading COUNT FOLDER`: load so many Mappings in a process of its own, and print what it cost.

Loading is measured alone and then again while a loop ticks every millisecond: its longest pause shows for how
long at a time a reload keeps the interpreter to itself.
"""

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, thread_time_ns
from typing import Any

from canary_mw.config.parser import parse
from canary_mw.config.reader import read
from canary_mw.control.sources.file import FileSource
from canary_mw.control.store import RuleStore
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable

from . import rules
from .processes import Failed, resident
from .volume import Volume

_DECISIONS = 20_000
# Changes of one rule; fewer where each takes seconds.
_CHANGES = 4
_MANY = 50_000
_TICK = 0.001


def main(count: int, folder: Path) -> dict[str, Any]:
    """Seconds, bytes, milliseconds and microseconds, by what they are of."""
    volume = Volume(folder / "rules", count)
    store = _store(volume)
    before = resident([os.getpid()])
    found: dict[str, Any] = {"load": seconds(store.reload)}
    gc.collect()
    found["resident"] = resident([os.getpid()]) - before
    if len(store.table.mappings) != count:
        raise Failed(f"{len(store.table.mappings)} Mappings of {count} were loaded: {store.error}")
    found["decide"] = _decide(store.table, count)
    found["stall"], _ = asyncio.run(beside_ticks(_store(volume).reload))
    found["change"], found["change_stall"] = [], []
    for number in range(_CHANGES if count < _MANY else 1):
        volume.swap(volume.prepare(2 * number, "gray"))
        pause, took = asyncio.run(beside_ticks(store.reload))
        found["change"].append(took)
        found["change_stall"].append(pause)
    return found | _steps(volume)


def _store(volume: Volume) -> RuleStore:
    return RuleStore(FileSource(volume.root))


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = perf_counter()
    call()
    return perf_counter() - began


def _decide(table: RouteTable, count: int) -> float:
    """Microseconds of CPU per decision, the first time that these parts of the table are used."""
    heads = rules.heads(count, _DECISIONS)
    began = thread_time_ns()
    for head in heads:
        decide(table, head, 50.0)
    return (thread_time_ns() - began) / len(heads) / 1000


async def beside_ticks(call: Callable[[], object]) -> tuple[float, float]:
    """Longest pause of the loop in milliseconds, and seconds of the call, which runs in a thread."""
    thread = asyncio.create_task(asyncio.to_thread(seconds, call))
    longest, last = 0.0, perf_counter()
    while not thread.done():
        await asyncio.sleep(_TICK)
        now = perf_counter()
        longest, last = max(longest, now - last), now
    return longest * 1000, await thread


def _steps(volume: Volume) -> dict[str, float]:
    """Seconds of each step of a load from nothing, one after the other."""
    documents = FileSource(volume.root).load()
    steps = {"read": seconds(lambda: [read(document) for document in documents])}
    began = perf_counter()
    parsed = parse(documents)
    # Reading is a part of parsing.
    steps["interpret"] = perf_counter() - began - steps["read"]
    steps["build"] = seconds(lambda: RouteTable.build(parsed.mappings))
    began = perf_counter()
    again = parse(documents, previous=parsed)
    steps["parse_again"] = perf_counter() - began
    before = RouteTable.build(parsed.mappings)
    steps["build_again"] = seconds(lambda: before.rebuild(again.mappings))
    return steps


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), Path(sys.argv[2]))))
