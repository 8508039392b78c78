"""The verdict of one look at a release: roll back, hold, step up or wait. Never "passed because nothing came"."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from canary_mw.rollout.findings import Findings, Metric, MetricEvidence, StepCounts
from canary_mw.rollout.formatting import count
from canary_mw.rollout.queries import NO_OBJECTION, Objection, QueryStanding
from canary_mw.rollout.statistics import excess_upper, exposures_needed

VerdictKind = Literal["aborted", "roll_back", "hold", "step_up", "wait"]
WaitsFor = Literal["", "time", "hook", "query", "human", "keys", "evidence", "suspicion", "margin"]
BETA = 0.05
MINIMUM_KEYS = 20


class Verdict(NamedTuple):
    """What follows from a look.

    Attributes:
        reason: why, in words.
        variant: the gray variant that it is about, "" for all.
        metric: the metric that it is about, "" for none.
        needed: requests of gray that are still needed at the present rates, None where more do not help or it is not
            about requests.
        waits_for: what a step waits for, "" for another verdict.
    """

    kind: VerdictKind
    reason: str
    variant: str = ""
    metric: str = ""
    needed: int | None = None
    waits_for: WaitsFor = ""

    @property
    def text(self) -> str:
        """The reason with all that is known of it, as a part of a sentence."""
        about = ", ".join(filter(None, (self.variant, self.metric)))
        return f"{self.reason}{f' ({about})' if about else ''}{self._more()}"

    def _more(self) -> str:
        if self.waits_for != "margin":
            return ""
        if self.needed is None:
            return ": more requests do not help at the present rates"
        return f": about {count(self.needed)} more request{'' if self.needed == 1 else 's'} in gray"


class StepBound(NamedTuple):
    """Whether the next weight keeps the margin of one metric.

    Attributes:
        excess_upper: the upper bound of the excess of gray's rate, None while a variant has no requests.
        keeps: whether bound and raw rates keep the margin at the next weight.
        needed: requests of gray that are still needed, None where more do not help.
    """

    excess_upper: float | None
    keeps: bool
    needed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known at one look.

    Attributes:
        findings: by the name of the gray variant.
        evidence: the metrics behind them, with the counts of the present step.
        gray_keys: distinct keys seen in gray in this step, by variant.
        next_weights: the share of each gray variant after the next step, in [0, 1]; empty where there is none.
        latched: whether the release was rolled back or aborted.
        external_failure: why a query demands to roll back, "" if none does.
        objection: why a query holds the release.
        unanswered: which query keeps from a raise, "" if none does.
        queries: how they stand; empty where nobody asks them here.
        gates: for how long the step waits anyhow, as "the pause has 5 minutes to go"; empty when it does not.
        analysed: whether the next step needs evidence; one that raises nothing needs none.
        bounded: whether evidence has bounded what the next weights could hit; then only a suspicion keeps from them.
    """

    findings: Dict[str, Findings]
    evidence: Dict[str, Sequence[MetricEvidence]] = field(default_factory=dict)
    gray_keys: Dict[str, int] = field(default_factory=dict)
    next_weights: Dict[str, float] = field(default_factory=dict)
    latched: bool = False
    external_failure: str = ""
    objection: Objection = NO_OBJECTION
    unanswered: str = ""
    queries: Sequence[QueryStanding] = ()
    gates: Sequence[str] = ()
    analysed: bool = True
    bounded: bool = False
    minimum_keys: int = MINIMUM_KEYS
    beta: float = BETA


def verdict(look: Look) -> Verdict:
    """The verdict of a look; what lowers is asked before what holds, and that before what raises."""
    if look.latched:
        return Verdict("aborted", "the release was rolled back or aborted")
    for ask in (_roll_back, _hold):
        found = ask(look)
        if found is not None:
            return found
    return _wait(look) or Verdict("step_up", "the next step keeps the margin")


def _roll_back(look: Look) -> Verdict | None:
    for variant, found in look.findings.items():
        if (found.worse or found.slower) and found.culprit is not None:
            reason = "gray is slower" if found.slower else _worse(found.culprit.metric)
            return Verdict("roll_back", reason, variant, found.culprit.metric.name)
    return Verdict("roll_back", look.external_failure) if look.external_failure else None


def _worse(metric: Metric) -> str:
    less = metric.direction == "decrease"
    if metric.kind == "value":
        return f"the values of gray are {'smaller' if less else 'larger'}"
    return "gray brings fewer events" if less else "gray fails more often"


def _hold(look: Look) -> Verdict | None:
    for variant, found in look.findings.items():
        if found.split_off:
            return Verdict("hold", "assignment is not as drawn", variant)
        if found.held_by is not None:
            return Verdict("hold", "the metric has failed", variant, found.held_by.metric.name)
    name, reason = look.objection
    return Verdict("hold", reason, metric=name) if name else None


def _wait(look: Look) -> Verdict | None:
    """Why there is no step up, or None."""
    if not look.next_weights:
        return Verdict("wait", "there is no next step")
    for gate in look.gates:
        return Verdict("wait", gate, waits_for="time")
    return unproven(look) if look.analysed else None


def unproven(look: Look) -> Verdict | None:
    """What the evidence does not show yet of the next weights, or None."""
    for variant in look.next_weights:
        waiting = _suspicion(look, variant) or (None if look.bounded else _unbounded(look, variant))
        if waiting is not None:
            return waiting
    return None


def _suspicion(look: Look, variant: str) -> Verdict | None:
    found = look.findings.get(variant)
    keys = look.gray_keys.get(variant, 0)
    if found is None:
        return Verdict("wait", "there is no evidence of this step", variant, waits_for="evidence")
    if keys < look.minimum_keys:
        return Verdict("wait", f"{keys} of {look.minimum_keys} keys were seen in gray", variant, waits_for="keys")
    for each in found.metrics:
        if each.ln_e >= found.ln_needed / 2:
            return Verdict("wait", "gray is under suspicion", variant, each.metric.name, waits_for="suspicion")
    return None


def _unbounded(look: Look, variant: str) -> Verdict | None:
    """The metric that does not bound what the next step could hit."""
    evidence = look.evidence.get(variant, ())
    if not evidence:
        return Verdict("wait", "there is no evidence of this step", variant, waits_for="evidence")
    for metric, _, steps in evidence:
        if not steps:
            return Verdict("wait", "there is no evidence of this step", variant, metric.name, waits_for="evidence")
        for counts in steps:
            bound = step_bound(counts, metric, look.next_weights[variant], look.beta)
            if not bound.keeps:
                reason = "the next step could hit more than the margin"
                return Verdict("wait", reason, variant, metric.name, bound.needed, "margin")
    return None


def step_bound(counts: StepCounts, metric: Metric, next_weight: float, beta: float = BETA) -> StepBound:
    """Whether the excess that is possible with the confidence of `beta` keeps the margin at the next weight.

    The raw rates are a brake only: a few users who fail again and again are one first failure each.
    """
    if metric.direction == "decrease":
        counts = counts.swapped()
    upper = excess_upper(counts.gray, counts.stable, beta)
    bounded = upper is not None and upper * next_weight <= metric.margin
    raw = _rate(counts.gray_bad, counts.gray_requests) - _rate(counts.stable_bad, counts.stable_requests)
    braked = raw * next_weight > metric.margin
    total = exposures_needed(counts.gray, counts.stable, next_weight, metric.margin, beta)
    needed = None if total is None or braked else total - counts.gray.exposures
    return StepBound(upper, bounded and not braked, needed)


def _rate(events: int, requests: int) -> float:
    return events / requests if requests else 0.0
