"""The answer about all releases, the most urgent first."""

from collections.abc import Sequence

from canary_mw.admin.answers.frame import answer_frame, iso, iso_or_none
from canary_mw.admin.answers.hits import last_request
from canary_mw.admin.models.figures import Totals, WindowName
from canary_mw.admin.models.releases import Event, Overview, Release
from canary_mw.admin.releases.changes import ReleaseChange, changes_of, weight_text
from canary_mw.admin.releases.counted import (
    SECONDS,
    differences,
    everything_in,
    hour_of,
    milliseconds,
    quantile_of,
    series,
    variant_figures,
    windows_of,
)
from canary_mw.admin.releases.urgency import needs_somebody, rank, why
from canary_mw.admin.releases.verdicts import judged
from canary_mw.admin.releases.views import ReleaseView, match_of, services_of, views_of
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures, RowKey, Window, counters_in
from canary_mw.rollout.sentence import STATES
from canary_mw.rules.release import STABLE

_WINDOWS: dict[WindowName, str] = {"1m": "minute", "5m": "5 minutes", "15m": "15 minutes", "1h": "hour"}


def overview_answer(subject: Subject, figures: Figures, window: WindowName) -> Overview:
    """All releases."""
    releases = [release_of(subject, figures, view, window) for view in views_of(subject)]
    subject.trails.keep({each["name"] for each in releases})
    releases.sort(key=rank)
    everything = everything_in(figures, window)
    return {
        **answer_frame(subject, figures),
        "window": {"name": window, "seconds": round(everything.seconds, 3)},
        "finding": _finding(releases),
        "summary": _summary(releases, window),
        "totals": _totals(figures, everything, releases),
        "releases": releases,
    }


def release_of(
    subject: Subject, figures: Figures, view: ReleaseView, window: WindowName, *, whole: bool = False
) -> Release:
    """A release.

    Args:
        whole: with its series also where nobody has to look at it.
    """
    windows, changes = windows_of(figures, view.name, view.weights, window), changes_of(figures, view)
    rollout = subject.rollout(view.name)
    if rollout is not None:
        subject.trails.look(view.name, rollout, figures.now)
    found = judged(subject, figures, view, windows, changes, rollout)
    verdicts = {name: each.verdict for name, each in found.items()}
    worst = min(verdicts, key=lambda name: STATES.index(verdicts[name]["state"]))
    gaps = {name: differences(windows[name].counts, windows[STABLE].counts) for name in view.gray}
    counts = {name: each.counts.requests for name, each in windows.items()}
    total = sum(counts.values())
    needs_you = needs_somebody(verdicts[worst]["state"], rollout)
    start = iso(hour_of(figures.now))
    return {
        "name": view.name,
        "document": view.compiled is not None,
        "match": match_of(view),
        "services": services_of(view),
        "weights": view.weights,
        "seen": {name: 100 * count / total for name, count in counts.items()} if total else {},
        "seen_percent": 100 * (total - counts[STABLE]) / total if total else None,
        "requests": total,
        "needs_you": needs_you,
        "rollout": rollout,
        "last_gray": iso_or_none(max(last_request(figures, view.name, name) for name in view.gray)),
        "verdict": verdicts[worst],
        "variants": {name: variant_figures(windows[name], view.services(name)) for name in view.weights},
        "difference": gaps[worst],
        "verdicts": verdicts,
        "differences": gaps,
        "series": series(subject, figures, view.name, view.weights, start) if needs_you or whole else None,
        "events": _events(view, changes, figures.now),
    }


def _events(view: ReleaseView, changes: Sequence[ReleaseChange], now: float) -> list[Event]:
    """What changed in the hour that the charts show, the oldest first."""
    found: list[Event] = []
    for change in reversed(changes):
        if change.time >= hour_of(now):
            weights = weight_text(view, change)
            kind = "weight" if weights else "rules"
            found.append({"at": iso(change.time), "kind": kind, "text": weights or change.text})
    return found


def _totals(figures: Figures, everything: Window, releases: Sequence[Release]) -> Totals:
    counts, slow = everything.counts, milliseconds(quantile_of(everything.counts, 0.95))
    gray = _gray_requests(figures, everything.seconds, releases)
    return {
        "requests": counts.requests,
        "rps": round(counts.requests / everything.seconds, 3) if everything.seconds else 0.0,
        "gray_share": min(gray / counts.requests, 1.0) if counts.requests else None,
        "errors": counts.errors,
        "error_rate": counts.errors / counts.requests if counts.requests else None,
        "p95_ms": slow["value"],
    }


def _gray_requests(figures: Figures, seconds: float, releases: Sequence[Release]) -> int:
    """Requests of gray variants: drawn ones, and for windows of up to 5 minutes also those that chose gray."""
    drawn = sum(each["variants"][name]["requests"] for each in releases for name in each["variants"] if name != STABLE)
    if seconds > SECONDS["5m"] + 5:
        return drawn
    names = {(each["name"], name) for each in releases for name in each["variants"] if name != STABLE}
    gained = counters_in(figures, seconds)[1]
    return max(drawn, sum(count for key, count in gained.items() if _is_gray(key, names)))


def _is_gray(key: object, names: set[tuple[str, str]]) -> bool:
    return isinstance(key, RowKey) and (key.release, key.variant) in names


def _finding(releases: Sequence[Release]) -> str:
    if not releases:
        return "There is no release."
    needing = [each for each in releases if each["needs_you"]]
    if not needing:
        return "No release needs you."
    reason = why(needing[0])
    if len(needing) == 1 or reason == "gray is failing":
        return f"{needing[0]['name']} needs you: {reason}."
    return f"{len(needing)} of {len(releases)} releases need a look."


def _summary(releases: Sequence[Release], window: WindowName) -> str:
    if not releases:
        return "Nothing is divided between a stable and a gray version."
    needing = sum(each["needs_you"] for each in releases)
    rest = len(releases) - needing
    look = f"{needing} of {len(releases)} {'release' if len(releases) == 1 else 'releases'}"
    text = f"{look} {'needs' if needing == 1 else 'need'} a look, {rest} {'does' if rest == 1 else 'do'} not."
    return f"{text} Compared over the last {_WINDOWS[window]}, stable beside gray in the same time."
