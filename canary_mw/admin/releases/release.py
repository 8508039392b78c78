"""The answer about one release: the overview's part of it, and all else that is known."""

from canary_mw.admin.answers.frame import iso, listing_frame
from canary_mw.admin.answers.problems import excerpt
from canary_mw.admin.explaining.words import title_of
from canary_mw.admin.models.common import ExcerptLine
from canary_mw.admin.models.figures import VariantFigures, WindowName
from canary_mw.admin.models.release import (
    AnswersByStatus,
    Change,
    ClientsSaw,
    Failure,
    Quarter,
    Reason,
    ReleaseAnswer,
    RuleSource,
)
from canary_mw.admin.models.releases import Release
from canary_mw.admin.models.rollout import EvidenceOverTime
from canary_mw.admin.releases.changes import changes_of
from canary_mw.admin.releases.choice import choice_of
from canary_mw.admin.releases.counted import SECONDS, quarter_starts, quarter_window, variant_figures, windows_of
from canary_mw.admin.releases.overview import release_of
from canary_mw.admin.releases.views import ReleaseView
from canary_mw.admin.subject import Subject
from canary_mw.control.store import RuleStore
from canary_mw.observability.figures.values import Figures, Window, counters_in
from canary_mw.rollout.formatting import count as counted
from canary_mw.rules.release import STABLE

_FAILURES = {
    "connect": "no connection to SERVICE",
    "timeout": "no answer of SERVICE in time",
    "reset": "SERVICE ended the connection",
    "overload": "over a limit of SERVICE",
    "other": "another failure of SERVICE",
}
_DETAILS = {"missing": "no key was there", "audience": "the audience is narrower", "layer": "outside of its slice"}
# Lines of a document that are shown at most.
_MOST_LINES = 60


def release_answer(subject: Subject, figures: Figures, view: ReleaseView, window: WindowName) -> ReleaseAnswer:
    """One release."""
    release = release_of(subject, figures, view, window, whole=True)
    windows, changes = windows_of(figures, view.name, view.weights, window), changes_of(figures, view)
    frame = listing_frame(subject, figures)
    gained = counters_in(figures, SECONDS[window])[1]
    failures = _failures(view, gained)
    shown: list[Change] = [{"at": iso(each.time), "generation": each.generation, "text": each.text} for each in changes]
    return {
        **frame,
        **release,
        "window": {"name": window, "seconds": round(max(each.seconds for each in windows.values()), 3)},
        "evidence": _evidence(subject, release, figures.now),
        "quarters": [_quarter(figures, view, begin) for begin in quarter_starts(figures.now)],
        "reasons": _reasons(view, gained),
        "failures": failures,
        "clients_saw": _clients_saw(windows),
        "choice": choice_of(view, changes),
        "answers": _answers(release, failures),
        "rules": _sources(subject.store, view),
        "changes": shown,
        "live_on": frame["in_force"]["workers_on_it"],
        "live_since": iso(changes[0].time) if changes else frame["in_force"]["since"],
    }


def _evidence(subject: Subject, release: Release, now: float) -> list[EvidenceOverTime]:
    rollout = release["rollout"]
    shown = {} if rollout is None else subject.trails.look(release["name"], rollout, now)
    return [
        {
            "variant": metric.variant,
            "title": metric.title,
            "ln_needed": looks[-1].ln_needed,
            "at": [iso(each.time) for each in looks],
            "ln_e": [each.ln_e for each in looks],
        }
        for metric, looks in shown.items()
    ]


def _quarter(figures: Figures, view: ReleaseView, begin: int) -> Quarter:
    variants: dict[str, VariantFigures] = {
        name: variant_figures(quarter_window(figures, view.name, name, begin), view.services(name))
        for name in view.weights
    }
    return {"start": iso(begin), "variants": variants}


def _reasons(view: ReleaseView, gained: dict[object, int]) -> list[Reason]:
    """Why requests went where they did, the most frequent first; in at most the last 5 minutes."""
    found: dict[str, dict[str, int]] = {}
    for key, count in gained.items():
        if isinstance(key, tuple) and len(key) == 4 and key[:2] == ("assignments", view.name):
            found.setdefault(key[3], {})[key[2]] = count
    ordered = sorted(found.items(), key=lambda item: -sum(item[1].values()))
    return [
        {"reason": reason, "title": title_of(reason), "detail": _detail(view, reason), "requests": requests}
        for reason, requests in ordered
    ]


def _detail(view: ReleaseView, reason: str) -> str:
    document = view.compiled.document if view.compiled else None
    if document is None:
        return "each request is drawn by itself"
    if reason == "sticky":
        return ", ".join(map(str, document.sticky)) or document.cookie.name
    if reason == "new":
        return f"no key was there; cookie {document.cookie.name} is set"
    if reason.startswith("choice:"):
        kind = reason.partition(":")[2]
        name = getattr(document.choice, kind, None)
        return f"{kind} {name.decode()}" if isinstance(name, bytes) else kind
    return _DETAILS.get(reason, "")


def _failures(view: ReleaseView, gained: dict[object, int]) -> list[Failure]:
    """What fails in gray, the most frequent first; in at most the last 5 minutes."""
    found: list[Failure] = []
    for key, count in gained.items():
        if not (isinstance(key, tuple) and len(key) == 4 and key[:2] == ("gray_failures", view.name)):
            continue
        variant, kind = str(key[2]), str(key[3])
        service = " and ".join(view.services(variant)) or "the app"
        text = _FAILURES.get(kind, f"{kind} sent by SERVICE").replace("SERVICE", service)
        found.append({"variant": variant, "kind": kind, "text": text, "count": count})
    return sorted(found, key=lambda each: -each["count"])


def _clients_saw(windows: dict[str, Window]) -> ClientsSaw:
    gray = [each.counts for name, each in windows.items() if name != STABLE]
    failures, stepped_in = sum(each.errors for each in gray), sum(each.rescued for each in gray)
    seen = failures - stepped_in
    text = "Nothing failed in gray."
    if failures:
        text = f"Clients saw {counted(seen)} of these {counted(failures)}."
    if stepped_in:
        text += f" Stable answered the other {counted(stepped_in)}."
    return {"failures": failures, "stepped_in": stepped_in, "clients": seen, "text": text}


def _answers(release: Release, failures: list[Failure]) -> list[AnswersByStatus]:
    """Answers by class, and failures of gray that are a status of 500 or above."""
    variants = release["variants"]
    found: list[AnswersByStatus] = []
    for status in ("2xx", "3xx", "4xx", "5xx", "none"):
        requests = {name: each["status"].get(status, 0) for name, each in variants.items()}
        if any(requests.values()):
            note = {"4xx": "not counted as errors", "none": "the client left before"}.get(status, "")
            found.append({"status": status, "note": note, "requests": requests})
    statuses = [each for each in failures if each["kind"].isdigit()]
    return [*found, *map(_answers_of, statuses)]


def _answers_of(failure: Failure) -> AnswersByStatus:
    requests = {failure["variant"]: failure["count"]}
    return {"status": failure["kind"], "note": failure["text"], "requests": requests}


def _sources(store: RuleStore, view: ReleaseView) -> list[RuleSource]:
    """The documents of a release."""
    found: list[RuleSource] = []
    if view.compiled is not None:
        document = view.compiled.document
        found.append(_source(store, "GrayRelease", view.name, document.file, document.line))
    orders = {id(each): order for order, group in enumerate(store.table.groups, 1) for each in group.members}
    for variant, mappings in view.targets.items():
        for mapping in mappings:
            source = _source(store, "Mapping", mapping.name, mapping.file, mapping.line)
            found.append({**source, "variant": variant, "order": orders.get(id(mapping))})
    return found


def _source(store: RuleStore, kind: str, name: str, file: str, line: int) -> RuleSource:
    text = _text_of(store, file, line or None)
    return {
        "name": name,
        "kind": kind,
        "variant": None,
        "file": file,
        "line": line or None,
        "order": None,
        "excerpt": text,
    }


def _text_of(store: RuleStore, file: str, line: int | None) -> list[ExcerptLine]:
    """The lines of a document, from its first one."""
    lines = excerpt(store.rules, file, line, before=0, behind=_MOST_LINES)
    end = next((index for index, each in enumerate(lines) if index and each["text"].startswith("---")), len(lines))
    return [{**each, "marked": False} for each in lines[:end]]
