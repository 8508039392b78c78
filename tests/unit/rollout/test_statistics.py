"""Tests that are valid at every look: their edges, and what they must not depend on. Exact values: conformance."""

from decimal import Decimal, localcontext
from math import exp, inf, isclose, log
from random import Random

import pytest

from canary_mw.rollout.statistics import (
    Arm,
    Epoch,
    SeenKeys,
    attribution,
    excess_upper,
    exposures_needed,
    hazard_bounds,
    least,
    ln_needed,
    log_mean_exp,
    nearest_rank,
    pair_weight,
    pooled_excess,
    sample_ratio,
)


def exact_attribution(epochs: list[Epoch], tolerated: float) -> Decimal:
    """ln E as the sum of the definition, in 60 digits: without logarithms of sums and without any rearrangement."""
    with localcontext(prec=60):
        total, priors = Decimal(0), sum(1 / Decimal(i) for i in range(1, 21))
        for j in range(1, 21):
            ratio = Decimal(2) ** (Decimal(j) / 2)
            product = 1 / Decimal(j) / priors
            for weight, gray, stable, *_ in epochs:
                w, t = Decimal(weight), Decimal(tolerated)
                bet, null = w * t * ratio / (w * t * ratio + 1 - w), w * t / (w * t + 1 - w)
                product *= (bet / null) ** gray * ((1 - bet) / (1 - null)) ** stable
            total += product
        return total.ln()


@pytest.mark.parametrize("seed", range(20))
def test_attribution_is_what_its_definition_gives_in_60_digits(seed: int) -> None:
    random = Random(seed)
    epochs = [
        Epoch(random.choice((0.001, 0.05, 0.25, 0.5, 0.999)), random.randrange(60), random.randrange(400))
        for _ in range(random.randrange(1, 5))
    ]
    tolerated = random.choice((1.0, 1.2, 3.0))
    assert isclose(attribution(epochs, tolerated), float(exact_attribution(epochs, tolerated)), rel_tol=4e-13)


def test_no_failures_are_no_evidence() -> None:
    assert attribution([]) == pytest.approx(0.0, abs=1e-15)
    assert attribution([Epoch(0.1, 0, 0)]) == pytest.approx(0.0, abs=1e-15)


def test_an_epoch_counts_the_same_in_pieces_and_in_any_order() -> None:
    whole = [Epoch(0.1, 7, 40), Epoch(0.5, 3, 2)]
    pieces = [Epoch(0.5, 1, 0), Epoch(0.1, 3, 1), Epoch(0.1, 4, 39), Epoch(0.5, 2, 2)]
    assert attribution(pieces) == pytest.approx(attribution(whole), rel=1e-12)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_epoch_without_the_other_variant_says_nothing(weight: float) -> None:
    alone = Epoch(weight, 50, 60, 100, 100)
    assert attribution([alone, Epoch(0.1, 7, 40)]) == attribution([Epoch(0.1, 7, 40)])
    assert sample_ratio([SeenKeys(weight, 50, 60)]) == 0.0


def test_fewer_is_worse_exchanges_the_variants() -> None:
    assert attribution([Epoch(0.25, 8, 2)], direction="decrease") == attribution([Epoch(0.75, 2, 8)])


def test_the_mean_of_e_values_survives_what_exp_does_not() -> None:
    assert log_mean_exp([2000.0, -2000.0], [1, 1]) == pytest.approx(2000 - log(2))
    assert log_mean_exp([-inf, 3.0], [1, 3]) == pytest.approx(3 + log(0.75))
    assert log_mean_exp([-inf, -inf], [1, 1]) == -inf
    assert log_mean_exp([], []) == -inf


def test_each_variant_and_each_lone_process_raises_what_is_needed() -> None:
    assert exp(ln_needed(0.01)) == pytest.approx(100)
    assert exp(ln_needed(0.01, gray_variants=3, alone_of=4)) == pytest.approx(1200)


def test_a_pair_of_variants_shares_what_both_get() -> None:
    assert pair_weight(10, 40) == 0.2
    assert pair_weight(0, 0) == 0


def test_the_excess_is_pooled_over_epochs_by_the_requests_of_gray() -> None:
    # 2 % against 1 % in 100 requests, 4 % against 4 % in 300.
    epochs = [Epoch(0.1, 2, 10, 100, 1000), Epoch(0.5, 12, 12, 300, 300)]
    assert pooled_excess(epochs) == pytest.approx(0.01 * 100 / 400)
    assert pooled_excess(epochs, "decrease") == pytest.approx(-0.01 * 1000 / 1300)


def test_there_is_no_excess_without_requests_of_both() -> None:
    assert pooled_excess([Epoch(0.1, 0, 3, 0, 300), Epoch(1.0, 3, 0, 100, 0)]) is None


@pytest.mark.parametrize(
    ("quantile", "count", "rank"), [(0.07, 100, 7), (0.29, 100, 29), (0.95, 2000, 1900), (0.99, 1, 1), (1.0, 5, 5)]
)
def test_the_nearest_rank_is_not_moved_by_rounding(quantile: float, count: int, rank: int) -> None:
    values = list(range(1, count + 1))
    Random(1).shuffle(values)
    assert nearest_rank(values, quantile) == rank


def test_bounds_of_a_hazard_are_roots() -> None:
    for failures in (0, 1, 17, 5000):
        lower, upper = hazard_bounds(failures, 0.025)
        assert lower <= failures < upper


def test_without_a_failure_a_step_needs_what_is_at_stake() -> None:
    needed = [exposures_needed(Arm(0, 0), Arm(0, 0), weight, 0.005) for weight in (0.05, 0.25, 0.5, 1.0)]
    assert needed == [56, 279, 558, 1115]


def test_what_is_needed_is_enough_and_one_request_less_is_not() -> None:
    needed = exposures_needed(Arm(0, 40), Arm(0, 400), 0.25, 0.005)
    assert needed is not None
    for exposures, enough in ((needed - 1, False), (needed, True)):
        upper = excess_upper(Arm(0, exposures), Arm(0, exposures * 10))
        assert upper is not None
        assert (upper * 0.25 <= 0.005) is enough


def test_more_requests_do_not_help_where_the_excess_itself_is_too_high() -> None:
    assert exposures_needed(Arm(30, 1000), Arm(10, 1000), 1.0, 0.005) is None


def test_an_excess_is_not_bounded_without_requests_of_both() -> None:
    assert excess_upper(Arm(0, 0), Arm(3, 900)) is None
    assert excess_upper(Arm(0, 12), Arm(0, 0)) is None


def test_the_least_number_is_found_or_given_up() -> None:
    assert least(lambda number: number >= 1, 1) == 1
    assert least(lambda number: number >= 777, 5) == 777
    assert least(lambda number: False, 1, most=1000) is None


def test_a_wrong_split_is_found_in_all_epochs_together() -> None:
    wrong = [SeenKeys(0.1, 600, 4400), SeenKeys(0.2, 1200, 3800)]
    assert sample_ratio(wrong) == pytest.approx(sum(sample_ratio([each]) for each in wrong))
    assert sample_ratio(wrong) > log(1000)
    assert sample_ratio([SeenKeys(0.1, 500, 4500)]) < 0
