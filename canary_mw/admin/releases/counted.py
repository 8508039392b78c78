"""The figures of a release in a window of time: rates, quantiles, differences and series, with their intervals."""

from collections.abc import Iterable
from functools import partial
from math import isfinite

from canary_mw.admin.models.figures import (
    Difference,
    Interval,
    Measured,
    Series,
    SeriesOfVariant,
    VariantFigures,
    WindowName,
)
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.buckets import BOUNDS
from canary_mw.observability.figures.values import (
    COARSE,
    FINE,
    Figures,
    History,
    SeriesKey,
    Snapshot,
    Window,
    window_of,
)
from canary_mw.rollout.intervals import Estimate, difference, quantile, wilson

SECONDS: dict[WindowName, float] = {"1m": 60.0, "5m": 300.0, "15m": 900.0, "1h": 3600.0}
_HOUR = 3600
_QUARTER = 900
_NONE: Measured = {"value": None, "low": None, "high": None}
_NO_HISTORY = History()


def history_of(figures: Figures, release: str, variant: str) -> History:
    """The past of a variant of a release."""
    return figures.histories.get(SeriesKey(release, variant), _NO_HISTORY)


def everything_in(figures: Figures, window: WindowName) -> Window:
    """All requests of a window."""
    return _window(figures, "", "", SECONDS[window])


def windows_of(figures: Figures, release: str, variants: Iterable[str], window: WindowName) -> dict[str, Window]:
    """What the variants of a release got in a window.

    A variant is counted since its first request. Before it there was none, so its time is that of all requests.
    """
    least, seconds = everything_in(figures, window).seconds, SECONDS[window]
    found = {name: _window(figures, release, name, seconds) for name in variants}
    return {name: each._replace(seconds=max(each.seconds, least)) for name, each in found.items()}


def _window(figures: Figures, release: str, variant: str, seconds: float) -> Window:
    history = history_of(figures, release, variant)
    if history.fine or history.coarse:
        return window_of(history, figures.now, seconds)
    begin = _begin(figures, release, variant)
    return Window(0.0, Snapshot()) if begin is None else Window(max(figures.now - begin, 0.0), history.now)


def _begin(figures: Figures, release: str, variant: str) -> float | None:
    """When a series had counted nothing that has no slots: they come within 5 seconds of the first request.

    None for one whose slots were taken by others. Of the time of its requests nothing is known.
    """
    slots = figures.counter_history.slots
    if not slots:
        start = min((each.start for each in figures.workers), default=0.0)
        return start if figures.now - start < 3 * FINE else None
    last = max(slots)
    mine = [key for key in figures.rows if not release or (key.release, key.variant) == (release, variant)]
    return None if any(slots[last].get(key, 0) for key in mine) else last


def quantile_of(counts: Snapshot, share: float) -> Estimate | None:
    """A quantile of the times of some requests, in seconds."""
    return quantile(counts.buckets, BOUNDS, share)


def milliseconds(estimate: Estimate | None) -> Measured:
    """A quantile as it is shown."""
    if estimate is None:
        return _NONE
    return {"value": _ms(estimate.value), "low": _ms(estimate.low), "high": _ms(estimate.high)}


def _ms(seconds: float) -> float | None:
    return round(seconds * 1000, 3) if isfinite(seconds) else None


def rate(errors: int, requests: int) -> Measured:
    """A rate of errors as it is shown; unknown without requests."""
    if not requests:
        return _NONE
    estimate = wilson(errors, requests)
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def variant_figures(window: Window, services: list[str]) -> VariantFigures:
    """The figures of a variant."""
    counts = window.counts
    return {
        "services": services,
        "requests": counts.requests,
        "rps": round(counts.requests / window.seconds, 3) if window.seconds else 0.0,
        "errors": counts.errors,
        "error_rate": rate(counts.errors, counts.requests),
        "p50_ms": milliseconds(quantile_of(counts, 0.5)),
        "p95_ms": milliseconds(quantile_of(counts, 0.95)),
        "p99_ms": milliseconds(quantile_of(counts, 0.99)),
        "status": _classes(counts),
    }


def _classes(counts: Snapshot) -> dict[str, int]:
    found = dict(zip(("2xx", "3xx", "4xx", "5xx"), counts.classes, strict=True))
    return {**found, "none": max(counts.requests - sum(counts.classes), 0)}


def differences(gray: Snapshot, stable: Snapshot) -> Difference | None:
    """The intervals of gray minus stable; None unless both have requests."""
    if not (gray.requests and stable.requests):
        return None
    rates = difference(wilson(gray.errors, gray.requests), wilson(stable.errors, stable.requests))
    return {
        "error_rate": {"low": rates.low, "high": rates.high},
        "p50_ms": _gap(gray, stable, 0.5),
        "p95_ms": _gap(gray, stable, 0.95),
        "p99_ms": _gap(gray, stable, 0.99),
    }


def _gap(gray: Snapshot, stable: Snapshot, share: float) -> Interval:
    one, other = quantile_of(gray, share), quantile_of(stable, share)
    if one is None or other is None:
        return {"low": None, "high": None}
    between = difference(one, other)
    return {"low": _ms(between.low), "high": _ms(between.high)}


def hour_of(now: float) -> int:
    """The beginning of the last hour, on the grid of minutes."""
    return int(now) // COARSE * COARSE - _HOUR


def series(subject: Subject, figures: Figures, release: str, variants: Iterable[str], start: str) -> Series:
    """The last hour by minute. It is worked out once a minute.

    Args:
        start: `hour_of` as text.
    """
    begin = hour_of(figures.now)
    ticks = range(begin, begin + _HOUR, COARSE)
    found: Series = {}
    for name in variants:
        history = history_of(figures, release, name)
        state = begin, max(history.coarse, default=0)
        found[name] = subject.remembered(("series", release, name), state, partial(_steps, history, ticks))
    return {**found, "start": start, "step_seconds": COARSE}


def _steps(history: History, ticks: Iterable[int]) -> SeriesOfVariant:
    counts = [between(history, tick, tick + COARSE) for tick in ticks]
    known = [each or Snapshot() for each in counts]
    rates = [rate(each.errors, each.requests) for each in known]
    slow = [milliseconds(quantile_of(each, 0.95)) for each in known]
    return {
        "requests": [each.requests for each in known],
        "errors": [each.errors for each in known],
        "error_rate": [each["value"] for each in rates],
        "error_low": [each["low"] for each in rates],
        "error_high": [each["high"] for each in rates],
        "p95_ms": [each["value"] for each in slow],
        "p95_low": [each["low"] for each in slow],
        "p95_high": [each["high"] for each in slow],
    }


def between(history: History, begin: int, end: int) -> Snapshot | None:
    """What came between two moments on the grid of minutes; None where one of them is not kept."""
    first, last = history.coarse.get(begin), history.coarse.get(end)
    return None if first is None or last is None else last.minus(first)


def quarter_starts(now: float) -> list[int]:
    """The beginnings of the quarters of an hour of the last hour, the oldest first."""
    last = int(now) // _QUARTER * _QUARTER
    return [last - number * _QUARTER for number in (3, 2, 1, 0)]


def quarter_window(figures: Figures, release: str, variant: str, begin: int) -> Window:
    """What a variant got in a quarter of an hour, as far as it is over and kept."""
    history = history_of(figures, release, variant)
    kept = sorted(tick for tick in history.coarse if begin <= tick <= begin + _QUARTER)
    if len(kept) < 2:
        return Window(0.0, Snapshot())
    return Window(float(kept[-1] - kept[0]), history.coarse[kept[-1]].minus(history.coarse[kept[0]]))
