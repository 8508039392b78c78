"""`python -m benchmarks.releasing KIND FOLDER`: load a release in a process of its own, and print what it cost."""

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canary_mw.control.sources.file import FileSource
from canary_mw.control.store import RuleStore

from . import rules, sticky
from .loading import beside_ticks, seconds
from .p7 import microseconds
from .processes import Failed, resident

GROUPS, IDS = 100, 1_000_000
_DECISIONS = 20_000
_KEY = "sticky: {header: x-user-id}\n"


def main(kind: str, folder: Path) -> dict[str, Any]:
    """Seconds, bytes, milliseconds and microseconds, by what they are of."""
    path = folder / "rules.yaml"
    text = KINDS[kind](folder)
    path.write_text(text, encoding="utf-8")
    store = RuleStore(FileSource(path))
    before = resident([os.getpid()])
    found: dict[str, Any] = {"load": seconds(store.reload)}
    gc.collect()
    found["resident"] = resident([os.getpid()]) - before
    _check(store)
    heads = rules.heads(2 * GROUPS, _DECISIONS)
    for number, head in enumerate(heads):
        head.headers = [*head.headers, (b"x-user-id", b"user-%d" % number)]
    found["decide"] = microseconds(store.table, heads)
    # Another percent, as somebody saves it.
    path.write_text(text.replace("weight: 20", "weight: 30"), encoding="utf-8")
    found["change_stall"], found["change"] = asyncio.run(beside_ticks(store.reload))
    _check(store)
    other = RuleStore(FileSource(path))
    found["stall"], _ = asyncio.run(beside_ticks(other.reload))
    return found


def _check(store: RuleStore) -> None:
    if store.error or len(store.table.mappings) != 2 * GROUPS:
        raise Failed(f"{len(store.table.mappings)} Mappings were loaded: {store.error}")


def _weights(_folder: Path) -> str:
    return sticky.pairs(GROUPS, 20)


def _release(_folder: Path) -> str:
    return sticky.pairs(GROUPS, 0) + sticky.release(GROUPS, _KEY)


def _listed(folder: Path) -> str:
    ids = "".join(f"member-{number:08}\n" for number in range(IDS))
    (folder / "members.txt").write_text(ids, encoding="utf-8")
    return _release(folder) + "never: {file: members.txt}\n"


KINDS: dict[str, Callable[[Path], str]] = {"weights": _weights, "release": _release, "listed": _listed}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
