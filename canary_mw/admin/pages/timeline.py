"""The last hour of a release as charts."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from markupsafe import Markup

from canary_mw.admin.models.releases import Event, Release
from canary_mw.admin.pages import wording
from canary_mw.admin.pages.charts import Line, Values, chart, top_of
from canary_mw.admin.pages.comparison import columns


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
    factor = 1 / series["step_seconds"] if kind.key == "requests" else kind.factor
    names = [name for name in columns(release) if name in series]
    lines = [_line(series[name], kind, factor) for name in names]
    top = top_of(lines)
    uprights, changed = _uprights(release)
    titles = _titles(release, lines, kind)
    label = f"{kind.name}: {'; '.join(_range(row, line, kind) for row, line in enumerate(lines))}{changed}"
    return Figure(kind.title, kind.note, label, chart(lines, top, uprights, titles), _ys(top, kind.unit), _xs(release))


def _line(variant: dict[str, Values], kind: _Kind, factor: float) -> Line:
    def scaled(key: str) -> Values:
        return [None if value is None else value * factor for value in variant[key]]

    if not kind.band:
        return Line(scaled(kind.key))
    return Line(scaled(kind.key), scaled(f"{kind.band}_low"), scaled(f"{kind.band}_high"))


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


def _titles(release: Release, lines: list[Line], kind: _Kind) -> list[str]:
    """What a column says: its minute and the values, "13:41: stable 0.41 %, gray 3.10 %"."""
    series = release["series"]
    assert series is not None
    start, step = wording.moment(series["start"]), timedelta(seconds=series["step_seconds"])
    found = []
    for index in range(len(lines[0].values) if lines else 0):
        values = [
            f"{_who(row, len(lines))} {'none' if line.values[index] is None else _digits(line.values[index] or 0.0)}"
            for row, line in enumerate(lines)
        ]
        found.append(f"{start + index * step:%H:%M}: {', '.join(values)} {kind.unit}")
    return found


def _span(release: Release) -> tuple[float, float]:
    """When the series starts, and how long it is, in seconds."""
    series = release["series"]
    assert series is not None
    steps = len(series["stable"]["requests"]) if "stable" in series else 60
    return wording.moment(series["start"]).timestamp(), float(steps * series["step_seconds"])


def weight_changes(release: Release) -> list[Event]:
    """The changes of weights of the last hour."""
    return [each for each in release["events"] if each["kind"] == "weight"]


def _uprights(release: Release) -> tuple[list[float], str]:
    """Where the weights changed, and the same in words."""
    start, length = _span(release)
    events = weight_changes(release)
    places = [(wording.moment(each["at"]).timestamp() - start) / length for each in events]
    times = " and ".join(f"{wording.moment(each['at']):%H:%M}" for each in events)
    return places, f"; the weight changed at {times}" if times else ""


def _ys(top: float, unit: str) -> list[str]:
    if unit == "ms" and top >= 1000:
        return [f"{top / 1000:g} s", f"{top / 2000:g}", "0"]
    middle = f"{top / 2:g} %" if unit == "%" else f"{top / 2:g}"
    return [f"{top:g} {unit}" if unit in ("%", "ms") else f"{top:g}", middle, "0"]


def _xs(release: Release) -> list[str]:
    start, length = _span(release)
    quarters = (datetime.fromtimestamp(start + length * part / 4, UTC) for part in range(4))
    return [*(f"{each:%H:%M}" for each in quarters), "now"]
