"""Numbers as people read them."""

import pytest

from canary_mw.rollout.formatting import count, duration, percents, points, share, waiting_time


@pytest.mark.parametrize(
    ("rates", "texts"),
    [
        ((0.0314, 0.0041), ("3.1 %", "0.4 %")),
        ((0.00335, 0.003), ("0.34 %", "0.30 %")),
        ((0.031, 0.0311), ("3.10 %", "3.11 %")),
        ((0.031, 0.03101), ("3.10 %", "3.10 %")),
        ((0.0002, 0.00004), ("0.020 %", "0.004 %")),
        ((0.004, 0.004), ("0.4 %", "0.4 %")),
        ((0.0, 0.004), ("0.0 %", "0.4 %")),
        ((1e-9, 0.004), ("0.00 %", "0.40 %")),
        ((1.0,), ("100.0 %",)),
    ],
)
def test_rates_have_the_decimals_that_tell_them_apart(rates: tuple[float, ...], texts: tuple[str, ...]) -> None:
    assert percents(*rates) == texts


def test_differences_have_a_sign() -> None:
    assert points(-0.001, 0.002) == ("−0.1", "+0.2")
    assert points(-0.0002, 0.002) == ("−0.02", "+0.20")
    assert points(-0.0, 0.0) == ("+0.0", "+0.0")


@pytest.mark.parametrize(
    ("percent", "text"), [(20, "20 %"), (0.5, "0.5 %"), (100.0, "100 %"), (33.333333, "33.3333 %")]
)
def test_a_weight_has_no_needless_decimals(percent: float, text: str) -> None:
    assert share(percent) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0021, "2.1 ms"),
        (0.00996, "10 ms"),
        (0.212, "212 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1.87, "1.9 s"),
        (45.2, "45 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 minute"),
        (89, "1 minute"),
        (540, "9 minutes"),
        (119 * 60, "119 minutes"),
        (3 * 3600, "3 hours"),
        (3 * 86400, "3 days"),
        (4e8, "4,630 days"),
    ],
)
def test_times_that_are_not_known_well(seconds: float, text: str) -> None:
    assert waiting_time(seconds) == text


def test_thousands_are_told_apart() -> None:
    assert count(12480) == "12,480"
