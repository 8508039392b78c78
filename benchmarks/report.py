"""What a row measured, as values and as text for the terminal and for markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from .bars import Bars
from .chart import Chart


@dataclass(frozen=True)
class Verdict:
    """One target and what was measured.

    Attributes:
        target: empty for a figure that has none.
        met: None when nothing was measured, or there is no target; `figure` says why.
    """

    what: str
    target: str
    figure: str
    met: bool | None

    @property
    def word(self) -> str:
        """For the reader."""
        if not self.target:
            return ""
        return {True: "met", False: "**missed**", None: "**not measured**"}[self.met]


@dataclass
class Section:
    """A row: its verdicts, the table behind them (first line: column names), notes and charts."""

    row: str
    title: str
    notes: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    table: list[Sequence[str]] = field(default_factory=list)
    charts: list[Chart | Bars] = field(default_factory=list)

    def at_most(self, what: str, values: Sequence[float], limit: float, unit: str, digits: int = 1) -> None:
        """Judge the median of values that should be small; no values: not measured."""
        met = median(values) <= limit if values else None
        self._judge(Verdict(what, f"<= {limit:g} {unit}".rstrip(), _figure(values, unit, digits), met))

    def at_least(self, what: str, values: Sequence[float], limit: float, unit: str, digits: int = 1) -> None:
        """Judge the median of values that should be large; no values: not measured."""
        met = median(values) >= limit if values else None
        self._judge(Verdict(what, f">= {limit:g} {unit}".rstrip(), _figure(values, unit, digits), met))

    def figure(self, what: str, values: Sequence[float], unit: str, digits: int = 1) -> None:
        """Tell what has no target."""
        self._judge(Verdict(what, "", _figure(values, unit, digits), None))

    def _judge(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        print(f"  {verdict.what}: {verdict.figure}", flush=True)

    @property
    def complete(self) -> bool:
        """Every target has a figure."""
        return all(verdict.met is not None for verdict in self.verdicts if verdict.target)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median with the smallest and the largest value, where there are several."""
    middle = f"{median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def _figure(values: Sequence[float], unit: str, digits: int) -> str:
    return f"{spread(values, digits)} {unit}".rstrip() if values else "see the notes of the row"


def verdict_lines(sections: Iterable[Section]) -> list[Sequence[str]]:
    """The table of targets."""
    lines: list[Sequence[str]] = [("row", "what", "target", "measured", "")]
    lines += [(s.row, v.what, v.target, v.figure, v.word) for s in sections for v in s.verdicts]
    return lines


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A table for the terminal, all but the first column to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned_line(line, widths) for line in lines)


def _aligned_line(line: Sequence[str], widths: Sequence[int]) -> str:
    figures = (f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
    return f"{line[0]:{widths[0]}}{''.join(figures)}"


def pipes(lines: Sequence[Sequence[str]]) -> str:
    """A table of markdown."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]])
