"""Tests that are valid however often somebody looks: attribution of failures, bounds of a rate, the sample ratio.

Evidence is ln E of an e-value. When gray is no worse than stable, P(E ever reaches 1/alpha) <= alpha (Ville's
inequality), for any number of looks and any choice of when to look. Only our own draw is assumed: which keys are gray
was drawn by a hash that knows nothing of failures.
"""

from collections.abc import Callable, Sequence
from math import ceil, exp, fsum, inf, lgamma, log, log1p
from typing import Literal, NamedTuple

Direction = Literal["increase", "decrease"]

# The risk ratios that the test bets on. The smallest is 1.41: a smaller harm is practically never reported.
_RATIOS = tuple(2 ** (j / 2) for j in range(1, 21))
_RATIO_PRIORS = tuple(1 / j / fsum(1 / i for i in range(1, 21)) for j in range(1, 21))
# Pseudo-counts of the test of the sample ratio: how close to the weights a wrong split is expected.
SAMPLE_RATIO_STRENGTH = 200.0
SAMPLE_RATIO_ALPHA = 0.001
_HALVINGS = 200


class Epoch(NamedTuple):
    """What happened while the weight stayed the same. A key counts in the epoch of its first failure, and only there.

    Attributes:
        weight: the share of gray in what gray and stable get together, in [0, 1]; see `pair_weight`.
        gray, stable: keys that failed first in this epoch.
        gray_exposures, stable_exposures: requests of keys that had not failed before.
    """

    weight: float
    gray: int
    stable: int
    gray_exposures: int = 0
    stable_exposures: int = 0

    def swapped(self) -> "Epoch":
        """The same with gray and stable exchanged."""
        return Epoch(1 - self.weight, self.stable, self.gray, self.stable_exposures, self.gray_exposures)


class Arm(NamedTuple):
    """First failures of one variant in one step, and the requests of keys that had not failed in it."""

    failures: int
    exposures: int


class Rates(NamedTuple):
    """First failures for each exposure.

    Attributes:
        ratio: exposures of stable for each one of gray.
    """

    gray: float
    stable: float
    ratio: float


class Bounds(NamedTuple):
    """A lower and an upper bound."""

    lower: float
    upper: float


class SeenKeys(NamedTuple):
    """Keys seen first in an epoch, by variant; `weight` as in `Epoch`."""

    weight: float
    gray: int
    stable: int


def pair_weight(gray: float, stable: float) -> float:
    """The share of one gray variant in what it and stable get together; 0 where both get nothing."""
    return gray / (gray + stable) if gray + stable > 0 else 0.0


def towards(epochs: Sequence[Epoch], direction: Direction) -> Sequence[Epoch]:
    """The epochs as they are where more is worse, with the variants exchanged where less is worse."""
    return epochs if direction == "increase" else [each.swapped() for each in epochs]


def attribution(epochs: Sequence[Epoch], tolerated: float = 1.0, direction: Direction = "increase") -> float:
    """Return ln E against "a failing key is gray with the probability of the weight".

    Epochs of weight 0 or 1 say nothing: they have no other variant to compare with.

    Args:
        tolerated: risk ratio that gray may have, above 0.
        direction: "increase" when more events are worse, "decrease" when fewer are, as with orders.
    """
    counted = [each for each in towards(epochs, direction) if 0 < each.weight < 1]
    return log_mean_exp([_bet(counted, ratio, tolerated) for ratio in _RATIOS], _RATIO_PRIORS)


def _bet(epochs: Sequence[Epoch], ratio: float, tolerated: float) -> float:
    """The ln of the likelihood ratio of one risk ratio, over all epochs."""
    log_ratio = log(ratio)
    terms = []
    for weight, gray, stable, *_ in epochs:
        odds = weight * tolerated
        terms.append(gray * log_ratio)
        terms.append(-(gray + stable) * log1p(odds * (ratio - 1) / (odds + 1 - weight)))
    return fsum(terms)


def log_mean_exp(logs: Sequence[float], shares: Sequence[float]) -> float:
    """The ln of the mean of e-values that are given by their ln, weighted by `shares`; -inf without any."""
    highest = max(logs, default=-inf)
    if highest == -inf:
        return -inf
    total = fsum(shares)
    return highest + log(fsum(share * exp(each - highest) for each, share in zip(logs, shares, strict=True)) / total)


def ln_needed(alpha: float, gray_variants: int = 1, alone_of: int = 1) -> float:
    """The ln E from which on a verdict stands.

    Args:
        alpha: the probability of a false verdict over the whole release, in (0, 1).
        gray_variants: number of gray variants that are compared with stable.
        alone_of: number of processes that judge on their own, without each other's figures.
    """
    return log(gray_variants * alone_of / alpha)


def pooled_excess(epochs: Sequence[Epoch], direction: Direction = "increase") -> float | None:
    """By how much the rate of first failures is higher in gray, pooled over epochs; None without requests of both."""
    both = [each for each in towards(epochs, direction) if each.gray_exposures and each.stable_exposures]
    if not both:
        return None
    excess = fsum(each.gray - each.gray_exposures * each.stable / each.stable_exposures for each in both)
    return excess / sum(each.gray_exposures for each in both)


def nearest_rank(values: Sequence[float], quantile: float) -> float:
    """The quantile of values, which are at least one and in any order, by nearest rank; `quantile` in (0, 1]."""
    # 0.29 * 100 is 28.999999999999996 and 0.07 * 100 is 7.000000000000001: the rank is of the decimal number meant.
    return sorted(values)[max(ceil(round(quantile * len(values), 9)), 1) - 1]


def hazard_bounds(failures: float, beta: float) -> Bounds:
    """Bounds of the cumulative hazard after `failures` first failures; each is wrong with probability <= `beta`.

    They hold at all looks together: the roots of ln M = -ln(beta) for the martingale with a Gamma(1, 1) mixture.
    """
    target = -log(beta)
    high = failures + 1.0
    while _ln_martingale(high, failures) < target:
        high *= 2
    upper = _root(failures, high, failures, target)
    lower = 0.0 if _ln_martingale(0.0, failures) <= target else _root(failures, 0.0, failures, target)
    return Bounds(lower, upper)


def _ln_martingale(hazard: float, failures: float) -> float:
    return hazard + lgamma(1 + failures) - (1 + failures) * log1p(hazard)


def _root(below: float, above: float, failures: float, target: float) -> float:
    """The hazard at which ln M is `target`: it is less at `below`, and more at `above`."""
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if middle in (below, above):
            break
        if _ln_martingale(middle, failures) < target:
            below = middle
        else:
            above = middle
    return above


def excess_upper(gray: Arm, stable: Arm, beta: float = 0.05) -> float | None:
    """The upper bound of gray's rate of first failures minus stable's; None while a variant has no exposures."""
    if not gray.exposures or not stable.exposures:
        return None
    return _excess_upper(*gray, *stable, beta)


def _excess_upper(gray: float, gray_exposures: float, stable: float, stable_exposures: float, beta: float) -> float:
    upper = hazard_bounds(gray, beta / 2).upper / gray_exposures
    return upper - hazard_bounds(stable, beta / 2).lower / stable_exposures


def exposures_needed(gray: Arm, stable: Arm, next_weight: float, margin: float, beta: float = 0.05) -> int | None:
    """The exposures of gray at which `excess_upper` x `next_weight` keeps the margin if the rates stay as they are.

    Returns:
        at least the present number; None where more requests do not help, since the excess itself is too high. Without
        requests of a variant its rate counts as 0.
    """
    gray_rate = gray.failures / gray.exposures if gray.exposures else 0.0
    stable_rate = stable.failures / stable.exposures if stable.exposures else 0.0
    ratio = stable.exposures / gray.exposures if gray.exposures and stable.exposures else 1.0
    rates = Rates(gray_rate, stable_rate, ratio)
    return exposures_at_rates(rates, next_weight, margin, beta, least_of=max(gray.exposures, 1))


def exposures_at_rates(
    rates: Rates, next_weight: float, margin: float, beta: float = 0.05, *, least_of: int = 1
) -> int | None:
    """The exposures of gray, from `least_of` on, at which the margin is kept; None where more do not help."""
    if (rates.gray - rates.stable) * next_weight >= margin:
        return None

    def keeps(exposures: int) -> bool:
        others = exposures * rates.ratio
        bound = _excess_upper(rates.gray * exposures, exposures, rates.stable * others, others, beta)
        return bound * next_weight <= margin

    return least(keeps, least_of)


def least(holds: Callable[[int], bool], start: int, most: int = 10**12) -> int | None:
    """The least number from `start` on for which `holds`, which then holds for all above; None if none <= `most`."""
    if holds(start):
        return start
    low, high = start, start * 2
    while not holds(high):
        low, high = high, high * 2
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def sample_ratio(epochs: Sequence[SeenKeys], strength: float = SAMPLE_RATIO_STRENGTH) -> float:
    """Return ln E against "keys are gray as often as the weight says"; epochs of weight 0 or 1 say nothing."""
    return fsum(_ratio_evidence(each, strength) for each in epochs if 0 < each.weight < 1)


def _ratio_evidence(seen: SeenKeys, strength: float) -> float:
    weight, gray, stable = seen
    a, b = strength * weight, strength * (1 - weight)
    mixture = (lgamma(a + gray), lgamma(b + stable), -lgamma(a + b + gray + stable), lgamma(a + b))
    return fsum((*mixture, -lgamma(a), -lgamma(b), -gray * log(weight), -stable * log1p(-weight)))
