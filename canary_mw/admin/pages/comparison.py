"""Stable beside gray: the rows of the table of a release."""

from typing import NamedTuple

from markupsafe import Markup

from canary_mw.admin.models.figures import Interval, Measured, VariantFigures
from canary_mw.admin.models.releases import Release
from canary_mw.admin.pages import wording
from canary_mw.admin.pages.bars import Span, intervals
from canary_mw.admin.pages.charts import nice_ceiling

STABLE = "stable"
_NOTHING: Measured = {"value": None, "low": None, "high": None}
_NO_FIGURES: VariantFigures = {
    "services": [],
    "requests": 0,
    "rps": 0.0,
    "errors": 0,
    "error_rate": _NOTHING,
    "p50_ms": _NOTHING,
    "p95_ms": _NOTHING,
    "p99_ms": _NOTHING,
    "status": {},
}
_TIMES = (("p50", "p50_ms"), ("p95", "p95_ms"), ("p99", "p99_ms"))


class Cell(NamedTuple):
    """A figure of a variant, and what stands under it."""

    text: str
    under: str = ""


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        tone: "bad", "warn" or "good" where there is a difference; "none" else.
        bars: the intervals; None in a row without.
        top: the end of their scale, in words.
        label: the intervals in words.
    """

    name: str
    cells: list[Cell]
    difference: str
    tone: str
    bars: Markup | None
    height: int
    top: str
    label: str


def columns(release: Release) -> list[str]:
    """The names of the variants, stable first, then those of gray."""
    return list(dict.fromkeys((STABLE, *release["weights"], *release["variants"])))


def figures_of(release: Release) -> list[VariantFigures]:
    """The figures of the variants in this order; nothing was measured of one that got no request."""
    return [release["variants"].get(name, _NO_FIGURES) for name in columns(release)]


def titles(release: Release) -> list[str]:
    """The names as headings: one gray variant is called Gray."""
    _, *grays = columns(release)
    return ["Stable", *(["Gray"] if len(grays) == 1 else grays)]


def rows(release: Release) -> list[Row]:
    """Errors, quantiles and requests of all variants."""
    figures = figures_of(release)
    times = [_time_row(release, name, key, figures) for name, key in _TIMES]
    requests = [Cell(f"{wording.rate(each['rps'])} /s") for each in figures]
    return [errors_row(release), *times, Row("Requests", requests, "", "none", None, 0, "", "")]


def errors_row(release: Release) -> Row:
    """The shares of failed requests."""
    figures = figures_of(release)
    rates = [each["error_rate"] for each in figures]
    cells = [_share_of(each) for each in figures]
    found = release["difference"]
    difference, tone = _difference(found and found["error_rate"], 100.0, "points", "bad")
    return _row("Errors", cells, difference, tone, [_span(rate, 100.0) for rate in rates], "%")


def _share_of(figures: VariantFigures) -> Cell:
    rate = figures["error_rate"]["value"]
    if rate is None:
        return Cell(wording.NOTHING)
    return Cell(f"{wording.share(rate)} %", f"{figures['errors']:,} of {figures['requests']:,}")


def _time_row(release: Release, name: str, key: str, figures: list[VariantFigures]) -> Row:
    measured: list[Measured] = [each[key] for each in figures]  # type: ignore[literal-required]
    cells = [Cell(wording.milliseconds(each["value"])) for each in measured]
    found = release["difference"]
    interval: Interval | None = found and found[key]  # type: ignore[literal-required]
    difference, tone = _difference(interval, 1.0, "ms", "warn")
    return _row(name, cells, difference, tone, [_span(each, 1.0) for each in measured], "ms")


def _span(measured: Measured, factor: float) -> Span:
    low, value, high = measured["low"], measured["value"], measured["high"]
    return Span(*(None if each is None else each * factor for each in (low, value, high)))


def _row(name: str, cells: list[Cell], difference: str, tone: str, spans: list[Span], unit: str) -> Row:
    bounds = [bound for span in spans for bound in span if bound is not None]
    top = nice_ceiling(max(bounds, default=0.0))
    if unit == "%":
        top = min(top, 100.0)
    label = ", ".join(
        f"{'stable' if row == 0 else 'gray' if len(spans) == 2 else f'gray {row}'} {_bounds(span, unit)}"
        for row, span in enumerate(spans)
    )
    scale = f"{top:g} %" if unit == "%" else wording.milliseconds(top)
    return Row(name, cells, difference, tone, intervals(spans, top), 2 + 10 * len(spans), scale, f"{name}: {label}")


def _bounds(span: Span, unit: str) -> str:
    """The bounds of an interval with one unit, as "2.85 to 3.46 %"."""
    digits = 2 if unit == "%" else 0
    if span.low is None and span.high is None:
        return "not known"
    low = "0" if span.low is None else f"{span.low:.{digits}f}"
    return f"{low} to {span.high:.{digits}f} {unit}" if span.high is not None else f"from {low} {unit}"


def _difference(interval: Interval | None, factor: float, unit: str, tone: str) -> tuple[str, str]:
    """The difference in words, and its tone."""
    if interval is None or (interval["low"] is None and interval["high"] is None):
        return wording.NOTHING, "none"
    low = None if interval["low"] is None else interval["low"] * factor
    high = None if interval["high"] is None else interval["high"] * factor
    if low is not None and low > 0:
        return (
            f"+{_short(low)} to {_short(high)} {unit}" if high is not None else f"+{_short(low)} {unit} or more",
            tone,
        )
    if high is not None and high < 0:
        return (
            f"{_short(low)} to {_short(high)} {unit}" if low is not None else f"{_short(high)} {unit} or less",
            "good",
        )
    return "none seen", "none"


def _short(number: float | None) -> str:
    """With a true minus sign, and two digits that count."""
    assert number is not None
    size = abs(number)
    text = f"{size:.0f}" if size >= 9.95 else f"{size:.1f}" if size >= 0.095 else f"{size:.2g}"
    return f"−{text}" if number < 0 else text
