"""Slow answers: the first slow request of each user at two thresholds, where times are lognormal."""

from collections.abc import Sequence
from math import log
from random import Random
from statistics import NormalDist

from canary_mw.rollout.findings import LATENCY, MetricEvidence, find
from canary_mw.rollout.statistics import Epoch

from .attribution import ALPHA, may_be_worse
from .population import Clock, Failure, User, Weight, exposures, first_failures, population

# The deviation of the logarithm of times, and the shares of stable's requests above the thresholds.
_SPREAD = 0.6
_SLOW = (0.05, 0.01)
_NORMAL = NormalDist()
_WEIGHT = 0.1


def slow_share(share: float, slower: float) -> float:
    """The share of requests above a threshold, where all of them take so many times as long."""
    return 1 - _NORMAL.cdf(_NORMAL.inv_cdf(1 - share) - log(slower) / _SPREAD)


def slow_minute(seed: int, requests: float, hours: int, slower: float) -> float | None:
    """The minute at which gray, with 10 percent, is first called slower; None if it never is."""
    random, weights, clock = Random(seed), [Weight(_WEIGHT, hours * 60.0)], Clock(hours * 60)
    people = population(random, 10_000, requests, _SLOW[0])
    both, few = slow_share(_SLOW[0], slower), slow_share(_SLOW[1], slower)
    # Above the higher threshold a request is above the lower one too; what is between them comes besides.
    parts = (_SLOW[0] - _SLOW[1], _SLOW[1])
    ratios = ((both - few) / parts[0], few / parts[1])
    draws = []
    for part, ratio in zip(parts, ratios, strict=True):
        scaled = [user._replace(failures=user.failures * part / _SLOW[0]) for user in people]
        draws.append(first_failures(random, scaled, weights, clock, ratio))
    firsts = {each.user.slot: each for each in sorted([*draws[0], *draws[1]], reverse=True)}
    return _verdict(people, [sorted(firsts.values()), draws[1]], weights)


def _verdict(people: Sequence[User], series: Sequence[Sequence[Failure]], weights: Sequence[Weight]) -> float | None:
    counts = [([0], [0]) for _ in series]
    events = sorted((each.minute, number, each.gray) for number, failures in enumerate(series) for each in failures)
    for minute, number, gray in events:
        counts[number][0 if gray else 1][0] += 1
        # The mean of two e-values is at most the larger one.
        if gray and may_be_worse(weights, *counts[number]) and _is_slower(people, series, counts, minute):
            return minute
    return None


def _is_slower(
    people: Sequence[User],
    series: Sequence[Sequence[Failure]],
    counts: Sequence[tuple[list[int], list[int]]],
    minute: float,
) -> bool:
    epochs = []
    for failures, (gray, stable) in zip(series, counts, strict=True):
        ((gray_seen, stable_seen),) = exposures(people, failures, [Weight(_WEIGHT, minute)], minute)
        epochs.append([Epoch(_WEIGHT, gray[0], stable[0], round(gray_seen), round(stable_seen))])
    return find([MetricEvidence(LATENCY, epochs)], alpha=ALPHA).slower
