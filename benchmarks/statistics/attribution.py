"""When the product calls gray worse: its own statistics, looked at with each failure."""

from collections.abc import Sequence
from math import log

from canary_mw.rollout.findings import ERROR_RATE, Findings, MetricEvidence, find
from canary_mw.rollout.statistics import Epoch, ln_needed

from .population import Failure, User, Weight, exposures

ALPHA = 0.01
_NEEDED = ln_needed(ALPHA)


def verdict_minute(people: Sequence[User], failures: Sequence[Failure], weights: Sequence[Weight]) -> float | None:
    """The minute at which gray is first called worse, None if it never is."""
    gray, stable = [0] * len(weights), [0] * len(weights)
    for each in failures:
        arm = gray if each.gray else stable
        arm[each.epoch] += 1
        # The evidence grows with failures of gray alone.
        if each.gray and may_be_worse(weights, gray, stable):
            seen = exposures(people, failures, weights, each.minute)
            if found([_epoch(*values) for values in zip(weights, gray, stable, seen, strict=False)]).worse:
                return each.minute
    return None


def _epoch(weight: Weight, gray: int, stable: int, seen: tuple[float, float]) -> Epoch:
    return Epoch(weight.share, gray, stable, round(seen[0]), round(seen[1]))


def found(epochs: Sequence[Epoch]) -> Findings:
    """What the product finds."""
    return find([MetricEvidence(ERROR_RATE, [epochs])], alpha=ALPHA)


def may_be_worse(
    weights: Sequence[Weight], gray: Sequence[int], stable: Sequence[int], needed: float = _NEEDED
) -> bool:
    """Whether the evidence can be enough: no bet has more than the likelihood that fits best. It saves time."""
    if sum(gray) < ERROR_RATE.minimum_failures:
        return False
    most = 0.0
    for weight, x, y in zip(weights, gray, stable, strict=True):
        if x > weight.share * (x + y) and 0 < weight.share < 1:
            most += x * log(x / (weight.share * (x + y)))
            most += y * log(y / ((1 - weight.share) * (x + y))) if y else 0.0
    return most >= needed
