"""What was measured so far, kept row by row in `results.json`, and the pages that are written from it.

A run of one row replaces that row and leaves the others as they were.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .bars import Bars, svg_of_bars
from .chart import Chart, svg
from .report import Section, Verdict, pipes, verdict_lines

BEGIN, END = "<!-- written by the benchmarks: begin -->", "<!-- written by the benchmarks: end -->"
METHOD = """\
CPU is user and system time of the proxy's process and its children (`/proc/PID/stat`) over the requests served; RSS is
their memory at the end. Unless a row says otherwise every server has one worker (nginx one process, Envoy
`--concurrency 1`, HAProxy `nbthread 1`), keeps connections to the upstream alive, writes no access log, sets
`X-Forwarded-For` and `X-Request-Id`, and replaces the matched prefix by `/`. All servers of a row run at the same time
and are loaded in turn, round by round; a figure is the median of the rounds, with the smallest and the largest after
it, and a ratio is taken within each round. Errors are answers other than 2xx and 3xx, timeouts and broken connections.
In-process figures are CPU time of the measuring thread: each round is the best of several batches."""


@dataclass(frozen=True)
class Run:
    """When, how and where a row was measured.

    Attributes:
        load: the machine's load average before.
    """

    date: str
    command: str
    load: float
    machine: str
    versions: str


Results = dict[str, tuple[Run, Section]]


def read(folder: Path) -> Results:
    """The rows measured so far; none where there is no file yet."""
    file = folder / "results.json"
    if not file.exists():
        return {}
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {each["section"]["row"]: (Run(**each["run"]), _section(each["section"])) for each in rows}


def _section(values: dict[str, Any]) -> Section:
    verdicts = [Verdict(**each) for each in values["verdicts"]]
    return Section(**{**values, "verdicts": verdicts, "charts": [_chart(each) for each in values["charts"]]})


def write(folder: Path, docs: Path, results: Results) -> None:
    """Write `results.json` and `RESULTS.md`, the charts, and the table in `performance.md` where that page is."""
    rows = [{"run": asdict(run), "section": asdict(section)} for run, section in results.values()]
    (folder / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (folder / "RESULTS.md").write_text(markdown(list(results.values())), encoding="utf-8")
    for _, section in results.values():
        for chart in section.charts:
            (docs / f"{chart.name}.svg").write_text(_picture(chart), encoding="utf-8")
    page = docs / "performance.md"
    if page.exists():
        text = page.read_text(encoding="utf-8")
        page.write_text(replaced(text, summary(results.values())), encoding="utf-8")


def replaced(text: str, figures: str) -> str:
    """The page with other figures between the two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has lost its marks {BEGIN} and {END}; put them back around the figures")
    return f"{before}{begin}\n\n{figures}\n\n{end}{after}"


def summary(results: Iterable[tuple[Run, Section]]) -> str:
    """All targets with their figures, and where they come from."""
    found = list(results)
    return f"{pipes(verdict_lines(section for _, section in found))}\n\n{_place(_latest(found))}"


def markdown(results: Sequence[tuple[Run, Section]]) -> str:
    """The text of `RESULTS.md`."""
    latest = _latest(results)
    parts = [
        "# Benchmarks\n\nWritten by `python -m benchmarks`, not by hand.\n",
        f"{_place(latest)}\n",
        f"{METHOD}\n",
        f"## Targets\n\n{pipes(verdict_lines(section for _, section in results))}\n",
        *(_part(run, section, latest) for run, section in results),
    ]
    return "\n".join(parts)


def _latest(results: Sequence[tuple[Run, Section]]) -> Run:
    return max((run for run, _ in results), key=lambda run: run.date)


def _place(run: Run) -> str:
    return f"Last measured {run.date} on {run.machine}, with {run.versions}."


def _part(run: Run, section: Section, latest: Run) -> str:
    table = f"\n{pipes(section.table)}\n" if section.table else ""
    notes = "".join(f"\n{note}\n" for note in section.notes)
    charts = "".join(f"\n![{chart.title}](../docs/{chart.name}.svg)\n" for chart in section.charts)
    # Each row may have been measured at another time, and elsewhere.
    other = "" if (run.machine, run.versions) == (latest.machine, latest.versions) else f" {_place(run)}"
    measured = f"\n`{run.command}`, {run.date}, load average before {run.load:.2f}.{other}\n"
    return f"## {section.row}: {section.title}\n{table}{charts}{notes}{measured}"


def _chart(values: dict[str, Any]) -> Chart | Bars:
    return Bars(**values) if "bars" in values else Chart(**values)


def _picture(chart: Chart | Bars) -> str:
    return svg_of_bars(chart) if isinstance(chart, Bars) else svg(chart)
