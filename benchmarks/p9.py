"""P9: how long 10,000 and 100,000 Mappings take to load, what memory they hold, and what one changed rule costs."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .compare import Options
from .processes import ROOT, Failed, in_short, inherited
from .report import Section, aligned, spread

MAPPINGS, MORE = 10_000, 100_000
LIMIT_SECONDS, LIMIT_MEMORY = 4, 60
TITLE = f"cold load of {MAPPINGS:,} and {MORE:,} Mappings"
NOTES = """\
Each load is done by a fresh process, from a volume with 1,000 Mappings to a file. `RSS` is what the process grew by,
with the texts and caches that make the next reload cheap. The steps of a load are measured apart, one after the other.
Longest stall: a loop that ticks every millisecond runs while another thread loads; its longest pause is how long
requests wait at most. One rule changed, of all: in a process that holds them already."""
# Where a figure is found, its digits after the point, and what divides it.
_FIGURES = {
    "cold load, s": ("load", 2, 1),
    "reading YAML, s": ("read", 2, 1),
    "Mappings from it, s": ("interpret", 2, 1),
    "the table from them, s": ("build", 2, 1),
    "longest stall during a cold load, ms": ("stall", 0, 1),
    "RSS, MiB": ("resident", 0, 2**20),
    "a decision, CPU us": ("decide", 2, 1),
    "one rule changed, s": ("change", 2, 1),
    "reading only what changed, s": ("parse_again", 2, 1),
    "the table again, s": ("build_again", 2, 1),
    "longest stall during it, ms": ("change_stall", 0, 1),
}
_PATIENCE = 300


def run(options: Options, folder: Path) -> Section:
    """Measure; 100,000 of them once only.

    Raises:
        Failed: a load went wrong.
    """
    section = Section("P9", TITLE, [NOTES])
    rounds = [_load(MAPPINGS, folder) for _ in range(options.rounds)]
    section.at_most(f"cold load of {MAPPINGS:,}", _values(rounds, "load"), LIMIT_SECONDS, "s", 2)
    section.at_most(f"memory for {MAPPINGS:,}", _values(rounds, "resident", 2**20), LIMIT_MEMORY, "MiB", 0)
    section.figure(f"longest stall, one of {MAPPINGS:,} changed", _values(rounds, "change_stall"), "ms", 0)
    more = _more(folder, section)
    section.figure(f"cold load of {MORE:,}", _values(more, "load"), "s")
    section.figure(f"memory for {MORE:,}", _values(more, "resident", 2**20), "MiB", 0)
    head, columns = ("", f"{MAPPINGS:,} Mappings", f"{MORE:,} Mappings"), [rounds, more] if more else [rounds]
    section.table = [head[: 1 + len(columns)], *_lines(*columns)]
    print(aligned(section.table), flush=True)
    return section


def _more(folder: Path, section: Section) -> list[dict[str, Any]]:
    """Many Mappings, where time and memory of the machine are enough for them."""
    try:
        return [_load(MORE, folder)]
    except (Failed, subprocess.TimeoutExpired) as exc:
        section.notes.append(f"{MORE:,} Mappings are left out: {in_short(exc)}")
        return []


def _load(count: int, folder: Path) -> dict[str, Any]:
    with TemporaryDirectory(dir=folder) as own:
        command = [sys.executable, "-m", "benchmarks.loading", str(count), own]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=inherited(), check=False, timeout=_PATIENCE
        )
    if done.returncode:
        raise Failed(f"loading {count:,} Mappings ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _values(rounds: Sequence[dict[str, Any]], name: str, divisor: float = 1) -> list[float]:
    """A figure of all rounds; one that was measured several times in each comes with all of its values."""
    found: list[float] = []
    for each in rounds:
        value = each[name]
        found += [single / divisor for single in (value if isinstance(value, list) else [value])]
    return found


def _lines(*columns: Sequence[dict[str, Any]]) -> list[Sequence[str]]:
    return [
        (what, *(spread(_values(rounds, name, divisor), digits) for rounds in columns))
        for what, (name, digits, divisor) in _FIGURES.items()
    ]
