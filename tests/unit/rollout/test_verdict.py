"""The verdict of a look: what lowers comes before what holds, and that before what raises."""

from dataclasses import replace

import pytest

from canary_mw.rollout.findings import ERROR_RATE, LATENCY, Metric, MetricEvidence, StepCounts, find
from canary_mw.rollout.statistics import Arm, Epoch, SeenKeys
from canary_mw.rollout.verdict import Look, Verdict, step_bound, verdict

BAD = [Epoch(0.1, 60, 90, 2000, 18000)]
CLEAN = StepCounts(Arm(0, 2000), Arm(0, 18000), 2000, 0, 18000, 0)
GOOD = MetricEvidence(ERROR_RATE, [[Epoch(0.1, 0, 0, 2000, 18000)]], [CLEAN])
READY = Look(findings={"v2": find([GOOD])}, evidence={"v2": [GOOD]}, gray_keys={"v2": 20}, next_weights={"v2": 0.5})


def findings(*evidence: MetricEvidence, seen: list[SeenKeys] | None = None) -> Look:
    return replace(READY, findings={"v2": find(evidence, seen or [])})


def with_evidence(*evidence: MetricEvidence) -> Look:
    return replace(READY, findings={"v2": find(evidence)}, evidence={"v2": evidence})


def test_a_step_up_needs_that_everything_is_shown() -> None:
    assert verdict(READY).kind == "step_up"


FAILING = MetricEvidence(ERROR_RATE, [BAD])
SLOW = MetricEvidence(LATENCY, [BAD])
HOLDING = MetricEvidence(Metric(name="basket", on_failure="hold"), [BAD])
WRONG_SPLIT = [SeenKeys(0.1, 1600, 8400)]


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (replace(findings(FAILING), latched=True), ("aborted", "the release was rolled back or aborted", "", "")),
        (findings(FAILING, seen=WRONG_SPLIT), ("roll_back", "gray fails more often", "v2", "error_rate")),
        (findings(SLOW), ("roll_back", "gray is slower", "v2", "latency")),
        (
            replace(findings(GOOD, seen=WRONG_SPLIT), external_failure="the query saturation failed"),
            ("roll_back", "the query saturation failed", "", ""),
        ),
        (findings(GOOD, seen=WRONG_SPLIT), ("hold", "assignment is not as drawn", "v2", "")),
        (findings(HOLDING), ("hold", "the metric has failed", "v2", "basket")),
        (replace(READY, next_weights={}), ("wait", "there is no next step", "", "")),
        (replace(READY, gates=["the pause is not over"]), ("wait", "the pause is not over", "", "")),
        (replace(READY, gray_keys={"v2": 19}), ("wait", "19 of 20 keys were seen in gray", "v2", "")),
        (replace(READY, findings={}), ("wait", "there is no evidence of this step", "v2", "")),
        (replace(READY, evidence={}), ("wait", "there is no evidence of this step", "v2", "")),
        (with_evidence(GOOD._replace(steps=[])), ("wait", "there is no evidence of this step", "v2", "error_rate")),
    ],
)
def test_the_order_of_verdicts(look: Look, expected: tuple[str, ...]) -> None:
    assert verdict(look)[:4] == expected


def test_suspicion_waits_also_before_enough_keys_failed() -> None:
    suspicious = GOOD._replace(series=[[Epoch(0.01, 2, 1, 2000, 200_000)]])
    assert verdict(with_evidence(suspicious))[:4] == ("wait", "gray is under suspicion", "v2", "error_rate")


def test_what_is_still_needed_is_said() -> None:
    few = GOOD._replace(steps=[StepCounts(Arm(0, 100), Arm(0, 900))])
    reason = "the next step could hit more than the margin"
    assert verdict(with_evidence(few)) == Verdict("wait", reason, "v2", "error_rate", 458, "margin")


def test_every_variant_has_to_be_shown() -> None:
    second = replace(READY, next_weights={"v2": 0.5, "v3": 0.5})
    assert verdict(second)[:3] == ("wait", "there is no evidence of this step", "v3")


def test_few_users_who_fail_again_and_again_brake_a_step() -> None:
    # 3 first failures, and 90 failing requests behind them.
    again = StepCounts(Arm(3, 5000), Arm(10, 5000), 5000, 90, 5000, 10)
    bound = step_bound(again, ERROR_RATE, 1.0)
    assert bound.excess_upper is not None
    assert bound.excess_upper <= ERROR_RATE.margin
    assert (bound.keeps, bound.needed) == (False, None)
    assert step_bound(again, ERROR_RATE, 0.25).keeps


def test_fewer_events_are_bounded_with_the_variants_exchanged() -> None:
    orders = Metric(name="orders", direction="decrease", margin=0.05)
    fewer = StepCounts(Arm(100, 1000), Arm(300, 1000), 1000, 100, 1000, 300)
    assert not step_bound(fewer, orders, 1.0).keeps
    assert step_bound(fewer.swapped(), orders, 1.0).keeps


def test_nothing_seen_is_nothing_shown() -> None:
    empty = GOOD._replace(steps=[StepCounts(Arm(0, 0), Arm(0, 0))])
    assert verdict(with_evidence(empty)).kind == "wait"
