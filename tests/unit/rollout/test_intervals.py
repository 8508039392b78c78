"""Intervals against the tables of the papers that they are from."""

from math import inf

import pytest

from canary_mw.rollout.intervals import Estimate, difference, quantile, wilson

# Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
WILSON = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
]
# Newcombe 1998, "Interval estimation for the difference between independent proportions", table II, method 10.
NEWCOMBE = [
    (56, 70, 48, 80, 0.0524, 0.3339),
    (9, 10, 3, 10, 0.1705, 0.8090),
    (6, 7, 2, 7, 0.0582, 0.8062),
    (5, 56, 0, 29, -0.0381, 0.1926),
    (0, 10, 0, 20, -0.1611, 0.2775),
    (0, 10, 0, 10, -0.2775, 0.2775),
    (10, 10, 0, 20, 0.6791, 1.0),
    (10, 10, 0, 10, 0.6075, 1.0),
]


@pytest.mark.parametrize(("events", "requests", "low", "high"), WILSON)
def test_wilson(events: int, requests: int, low: float, high: float) -> None:
    estimate = wilson(events, requests)
    assert estimate.value == events / requests
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)


def test_without_requests_a_rate_may_be_anything() -> None:
    assert wilson(0, 0) == Estimate(0.0, 0.0, 1.0)


def test_the_ends_of_a_rate_are_exact() -> None:
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


@pytest.mark.parametrize(("a", "m", "b", "n", "low", "high"), NEWCOMBE)
def test_newcombe(a: int, m: int, b: int, n: int, low: float, high: float) -> None:
    interval = difference(wilson(a, m), wilson(b, n))
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


EDGES = [1.0, 2.0, 4.0, 8.0, 16.0]


def test_a_quantile_is_the_middle_of_its_bucket_between_edges_of_its_ranks() -> None:
    # 1,000 values: the ranks around the median are 469 and 531.
    assert quantile([100, 368, 62, 400, 70], EDGES, 0.5) == pytest.approx((8**0.5, 2.0, 8.0))
    assert quantile([100, 368, 63, 399, 70], EDGES, 0.5) == pytest.approx((8**0.5, 2.0, 4.0))
    assert quantile([100, 369, 62, 399, 70], EDGES, 0.5) == pytest.approx((8**0.5, 1.0, 4.0))


def test_a_quantile_beyond_the_last_value_is_not_bounded() -> None:
    assert quantile([18, 2, 0, 0, 0], EDGES, 0.95) == pytest.approx((2**0.5, 0.0, inf))
    assert quantile([1, 0, 0, 0, 0], EDGES, 0.5) == Estimate(1.0, 0.0, inf)


def test_no_values_have_no_quantile() -> None:
    assert quantile([], [], 0.5) is None
    assert quantile([0, 0], [1.0, 2.0], 0.5) is None


def test_a_quantile_without_an_end_has_a_difference_without_one() -> None:
    assert difference(Estimate(3.0, 2.0, inf), Estimate(1.0, 0.5, 1.5)) == pytest.approx((2 - 1.25**0.5, inf))
