"""Latency buckets: 8 per octave from 67 µs to 128 s, as in Prometheus' native histograms of schema 3.

A quantile that is read from them is right within ±4.4 %.
"""

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil, log2

PER_OCTAVE = 8
COUNT = 168
# Bucket 0 holds what is not longer than 2^(-111/8) seconds; the last one also what is longer than its bound.
_OFFSET = 111

# The upper bound of every bucket, in seconds.
BOUNDS = tuple(2.0 ** ((index - _OFFSET) / PER_OCTAVE) for index in range(COUNT))
_SHORTEST = BOUNDS[0]


def bucket_of(seconds: float) -> int:
    """The bucket of a duration."""
    if seconds <= _SHORTEST:
        return 0
    index = ceil(log2(seconds) * PER_OCTAVE) + _OFFSET
    return index if index < COUNT else COUNT - 1


def nearest_bound(seconds: float) -> int:
    """The bucket whose upper bound is the nearest to a duration, as a ratio."""
    index = bisect_left(BOUNDS, seconds)
    if index == 0 or index == COUNT:
        return min(index, COUNT - 1)
    return index if BOUNDS[index] / seconds < seconds / BOUNDS[index - 1] else index - 1


def quantile_bucket(buckets: Sequence[int], quantile: float) -> int | None:
    """The bucket that holds a quantile by nearest rank, None without any requests.

    Args:
        quantile: in (0, 1].
    """
    total = sum(buckets)
    rank = max(1, ceil(total * quantile))
    passed = 0
    for index, count in enumerate(buckets):
        passed += count
        if passed >= rank:
            return index if total else None
    return None


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """A quantile in seconds, at the geometric middle of its bucket; None without any requests."""
    index = quantile_bucket(buckets, share)
    return None if index is None else BOUNDS[index] / 2.0 ** (0.5 / PER_OCTAVE)
