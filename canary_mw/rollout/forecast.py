"""What a plan needs and finds at a given traffic: how long its steps take at least, and how bad gray has to be.

The times hold where gray is as good as stable and failures come at their mean; what is found is simulated with a fixed
seed, by the statistics that judge releases.
"""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from math import exp, inf, log1p, sqrt
from statistics import NormalDist
from typing import NamedTuple

from canary_mw.rollout.findings import Finding, Metric, MetricEvidence, combined, finding_of
from canary_mw.rollout.statistics import Epoch, Rates, exposures_at_rates, least, ln_needed, pair_weight
from canary_mw.rollout.steps.looks import metric_of
from canary_mw.rules.plan import Analysis, MetricRule, Plan, Stage, divided

# A harm is called found where so many releases of these find it.
_RUNS, _FOUND = 100, 90
# Above this mean a Poisson number is drawn as a normal one.
_MANY = 400.0
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes to a release.

    Attributes:
        rate: requests a second of users who are drawn, gray and stable together.
        error_rate: of stable, for each request.
        users: how many different ones come during a step; None for more than anybody needs.
        rates: of other metrics of stable, by their names; of a value how often it is recorded.
    """

    rate: float
    error_rate: float
    users: int | None = None
    rates: Dict[str, float] = field(default_factory=dict)


class StepForecast(NamedTuple):
    """What is expected of a step.

    Attributes:
        item: number of its `setWeight` among the written steps.
        weight: percent of all gray variants.
        pause: seconds that are written.
        until_promoted: a human ends it.
        exposures: requests that each gray variant needs for the next step, of users who have not failed in this one;
            None where no number is enough, 0 without analysis or a next step.
        metric: the one that needs the most, "" without any.
        seconds: how long it takes at least; None where it does not end by evidence.
        late: whether that is more than the timeout of the analysis.
        found: the error rate of gray that 90 % of releases find by the end of the step; None where none is found, and
            where there is no stable to compare with.
    """

    item: int
    weight: float
    pause: float
    until_promoted: bool
    exposures: int | None
    metric: str
    seconds: float | None
    late: bool
    found: float | None


class _Need(NamedTuple):
    """Exposures and seconds that a metric needs in a step; None where no number is enough."""

    metric: str
    exposures: int | None
    seconds: float | None


def forecast(plan: Plan, traffic: Traffic, seed: int = 1) -> list[StepForecast]:
    """The steps of a plan, one after the other."""
    # The bake ends with everybody in gray: the step to the last stage has to be safe for all.
    nexts = [*(stage.weights for stage in plan.stages[1:-1]), divided(100.0, plan.shares), {}][-len(plan.stages) :]
    needs = [_slowest(plan, stage, after, traffic) for stage, after in zip(plan.stages, nexts, strict=True)]
    lengths = [_length(stage, need) for stage, need in zip(plan.stages, needs, strict=True)]
    found = []
    for index, (stage, need) in enumerate(zip(plan.stages, needs, strict=True)):
        timeout = stage.analysis.timeout if stage.analysis is not None else inf
        times = [each if each is not None else timeout for each in lengths[: index + 1]]
        found.append(
            StepForecast(
                item=stage.item,
                weight=sum(stage.weights.values()),
                pause=stage.pause,
                until_promoted=stage.until_promoted,
                exposures=need.exposures,
                metric=need.metric,
                seconds=lengths[index],
                late=(need.seconds is None or need.seconds > max(timeout, stage.pause)),
                found=_found(plan, index, times, traffic, seed),
            )
        )
    return found


def _length(stage: Stage, need: _Need) -> float | None:
    return None if need.seconds is None else max(need.seconds, stage.pause)


def _slowest(plan: Plan, stage: Stage, after: Dict[str, float], traffic: Traffic) -> _Need:
    """What the metric and the variant need that take the longest; the last step has nothing to wait for."""
    if stage.analysis is None or not after or stage.analysis.mode == "advise":
        return _Need("", 0, 0.0)
    needs = [_keys_needed(stage, stage.analysis, traffic)]
    for name, percent in stage.weights.items():
        for rule in stage.analysis.metrics:
            rates = _rates_of(rule, traffic)
            needs += [_needed(rule, each, (percent, _stable(stage)), after[name] / 100, traffic) for each in rates]
    return max(needs, key=lambda each: inf if each.seconds is None else each.seconds)


def _stable(stage: Stage) -> float:
    return max(round(100.0 - sum(stage.weights.values()), 6), 0.0)


def _rates_of(rule: MetricRule, traffic: Traffic) -> list[float]:
    """How often the metric of stable is bad; nothing where it is not known."""
    if rule.kind == "value" and rule.quantiles:
        return [traffic.rates[rule.name] * (1.0 - each) for each in rule.quantiles if rule.name in traffic.rates]
    if rule.name in traffic.rates:
        return [traffic.rates[rule.name]]
    if rule.kind == "error_rate":
        return [traffic.error_rate]
    return [1.0 - quantile for quantile in rule.quantiles]


def _keys_needed(stage: Stage, analysis: Analysis, traffic: Traffic) -> _Need:
    """Each of the users that a step must have seen makes one request at least."""
    share = min(stage.weights.values()) / 100
    enough = traffic.users is None or traffic.users * share >= analysis.minimum_keys
    seconds = analysis.minimum_keys / (traffic.rate * share) if enough and share else None
    return _Need("minimum_keys", analysis.minimum_keys if enough and share else None, seconds)


def _needed(rule: MetricRule, bad: float, shares: tuple[float, float], next_weight: float, traffic: Traffic) -> _Need:
    """What one metric needs in one variant, with the shares of gray and stable in percent."""
    gray, stable = shares
    rates = Rates(bad, bad, stable / gray) if stable > 0 else None
    exposures = exposures_at_rates(rates, next_weight, rule.margin) if rates is not None else None
    seconds = None if exposures is None else _seconds_for(exposures, gray / 100, bad, traffic)
    return _Need(rule.name, exposures if seconds is not None else None, seconds)


def _seconds_for(exposures: int, share: float, bad: float, traffic: Traffic) -> float | None:
    """When so many exposures have come: a user gives none any more after its first failure."""
    if traffic.users is None or not bad:
        return exposures / (traffic.rate * share)
    left = 1.0 - exposures * bad / (traffic.users * share)
    return -log1p(left - 1.0) * traffic.users / (bad * traffic.rate) if left > 0 else None


def _found(plan: Plan, last: int, seconds: Sequence[float], traffic: Traffic, seed: int) -> float | None:
    """The least error rate of gray that most releases find from the first step up to a step, in parts per 100,000."""
    stages = plan.stages[: last + 1]
    rule = _rule_of_errors(stages[-1])
    is_judged = rule is not None and metric_of(rule, plan).on_failure == "rollback"
    if not is_judged or stages[-1].analysis is None or inf in seconds or not _stable(stages[-1]):
        return None
    metrics = [metric_of(each, plan) for each in stages[-1].analysis.metrics]
    draws = [[_drawn(seed, run, step) for step in range(len(stages))] for run in range(_RUNS)]
    needed = ln_needed(stages[-1].analysis.alpha, len(plan.shares))

    def is_found(rate: int) -> bool:
        means = _means(stages, seconds, rate / 1e5, traffic)
        misses = (each for each in draws if not _is_worse(metrics, _epochs(stages, means, each), needed))
        return next(islice(misses, _RUNS - _FOUND, None), None) is None

    rate = least(is_found, max(int(traffic.error_rate * 1e5), 1), 100_000)
    return None if rate is None or rate > 100_000 else rate / 1e5


def _drawn(seed: int, run: int, step: int) -> tuple[float, float]:
    """Two numbers in [0, 1), always the same."""
    digest = sha256(f"{seed}:{run}:{step}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:6]) / 2**48, int.from_bytes(digest[6:12]) / 2**48


def _rule_of_errors(stage: Stage) -> MetricRule | None:
    metrics = stage.analysis.metrics if stage.analysis is not None else ()
    return next((each for each in metrics if each.kind == "error_rate"), None)


class _Means(NamedTuple):
    """First failures that are expected in a step, and exposures, of the smallest gray variant and of stable."""

    gray: float
    stable: float
    gray_exposures: float
    stable_exposures: float


def _means(stages: Sequence[Stage], seconds: Sequence[float], rate: float, traffic: Traffic) -> list[_Means]:
    found, failed = [], [0.0, 0.0]
    for stage, length in zip(stages, seconds, strict=True):
        shares = min(stage.weights.values()) / 100, _stable(stage) / 100
        counts = []
        for arm, bad in enumerate((rate, traffic.error_rate)):
            requests = traffic.rate * shares[arm] * length
            if traffic.users is not None:
                left = max(traffic.users * shares[arm] - failed[arm], 0.0)
                each = traffic.rate * length / traffic.users
                requests = left * (1 - exp(-bad * each)) / bad if bad else left * each
            failed[arm] += requests * bad
            counts.append(requests)
        found.append(_Means(counts[0] * rate, counts[1] * traffic.error_rate, *counts))
    return found


def _epochs(stages: Sequence[Stage], means: Sequence[_Means], draws: Sequence[tuple[float, float]]) -> list[Epoch]:
    return [
        Epoch(
            pair_weight(min(stage.weights.values()), _stable(stage)),
            poisson(gray, mean.gray),
            poisson(stable, mean.stable),
            round(mean.gray_exposures),
            round(mean.stable_exposures),
        )
        for stage, mean, (gray, stable) in zip(stages, means, draws, strict=True)
    ]


def _is_worse(metrics: Sequence[Metric], epochs: list[Epoch], needed: float) -> bool:
    """Whether the errors alone roll back: the other metrics have spent nothing of their shares."""
    found = [
        finding_of(MetricEvidence(each, [epochs])) if each.name == "error_rate" else Finding(each, -inf, counts=False)
        for each in metrics
    ]
    counting = any(each.counts for each in found)
    return counting and combined(found) >= needed


def poisson(draw: float, mean: float) -> int:
    """The Poisson number at a uniform draw in [0, 1): with the same draw a larger mean gives no smaller number."""
    if mean > _MANY:
        return max(round(mean + _NORMAL.inv_cdf(min(max(draw, 1e-12), 1 - 1e-12)) * sqrt(mean)), 0)
    number, chance = 0, exp(-mean)
    below = chance
    while below < draw and number < 2 * _MANY:
        number += 1
        chance *= mean / number
        below += chance
    return number
