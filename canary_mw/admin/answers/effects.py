"""What a change of the rules did to the traffic: failures, and what gray got, before it and after it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from canary_mw.admin.releases.changes import lines_about
from canary_mw.admin.releases.views import ReleaseView
from canary_mw.observability.figures.values import Figures, History, ReloadRecord, SeriesKey, Snapshot, Window

# Seconds before a change and after it that are compared; where slots are a minute apart, two of them are needed.
_MOST = 300
_NO_HISTORY = History()


class Span(NamedTuple):
    """A time, in seconds since 1970."""

    begin: float
    end: float


class _Times(NamedTuple):
    """What is compared, and whether the second part ends now."""

    before: Span
    after: Span
    lasts: bool


def effect_of(
    figures: Figures, views: Sequence[ReleaseView], record: ReloadRecord, others: Sequence[float]
) -> str | None:
    """The effect of a change in words; None where too little is known of the time around it.

    Args:
        others: when the rules changed, this change included: what is compared ends at another change.
    """
    times = _times(figures, record.time, others)
    everything = _pair(figures, "", "", times)
    if everything is None:
        return None
    before, after = everything
    then = "since" if times.lasts else "after"
    first = f"Of all requests {_failed(before.counts)} failed in the {_length(before)} before"
    second = f"{_failed(after.counts)} in the {_length(after)} {then}."
    return " ".join((f"{first}, and {second}", *_shares(figures, views, record, times)))


def _shares(figures: Figures, views: Sequence[ReleaseView], record: ReloadRecord, times: _Times) -> Iterator[str]:
    """What gray got, of each release that the change names."""
    for view in views:
        if any(lines_about(record, view)):
            pairs = {name: _pair(figures, view.name, name, times) for name in view.weights}
            known = {name: pair for name, pair in pairs.items() if pair is not None}
            totals = [sum(pair[part].counts.requests for pair in known.values()) for part in (0, 1)]
            gray = [sum(known[name][part].counts.requests for name in view.gray if name in known) for part in (0, 1)]
            if all(totals):
                shares = [f"{100 * some / total:.1f} %" for some, total in zip(gray, totals, strict=True)]
                yield f"{view.name}: gray got {shares[0]} before, and {shares[1]} after it."


def _times(figures: Figures, time: float, others: Sequence[float]) -> _Times:
    begin = max((each for each in others if each < time), default=0.0)
    later = [each for each in others if each > time]
    after = Span(time, min(*later, time + _MOST, figures.now))
    return _Times(Span(max(begin, time - _MOST), time), after, not later and after.end == figures.now)


def _pair(figures: Figures, release: str, variant: str, times: _Times) -> tuple[Window, Window] | None:
    """What came before and after; None where one of them is not known, or nothing came at all."""
    history = figures.histories.get(SeriesKey(release, variant), _NO_HISTORY)
    slots: dict[float, Snapshot] = {
        float(tick): each for tick, each in (*history.coarse.items(), *history.fine.items())
    }
    if times.lasts:
        slots[figures.now] = history.now
    before, after = _between(slots, times.before), _between(slots, times.after)
    if before is None or after is None or not (release or (before.counts.requests and after.counts.requests)):
        return None
    return before, after


def _between(slots: dict[float, Snapshot], span: Span) -> Window | None:
    """What came within a time, as far as there are slots in it."""
    within = sorted(tick for tick in slots if span.begin <= tick <= span.end)
    if len(within) < 2:
        return None
    return Window(within[-1] - within[0], slots[within[-1]].minus(slots[within[0]]))


def _failed(counts: Snapshot) -> str:
    return f"{100 * counts.errors / counts.requests:.2f} %"


def _length(window: Window) -> str:
    seconds = round(window.seconds)
    return f"{seconds} seconds" if seconds < 120 else f"{round(seconds / 60)} minutes"
