"""Buckets of latencies, and quantiles that are read from them."""

from collections.abc import Callable
from random import Random

import pytest

from canary_mw.observability.figures.buckets import BOUNDS, COUNT, bucket_of, nearest_bound, quantile, quantile_bucket


def counted(values: list[float]) -> list[int]:
    buckets = [0] * COUNT
    for value in values:
        buckets[bucket_of(value)] += 1
    return buckets


@pytest.mark.parametrize("index", range(COUNT))
def test_a_bound_ends_its_bucket(index: int) -> None:
    assert bucket_of(BOUNDS[index] * 0.9999) == index
    assert bucket_of(BOUNDS[index] * 1.0001) == min(index + 1, COUNT - 1)


@pytest.mark.parametrize(("seconds", "index"), [(0.0, 0), (-1.0, 0), (1e-9, 0), (1e9, COUNT - 1)])
def test_what_is_beyond_the_bounds_is_in_the_outer_buckets(seconds: float, index: int) -> None:
    assert bucket_of(seconds) == index


def test_there_are_eight_buckets_an_octave_up_to_128_seconds() -> None:
    assert BOUNDS[-1] == 128.0
    assert BOUNDS[8] / BOUNDS[0] == pytest.approx(2.0)


@pytest.mark.parametrize("seconds", [0.005, 0.01, 0.025, 0.1, 1.0, 30.0, 1e-9, 1e9])
def test_the_nearest_bound_is_the_nearest_one(seconds: float) -> None:
    ratios = [max(bound / seconds, seconds / bound) for bound in BOUNDS]
    assert ratios[nearest_bound(seconds)] == min(ratios)


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_quantiles_are_right_within_half_a_bucket(share: float) -> None:
    random = Random(7)
    draws: list[Callable[[], float]] = [
        lambda: random.expovariate(20),
        lambda: random.lognormvariate(-3, 1),
        lambda: random.uniform(0.01, 2),
    ]
    for draw in draws:
        values = sorted(draw() for _ in range(5000))
        exact = values[max(0, -int(-len(values) * share // 1) - 1)]
        assert quantile(counted(values), share) == pytest.approx(exact, rel=0.045)


def test_there_is_no_quantile_of_nothing() -> None:
    assert quantile([0] * COUNT, 0.5) is None
    assert quantile_bucket([0] * COUNT, 0.5) is None
