"""Intervals of what is drawn: rates, quantiles and their differences, 95 % each. They are no verdicts.

Whoever looks at many of them sees some that are wrong. What is safe to look at all day is in `statistics`.
"""

from collections.abc import Sequence
from itertools import accumulate
from math import ceil, hypot, inf, sqrt
from typing import NamedTuple

# The standard normal quantile of 97.5 %.
Z = 1.959963984540054


class Interval(NamedTuple):
    """Lower and upper end; infinite where the figures do not bound it."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A measured value and its interval."""

    value: float
    low: float
    high: float


def wilson(events: float, requests: float) -> Estimate:
    """The rate of events and its Wilson interval; [0, 1] without requests."""
    if not requests:
        return Estimate(0.0, 0.0, 1.0)
    rate = events / requests
    z_squared = Z * Z / requests
    centre = (rate + z_squared / 2) / (1 + z_squared)
    half = sqrt(rate * (1 - rate) * z_squared + z_squared * z_squared / 4) / (1 + z_squared)
    # At the ends the formula gives 0 and 1, but for rounding.
    low = 0.0 if events == 0 else centre - half
    high = 1.0 if events == requests else centre + half
    return Estimate(rate, low, high)


def difference(one: Estimate, other: Estimate) -> Interval:
    """The interval of `one` minus `other`: Newcombe's (method 10) for two Wilson intervals.

    The same combination of the ends of two intervals is used for quantiles.
    """
    gap = one.value - other.value
    low = gap - hypot(one.value - one.low, other.high - other.value)
    high = gap + hypot(one.high - one.value, other.value - other.low)
    return Interval(low, high)


def quantile(counts: Sequence[int], edges: Sequence[float], share: float) -> Estimate | None:
    """A quantile of values in buckets, with its order-statistic interval widened to the edges of buckets.

    Args:
        counts: number of values by bucket.
        edges: upper edge of each bucket, rising; the first bucket begins at 0.
        share: the quantile, in (0, 1).

    Returns:
        The middle of the bucket (on a logarithmic scale) that holds the value, and the edges around the ranks
        n * share -+ 1.96 * sqrt(n * share * (1 - share)); None without values. Where a rank is beyond the last value,
        the upper end is infinite.
    """
    ranks = list(accumulate(counts))
    total = ranks[-1] if ranks else 0
    if not total:
        return None
    around = Z * sqrt(total * share * (1 - share))
    middle = _bucket(ranks, ceil(round(total * share, 9)))
    lowest = _bucket(ranks, max(int(total * share - around), 1))
    highest = ceil(total * share + around)
    high = edges[_bucket(ranks, highest)] if highest <= total else inf
    return Estimate(_middle(edges, middle), edges[lowest - 1] if lowest else 0.0, high)


def _bucket(ranks: Sequence[int], rank: int) -> int:
    """The bucket that holds the value of a rank, which is from 1 to the number of values."""
    return next(index for index, last in enumerate(ranks) if last >= max(rank, 1))


def _middle(edges: Sequence[float], bucket: int) -> float:
    return sqrt(edges[bucket - 1] * edges[bucket]) if bucket else edges[0]
