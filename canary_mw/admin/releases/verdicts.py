"""The verdict about each gray variant of a release, as a sentence."""

import json
from collections.abc import Mapping as Dict
from dataclasses import replace
from typing import NamedTuple

from canary_mw.admin.answers.frame import clock_time, iso_or_none
from canary_mw.admin.answers.hits import last_request
from canary_mw.admin.models.releases import Verdict
from canary_mw.admin.models.rollout import Rollout
from canary_mw.admin.releases.advice import advice
from canary_mw.admin.releases.changes import ReleaseChange, began_at
from canary_mw.admin.releases.counted import quantile_of
from canary_mw.admin.releases.views import ReleaseView
from canary_mw.admin.subject import Subject
from canary_mw.observability.evidence import Evidence
from canary_mw.observability.figures.values import Figures, Snapshot, Window, counters_in
from canary_mw.observability.judgement import judge, metric_evidence
from canary_mw.rollout.findings import Findings, onset
from canary_mw.rollout.sentence import ArmFigures, Sentence, State, VariantFigures, sentence, state_words
from canary_mw.rules.release import STABLE

_NO_EVIDENCE = Evidence()
# Reasons that are draws.
_DRAWS = ("sticky", "roll", "new", "weight")


class Judged(NamedTuple):
    """A verdict, and what it is made of."""

    verdict: Verdict
    sentence: Sentence


def judged(
    subject: Subject,
    figures: Figures,
    view: ReleaseView,
    windows: Dict[str, Window],
    changes: list[ReleaseChange],
    rollout: Rollout | None = None,
) -> dict[str, Judged]:
    """The verdict about each gray variant."""
    evidence = figures.evidence.get(view.name, _NO_EVIDENCE)
    findings = judge(evidence, view.gray, rolls=view.is_rolled)
    found = {}
    for name in view.gray:
        parts = _parts(figures, view, windows, name, findings.get(name), _began(evidence, view, name, changes))
        said = sentence(replace(parts, rolled_back=_rolled_back(rollout)))
        found[name] = _judged(subject, view, name, said, findings.get(name), rollout)
    return found


def _rolled_back(rollout: Rollout | None) -> tuple[str, str] | None:
    """When a release was rolled back, and why; None while it is not."""
    if rollout is None or rollout["phase"] != "RolledBack":
        return None
    return (rollout["since"] or "")[11:16] or "a time that is not known", rollout["reason"]


def _judged(
    subject: Subject,
    view: ReleaseView,
    variant: str,
    said: Sentence,
    findings: Findings | None,
    rollout: Rollout | None,
) -> Judged:
    phase, held_by = (rollout["phase"], rollout["held_by"]) if rollout else ("Manual", "")
    todo = advice(subject.store, view, variant, said.state, phase, held_by)
    verdict: Verdict = {
        "variant": variant,
        "state": said.state,
        "label": state_words(said.state, _shown_name(view, variant)),
        "sentence": said.text,
        "headline": said.headline,
        "details": said.details,
        "since": iso_or_none(_since(subject, view.name, variant, said.state)),
        "ln_e": round(findings.ln_e, 6) if findings else None,
        "what_to_do": todo.text,
        "command": todo.command,
        "source": todo.source,
    }
    return Judged(verdict, said)


def _shown_name(view: ReleaseView, variant: str) -> str:
    return variant if len(view.gray) > 1 else ""


def _since(subject: Subject, release: str, variant: str, state: State) -> float:
    """When the state began; 0 where it was there already at the first look."""
    known = subject.states.get((release, variant))
    if known is None or known[0] != state:
        known = subject.states[release, variant] = state, subject.clock() if known else 0.0
    return known[1]


def _parts(
    figures: Figures,
    view: ReleaseView,
    windows: Dict[str, Window],
    variant: str,
    findings: Findings | None,
    began: tuple[float, str] | None,
) -> VariantFigures:
    gray = windows[variant]
    drawn = sum(each.counts.requests for each in windows.values())
    last = last_request(figures, view.name, variant)
    return VariantFigures(
        gray=_arm(gray.counts),
        stable=_arm(windows[STABLE].counts),
        findings=findings,
        name=_shown_name(view, variant),
        percent=view.weights[variant],
        seconds=gray.seconds,
        began=began,
        stepped_in=gray.counts.rescued,
        reasons=_reasons(figures, view.name, variant, gray.seconds),
        seen_percent=100 * gray.counts.requests / drawn if drawn else 0.0,
        last_gray=clock_time(last) if last else "",
    )


def _arm(counts: Snapshot) -> ArmFigures:
    slow, slowest = quantile_of(counts, 0.95), quantile_of(counts, 0.99)
    return ArmFigures(
        requests=counts.requests,
        errors=counts.errors,
        p95=slow.value if slow else None,
        p99=slowest.value if slowest else None,
    )


def _reasons(figures: Figures, release: str, variant: str, seconds: float) -> dict[str, int]:
    """Drawn requests of a variant by reason, in at most the last 5 minutes."""
    gained = counters_in(figures, seconds)[1]
    return {
        key[3]: count
        for key, count in gained.items()
        if key[:3] == ("assignments", release, variant) and key[3] in _DRAWS
    }


def _began(
    evidence: Evidence, view: ReleaseView, variant: str, changes: list[ReleaseChange]
) -> tuple[float, str] | None:
    """With which weight gray got worse, and when; None where that is not known."""
    (series,) = metric_evidence(evidence, variant)[0].series
    index = onset(series)
    if index is None:
        return None
    percent = json.loads(list(evidence.epochs)[index].weights).get(variant, 0.0)
    time = began_at(view, variant, percent, changes)
    return None if time is None else (percent, clock_time(time))
