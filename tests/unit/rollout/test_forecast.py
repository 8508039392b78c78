"""What `release plan` foretells: how long steps take, and what they find, by the statistics that judge releases."""

from math import exp
from random import Random
from typing import Any

import pytest

from canary_mw.config.canary.plan import plan_of
from canary_mw.rollout.forecast import StepForecast, Traffic, forecast, poisson
from canary_mw.rollout.statistics import Arm, excess_upper, exposures_needed
from canary_mw.rules.plan import Plan


def steps(*weights: float, pause: float = 600) -> list[dict[str, object]]:
    written: list[dict[str, object]] = []
    for each in weights:
        written += [{"setWeight": each}, {"pause": {"duration": pause}}]
    return written[:-1]


def plan(*weights: float, pause: float = 600, **fields: object) -> Plan:
    return plan_of({"steps": steps(*weights, pause=pause), "analysis": {}, **fields})


def by_weight(found: list[StepForecast]) -> dict[float, StepForecast]:
    return {each.weight: each for each in found}


def test_without_failures_a_step_needs_what_the_bound_needs() -> None:
    found = forecast(plan(1, 5, 25, 50, 100, analysis={"metrics": [{"name": "error_rate"}]}), Traffic(1, 0))
    assert [each.exposures for each in found] == [56, 279, 558, 1115, 0]
    assert [each.seconds for each in found] == [5600, 5580, 2232, 2230, 0]
    assert [each.item for each in found] == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("error_rate", [0.001, 0.005, 0.02])
def test_with_failures_it_needs_more_and_keeps_the_margin_then(error_rate: float) -> None:
    (first, _) = forecast(plan(10, 50), Traffic(100, error_rate))[:2]
    assert first.exposures is not None
    gray = Arm(round(first.exposures * error_rate), first.exposures)
    stable = Arm(round(first.exposures * 9 * error_rate), first.exposures * 9)
    upper = excess_upper(gray, stable)
    assert upper is not None
    assert upper * 0.5 == pytest.approx(0.005, rel=0.15)
    assert exposures_needed(gray, stable, 0.5, 0.005) == pytest.approx(first.exposures, rel=0.15)


def test_a_holdback_needs_no_less_before_the_last_step() -> None:
    """The bake ends with everybody in gray."""
    whole, held = (forecast(plan(10, 50, 100, bake={"holdback": part}), Traffic(20, 0.005)) for part in (0, 50))
    assert held[1].exposures == whole[1].exposures
    assert [each.weight for each in held] == [10, 50, 50]
    assert [each.exposures for each in forecast(plan(100), Traffic(20, 0.005))] == [0]


def test_a_pause_is_the_least_and_traffic_the_rest() -> None:
    busy, slow = (forecast(plan(1, 100), Traffic(rate, 0.005))[0] for rate in (1e5, 1))
    assert busy.seconds == 600
    assert slow.seconds is not None
    assert slow.exposures is not None
    assert slow.seconds == pytest.approx(slow.exposures / 0.01)
    assert slow.late
    assert not busy.late


def test_few_users_are_never_enough() -> None:
    """A user shows nothing any more after its first failure in a step."""
    crowd, few, fewer = (forecast(plan(10, 100), Traffic(20, 0.005, users))[0] for users in (10**6, 5000, 150))
    endless = forecast(plan(10, 100), Traffic(20, 0.005))[0]
    assert crowd.seconds == pytest.approx(endless.seconds, rel=0.01)
    assert few.seconds is None or few.seconds > (crowd.seconds or 0)
    assert (fewer.seconds, fewer.metric, fewer.late, fewer.exposures) == (None, "minimum_keys", True, None)


def test_what_is_found_is_less_with_more_traffic_more_time_and_larger_weights() -> None:
    found = forecast(plan(5, 50, 100), Traffic(20, 0.005))
    harms = [each.found for each in found[:-1] if each.found is not None]
    assert harms == sorted(harms, reverse=True)
    assert len(harms) == 2
    assert min(harms) > 0.005
    # At 100 percent there is no stable to compare with.
    assert found[-1].found is None
    more = forecast(plan(5, 50, 100), Traffic(200, 0.005))
    assert all((a.found or 0) < (b.found or 1) for a, b in zip(more[:-1], found[:-1], strict=True))
    assert forecast(plan(5, 50, 100), Traffic(20, 0.005)) == found


def test_time_alone_finds_nothing_and_needs_nothing() -> None:
    by_time = plan_of({"steps": steps(5, 100)})
    assert [(each.exposures, each.seconds, each.found) for each in forecast(by_time, Traffic(1, 0.005))] == [
        (0, 600, None),
        (0, 0, None),
    ]
    advised = forecast(plan(5, 100, analysis={"mode": "advise"}), Traffic(1, 0.005))
    assert (advised[0].exposures, advised[0].seconds) == (0, 600)
    held = forecast(plan(5, 100, on_failure="hold"), Traffic(1, 0.005))
    assert held[0].found is None


def test_rates_of_other_metrics_count_where_they_are_known() -> None:
    paid = {"name": "paid", "kind": "event", "direction": "decrease"}
    both = plan(10, 50, 100, analysis={"metrics": [{"name": "error_rate"}, paid]})
    unknown, known = (forecast(both, Traffic(20, 0.005, rates=rates))[0] for rates in ({}, {"paid": 0.3}))
    assert unknown.metric == "error_rate"
    assert known.metric == "paid"
    assert (known.seconds or 0) > (unknown.seconds or 0)


def test_a_value_counts_as_often_as_it_is_recorded_above_its_quantile() -> None:
    def first(value: dict[str, Any], rate: float | None) -> StepForecast:
        metrics = [{"name": "error_rate"}, {"name": "basket", **value}]
        rates = {} if rate is None else {"basket": rate}
        return forecast(plan(10, 50, 100, analysis={"metrics": metrics}), Traffic(20, 0.005, rates=rates))[0]

    p90 = {"kind": "value", "quantiles": ["p90"], "margin": "0.5%"}
    assert first(p90, 0.2).exposures == first({"kind": "event"}, 0.2 * (1 - 0.9)).exposures
    assert (
        first({"kind": "value", "threshold": 5, "margin": "0.5%"}, 0.2).exposures
        == first({"kind": "event"}, 0.2).exposures
    )
    assert first(p90, None).metric == first(p90, 0.0).metric == "error_rate"


@pytest.mark.parametrize("mean", [0.0, 0.3, 7.0, 399.0, 401.0, 90_000.0])
def test_poisson_numbers_have_their_mean_and_grow_with_it(mean: float) -> None:
    random = Random(5)
    draws = [random.random() for _ in range(2000)]
    found = [poisson(each, mean) for each in draws]
    assert sum(found) / 2000 == pytest.approx(mean, abs=5 * (mean / 2000) ** 0.5)
    assert all(poisson(each, mean + 0.1) >= number for each, number in zip(draws, found, strict=True))
    if mean < 1:
        assert found.count(0) / 2000 == pytest.approx(exp(-mean), abs=0.05)
