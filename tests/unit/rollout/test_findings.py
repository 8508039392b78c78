"""What the evidence on all metrics together says about a gray variant."""

from math import log

import pytest

from canary_mw.rollout.findings import ERROR_RATE, LATENCY, Findings, Metric, MetricEvidence, find, onset
from canary_mw.rollout.statistics import Epoch, SeenKeys

EQUAL = [Epoch(0.1, 10, 90, 2000, 18000)]
BAD = [Epoch(0.1, 60, 90, 2000, 18000)]
GOOD = [Epoch(0.5, 10, 90, 10000, 10000)]
HOLDING = Metric(name="basket", on_failure="hold")


def of(*evidence: MetricEvidence, **more: object) -> Findings:
    return find(evidence, **more)  # type: ignore[arg-type]


def errors(*epochs: Epoch) -> MetricEvidence:
    return MetricEvidence(ERROR_RATE, [epochs])


def flags(found: Findings) -> list[str]:
    return [name for name in ("worse", "slower", "better", "split_off") if getattr(found, name)]


def test_no_evidence_says_nothing() -> None:
    found = of()
    assert flags(found) == []
    assert found.culprit is None


def test_gray_that_fails_more_often_is_worse() -> None:
    found = of(errors(*BAD))
    assert flags(found) == ["worse"]
    assert found.culprit is not None
    assert found.culprit.metric is ERROR_RATE
    assert found.culprit.failures == 60
    assert found.culprit.excess == pytest.approx(60 / 2000 - 90 / 18000)


def test_gray_that_fails_as_often_is_nothing() -> None:
    assert flags(of(errors(*EQUAL))) == []


def test_gray_that_fails_less_often_is_better() -> None:
    assert flags(of(errors(*GOOD))) == ["better"]


def test_gray_that_is_faster_is_not_called_better() -> None:
    assert flags(of(MetricEvidence(LATENCY, [GOOD, GOOD]))) == []


def test_slow_at_one_threshold_is_enough_for_slower() -> None:
    assert flags(of(errors(*EQUAL), MetricEvidence(LATENCY, [EQUAL, BAD]))) == ["slower"]


def test_the_metric_with_the_most_evidence_gives_its_name() -> None:
    worst = [Epoch(0.1, 90, 90, 2000, 18000)]
    assert flags(of(errors(*worst), MetricEvidence(LATENCY, [BAD]))) == ["worse"]
    assert flags(of(errors(*BAD), MetricEvidence(LATENCY, [worst]))) == ["slower"]


def test_failures_that_are_too_few_are_not_called_worse() -> None:
    few = [Epoch(0.001, 4, 1, 100, 100_000)]
    assert of(errors(*few)).ln_e > log(100)
    assert flags(of(errors(*few))) == []


def test_an_excess_that_is_too_small_is_not_called_worse() -> None:
    small = [Epoch(0.5, 300, 150, 1_000_000, 1_000_000)]
    assert of(errors(*small)).ln_e > log(100)
    assert flags(of(errors(*small))) == []
    assert flags(find([MetricEvidence(Metric(name="error_rate", ignore_below=0.0001), [small])])) == ["worse"]


def test_evidence_that_does_not_count_helps_no_other_metric() -> None:
    small = [Epoch(0.5, 300, 150, 1_000_000, 1_000_000)]
    found = of(errors(*small), MetricEvidence(LATENCY, [EQUAL]))
    assert found.ln_e > found.ln_needed
    assert flags(found) == []


def test_more_metrics_share_one_budget() -> None:
    # E is between 100 and 200: half of it does not reach 100.
    border = [Epoch(0.1, 18, 56, 2000, 18000)]
    alone, beside = of(errors(*border)), of(errors(*border), MetricEvidence(LATENCY, []))
    assert log(100) < alone.ln_e < log(199)
    assert beside.ln_e == pytest.approx(alone.ln_e - log(2), abs=0.02)
    assert (flags(alone), flags(beside)) == (["worse"], [])


def test_more_variants_and_lone_processes_need_more() -> None:
    border = [Epoch(0.1, 18, 56, 2000, 18000)]
    assert flags(of(errors(*border))) == ["worse"]
    assert flags(of(errors(*border), gray_variants=2)) == []
    assert flags(of(errors(*border), alone_of=2)) == []
    assert flags(of(errors(*border), gray_variants=2, alpha=0.02)) == ["worse"]


def test_a_metric_that_holds_never_rolls_back_and_has_a_budget_of_its_own() -> None:
    found = of(MetricEvidence(HOLDING, [BAD]), errors(*EQUAL))
    assert flags(found) == []
    assert found.held_by is not None
    assert found.held_by.metric is HOLDING
    assert found.ln_e == of(errors(*EQUAL)).ln_e


def test_fewer_events_are_worse_where_the_metric_says_so() -> None:
    orders = Metric(name="orders", direction="decrease")
    fewer = [Epoch(0.5, 100, 400, 5000, 5000)]
    assert flags(of(MetricEvidence(orders, [fewer]))) == ["worse"]
    assert flags(of(MetricEvidence(orders, [[each.swapped() for each in fewer]]))) == []


def test_keys_that_do_not_come_as_drawn_are_found() -> None:
    found = of(errors(*EQUAL), seen=[SeenKeys(0.1, 1600, 8400)])
    assert flags(found) == ["split_off"]
    assert flags(of(errors(*EQUAL), seen=[SeenKeys(0.1, 1000, 9000)])) == []


def test_the_step_with_which_gray_got_worse_is_found() -> None:
    good, bad = Epoch(0.05, 2, 30, 1000, 19_000), Epoch(0.2, 90, 60, 3000, 12_000)
    assert onset([good, bad]) == 1
    assert onset([good, good, bad, bad]) == 2
    assert onset([bad, bad]) is None
    assert onset([bad]) is None
    assert onset([]) is None


def test_without_enough_before_it_no_step_is_blamed() -> None:
    few, bad = Epoch(0.01, 0, 3, 20, 1980), Epoch(0.2, 90, 60, 3000, 12_000)
    assert onset([few, bad]) is None
    assert onset([Epoch(0.0, 0, 3, 0, 1980), bad]) is None
