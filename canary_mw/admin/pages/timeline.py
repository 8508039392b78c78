"""The last hour of a release as charts."""

from datetime import datetime, timedelta
from typing import NamedTuple

from markupsafe import Markup

from canary_mw.admin.models.releases import Event, Release
from canary_mw.admin.pages import wording
from canary_mw.admin.pages.charts import Line, Values, chart, top_of
from canary_mw.admin.pages.comparison import columns

# Columns of the shortest chart.
_FEWEST = 10


class Figure(NamedTuple):
    """A chart with what stands around it.

    Attributes:
        label: the chart as a sentence.
        note: what is measured.
        ys: three marks of the scale, from the top.
        xs: marks of time.
    """

    title: str
    note: str
    label: str
    svg: Markup
    ys: list[str]
    xs: list[str]


class _Kind(NamedTuple):
    title: str
    note: str
    name: str
    key: str
    factor: float
    unit: str
    band: str


_ERRORS = _Kind("Errors", "share of answers with 5xx, and of tries without an answer", "Errors in the last hour",
                "error_rate", 100.0, "%", "error")  # fmt: skip
_P95 = _Kind("p95", "95 of 100 answers were faster", "p95 in the last hour", "p95_ms", 1.0, "ms", "p95")
_REQUESTS = _Kind("Requests", "a second", "Requests a second in the last hour", "requests", 1.0, "a second", "")


def figures(release: Release, requests: bool = False) -> list[Figure]:
    """Errors and p95, and requests where they are asked for; nothing without a series."""
    if release["series"] is None:
        return []
    kinds = [_ERRORS, _P95, *([_REQUESTS] if requests else [])]
    return [_figure(release, kind) for kind in kinds]


def _figure(release: Release, kind: _Kind) -> Figure:
    series = release["series"]
    assert series is not None
    time = _time(release)
    factor = 1 / time.step if kind.key == "requests" else kind.factor
    lines = [_line(series[name], kind, factor, time.skipped) for name in columns(release) if name in series]
    top = top_of(lines)
    uprights, changed = _uprights(release, time)
    label = f"{kind.name}: {'; '.join(_range(row, line, kind) for row, line in enumerate(lines))}{changed}"
    svg = chart(lines, top, uprights, _titles(time, lines, kind))
    return Figure(kind.title, kind.note, label, svg, _ys(top, kind.unit), _xs(time))


def _line(variant: dict[str, Values], kind: _Kind, factor: float, skipped: int) -> Line:
    def scaled(key: str) -> Values:
        return [None if value is None else value * factor for value in variant[key][skipped:]]

    if not kind.band:
        return Line(scaled(kind.key))
    return Line(scaled(kind.key), scaled(f"{kind.band}_low"), scaled(f"{kind.band}_high"))


class _Time(NamedTuple):
    """The time that a chart shows.

    Attributes:
        step: length of a column in seconds.
        skipped: columns of the series before it, in which there was no request.
    """

    start: datetime
    step: float
    columns: int
    skipped: int

    def at(self, column: float) -> datetime:
        """When a column begins."""
        return self.start + timedelta(seconds=column * self.step)


def _time(release: Release) -> _Time:
    """The hour; of a server that started within it the time since then, and ten columns at least."""
    series = release["series"]
    assert series is not None
    counts = [series[name]["requests"] for name in columns(release) if name in series]
    length = max(map(len, counts), default=0)
    firsts = [next((at for at, count in enumerate(each) if count), length) for each in counts]
    skipped = max(min(min(firsts, default=0) - 1, length - _FEWEST), 0)
    step = series["step_seconds"]
    start = wording.moment(series["start"]) + timedelta(seconds=skipped * step)
    return _Time(start, step, length - skipped, skipped)


def _who(row: int, of: int) -> str:
    return "stable" if row == 0 else "gray" if of == 2 else f"gray {row}"


def _range(row: int, line: Line, kind: _Kind) -> str:
    values = [value for value in line.values if value is not None]
    who = "stable" if row == 0 else "gray" if row == 1 else f"gray {row}"
    if not values:
        return f"{who} has none"
    return f"{who} between {_digits(min(values))} and {_digits(max(values))} {kind.unit}"


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _titles(time: _Time, lines: list[Line], kind: _Kind) -> list[str]:
    """What a column says: its minute and the values, "13:41: stable 0.41, gray 3.10 %"."""
    found = []
    for index in range(time.columns if lines else 0):
        values = [
            f"{_who(row, len(lines))} {'none' if line.values[index] is None else _digits(line.values[index] or 0.0)}"
            for row, line in enumerate(lines)
        ]
        found.append(f"{time.at(index):%H:%M}: {', '.join(values)} {kind.unit}")
    return found


def weight_changes(release: Release) -> list[Event]:
    """The changes of weights of the last hour."""
    return [each for each in release["events"] if each["kind"] == "weight"]


def _uprights(release: Release, time: _Time) -> tuple[list[float], str]:
    """Where the weights changed, and the same in words."""
    length = max(time.columns, 1) * time.step
    events = weight_changes(release)
    places = [(wording.moment(each["at"]) - time.start).total_seconds() / length for each in events]
    times = " and ".join(f"{wording.moment(each['at']):%H:%M}" for each in events)
    return places, f"; the weight changed at {times}" if times else ""


def _ys(top: float, unit: str) -> list[str]:
    if unit == "ms" and top >= 1000:
        return [f"{top / 1000:g} s", f"{top / 2000:g}", "0"]
    middle = f"{top / 2:g} %" if unit == "%" else f"{top / 2:g}"
    return [f"{top:g} {unit}" if unit in ("%", "ms") else f"{top:g}", middle, "0"]


def _xs(time: _Time) -> list[str]:
    return [*(f"{time.at(time.columns * part / 4):%H:%M}" for part in range(4)), "now"]
