"""What the evidence of a release attempt says about one gray variant: worse, slower, better, or drawn wrongly."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Literal, NamedTuple

from canary_mw.rollout.statistics import (
    SAMPLE_RATIO_ALPHA,
    Arm,
    Direction,
    Epoch,
    SeenKeys,
    attribution,
    hazard_bounds,
    ln_needed,
    log_mean_exp,
    pooled_excess,
    sample_ratio,
    towards,
)
from canary_mw.rules.plan import MetricKind

OnFailure = Literal["rollback", "hold"]
ALPHA = 0.01
_ONSET_BETA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How one metric is judged.

    Attributes:
        kind: what is counted.
        direction: whether more or fewer events, or larger or smaller values, are worse.
        tolerated: risk ratio that gray may have.
        share: part of the budget of the release, relative to the other metrics.
        minimum_failures: keys that must have failed in gray before it is called worse.
        ignore_below: excess of the rate that is called no harm.
        margin: share of all requests that a step up may newly hit.
        on_failure: "hold" gives the metric a budget of its own; it never rolls back.
    """

    name: str
    kind: MetricKind = "error_rate"
    direction: Direction = "increase"
    tolerated: float = 1.0
    share: float = 1.0
    minimum_failures: int = 5
    ignore_below: float = 0.001
    margin: float = 0.005
    on_failure: OnFailure = "rollback"


ERROR_RATE = Metric(name="error_rate")
LATENCY = Metric(name="latency", kind="latency", margin=0.02)


class StepCounts(NamedTuple):
    """What happened in the present step: first failures, and all bad requests of all drawn ones."""

    gray: Arm
    stable: Arm
    gray_requests: int = 0
    gray_bad: int = 0
    stable_requests: int = 0
    stable_bad: int = 0

    def swapped(self) -> "StepCounts":
        """The same with gray and stable exchanged."""
        return StepCounts(
            self.stable, self.gray, self.stable_requests, self.stable_bad, self.gray_requests, self.gray_bad
        )


class MetricEvidence(NamedTuple):
    """The evidence on one metric: a series of epochs for each threshold; error_rate has one, latency two.

    Attributes:
        steps: counts of the present step, for each threshold; empty without steps.
    """

    metric: Metric
    series: Sequence[Sequence[Epoch]]
    steps: Sequence[StepCounts] = ()


class Finding(NamedTuple):
    """What one metric says.

    Attributes:
        ln_e: the evidence that gray is worse.
        counts: whether enough keys failed, and by enough, that it may be called worse.
        excess: the pooled excess of gray's rate, the highest of the series; None where it is not known.
        failures: keys that failed in gray, the most of the series.
    """

    metric: Metric
    ln_e: float
    counts: bool
    excess: float | None = None
    failures: int = 0


class Findings(NamedTuple):
    """What all metrics say about one gray variant.

    Attributes:
        worse, slower, better, split_off: as in the sentence; at most one of the first three.
        ln_e: the combined evidence of the metrics that may roll back.
        ln_needed: the evidence from which on gray is called worse or slower.
        culprit: the metric with the most evidence, None without any.
        held_by: the metric with a budget of its own that has spent it, None without one.
        sample_ratio_ln_e: evidence that the keys do not come as drawn.
    """

    worse: bool
    slower: bool
    better: bool
    split_off: bool
    ln_e: float
    ln_needed: float
    metrics: tuple[Finding, ...]
    culprit: Finding | None
    held_by: Finding | None
    sample_ratio_ln_e: float


def find(
    evidence: Sequence[MetricEvidence],
    seen: Sequence[SeenKeys] = (),
    *,
    alpha: float = ALPHA,
    gray_variants: int = 1,
    alone_of: int = 1,
) -> Findings:
    """Judge one gray variant against stable; the arguments as in `ln_needed`.

    Args:
        seen: keys by the epoch in which they were first seen; empty where they are not kept.
    """
    findings = tuple(finding_of(each) for each in evidence)
    needed = ln_needed(alpha, gray_variants, alone_of)
    ln_e = combined(findings)
    culprit = max((each for each in findings if _may_roll_back(each)), key=_budget_spent, default=None)
    failing = culprit is not None and combined(_counting(findings)) >= needed
    slower = failing and culprit is not None and culprit.metric.name == LATENCY.name
    ratio = sample_ratio(seen)
    return Findings(
        worse=failing and not slower,
        slower=slower,
        better=not failing and any(_is_better(each, needed) for each in evidence),
        split_off=ratio >= log(1 / SAMPLE_RATIO_ALPHA),
        ln_e=ln_e,
        ln_needed=needed,
        metrics=findings,
        culprit=culprit,
        held_by=next((each for each in findings if _holds(each, needed)), None),
        sample_ratio_ln_e=ratio,
    )


def finding_of(evidence: MetricEvidence) -> Finding:
    """Weigh one metric: the mean of the e-values of its thresholds."""
    metric = evidence.metric
    logs = [attribution(each, metric.tolerated, metric.direction) for each in evidence.series]
    excesses = [pooled_excess(each, metric.direction) for each in evidence.series]
    counts = any(_counts(each, metric) for each in evidence.series)
    excess = max((each for each in excesses if each is not None), default=None)
    failures = max((_failures(each, metric.direction) for each in evidence.series), default=0)
    # Before there are thresholds nothing is bet, and an e-value without bets is 1.
    ln_e = log_mean_exp(logs, [1.0] * len(logs)) if logs else 0.0
    return Finding(metric, ln_e, counts, excess, failures)


def _failures(series: Sequence[Epoch], direction: Direction) -> int:
    return sum(each.gray for each in towards(series, direction))


def _counts(series: Sequence[Epoch], metric: Metric) -> bool:
    excess = pooled_excess(series, metric.direction)
    enough = _failures(series, metric.direction) >= metric.minimum_failures
    return enough and excess is not None and excess >= metric.ignore_below


def combined(findings: Iterable[Finding]) -> float:
    """The ln of the weighted mean of the e-values of all metrics that may roll back.

    One whose failures are too few or too small to count weighs as an e-value of 0: what is combined stays below an
    e-value, so the budget holds.
    """
    mine = [each for each in findings if each.metric.on_failure == "rollback"]
    return log_mean_exp([each.ln_e for each in mine], [each.metric.share for each in mine])


def _counting(findings: Iterable[Finding]) -> list[Finding]:
    return [each if each.counts else each._replace(ln_e=-inf) for each in findings]


def _may_roll_back(finding: Finding) -> bool:
    return finding.metric.on_failure == "rollback" and finding.counts


def _budget_spent(finding: Finding) -> float:
    return finding.ln_e + log(finding.metric.share)


def _holds(finding: Finding, needed: float) -> bool:
    return finding.metric.on_failure == "hold" and finding.counts and finding.ln_e >= needed


def _is_better(evidence: MetricEvidence, needed: float) -> bool:
    """Whether gray fails less often: the same test with the variants exchanged."""
    metric = evidence.metric
    if metric.name != ERROR_RATE.name:
        return False
    swapped = [[epoch.swapped() for epoch in series] for series in evidence.series]
    found = finding_of(MetricEvidence(metric, swapped))
    return found.counts and found.ln_e >= needed


def onset(epochs: Sequence[Epoch]) -> int | None:
    """The epoch with which gray got worse; None where it was no better before, as far as it is known.

    Of all epochs it is the one that divides gray's failures best into a rate before it and a rate since then. The rate
    before it was lower than the one since then with a confidence of 95 %.
    """
    splits = [(_gray_arm(epochs[:index]), _gray_arm(epochs[index:])) for index in range(1, len(epochs))]
    best = max(range(len(splits)), key=lambda index: sum(map(_likelihood, splits[index])), default=None)
    if best is None:
        return None
    before, since = splits[best]
    if not before.exposures or not since.exposures:
        return None
    highest = hazard_bounds(before.failures, _ONSET_BETA).upper / before.exposures
    return best + 1 if highest < since.failures / since.exposures else None


def _gray_arm(epochs: Sequence[Epoch]) -> Arm:
    return Arm(sum(each.gray for each in epochs), sum(each.gray_exposures for each in epochs))


def _likelihood(arm: Arm) -> float:
    """The ln of the likelihood of failures that come at one rate, but for what is the same in all splits."""
    return arm.failures * log(arm.failures / arm.exposures) if arm.failures and arm.exposures else 0.0
