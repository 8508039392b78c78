"""RELEASES: how long a release over 100 groups and a list of a million ids take to load, and what memory they hold."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .compare import Options
from .processes import ROOT, Failed, in_short, inherited
from .releasing import GROUPS, IDS, KINDS
from .report import Section, aligned, spread

TITLE = f"load of a release over {GROUPS} groups, and of {IDS:,} ids"
NOTES = f"""\
Each load is done by a fresh process, from one file: {GROUPS} groups of two Mappings, with weights, with a release in
their place, and with a list of ids in a file beside it. The first load of a release also loads the code for it. `RSS`
is what the process grew by. Longest stall: a loop that ticks every millisecond runs while another thread loads. Another
percent: it is changed in the file of a process that holds the rules already; of weights, in all Mappings. A decision:
the first ones of these rules, by a key in a header, which is in no list."""
# Where a figure is found, its digits after the point, and what divides it.
_FIGURES = {
    "cold load, s": ("load", 2, 1),
    "longest stall during a load, ms": ("stall", 0, 1),
    "RSS, MiB": ("resident", 1, 2**20),
    "another percent, s": ("change", 3, 1),
    "longest stall during it, ms": ("change_stall", 0, 1),
    "a decision, CPU us": ("decide", 2, 1),
}
_COLUMNS = {"weights": "weights", "release": "a release", "listed": f"and {IDS:,} ids"}
_PATIENCE = 120


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Failed: a load went wrong.
    """
    section = Section("RELEASES", TITLE, [NOTES])
    rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            rounds[kind].append(_load(kind, folder))
    section.table = [("", *_COLUMNS.values()), *_lines([rounds[kind] for kind in _COLUMNS])]
    print(aligned(section.table), flush=True)
    section.figure(
        f"a release over {GROUPS} groups over weights, load", _added(rounds, "release", "weights", "load"), "s", 2
    )
    memory = "release", "weights", "resident", 2**20
    section.figure(f"a release over {GROUPS} groups over weights, memory", _added(rounds, *memory), "MiB", 1)
    section.figure(f"{IDS:,} ids, load", _added(rounds, "listed", "release", "load"), "s", 2)
    section.figure(f"{IDS:,} ids, memory", _added(rounds, "listed", "release", "resident", 2**20), "MiB", 1)
    section.figure(f"{IDS:,} ids, longest stall", [each["stall"] for each in rounds["listed"]], "ms", 0)
    return section


def _load(kind: str, folder: Path) -> dict[str, Any]:
    with TemporaryDirectory(dir=folder) as own:
        command = [sys.executable, "-m", "benchmarks.releasing", kind, own]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=inherited(), check=False, timeout=_PATIENCE
        )
    if done.returncode:
        raise Failed(f"loading {kind} ended with status {done.returncode}: {in_short(Failed(done.stderr[-2000:]))}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _added(
    rounds: dict[str, list[dict[str, Any]]], above: str, below: str, name: str, divisor: float = 1
) -> Sequence[float]:
    return [(one[name] - other[name]) / divisor for one, other in zip(rounds[above], rounds[below], strict=True)]


def _lines(columns: Sequence[list[dict[str, Any]]]) -> list[Sequence[str]]:
    return [
        (what, *(spread([each[name] / divisor for each in rounds], digits) for rounds in columns))
        for what, (name, digits, divisor) in _FIGURES.items()
    ]
