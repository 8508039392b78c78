"""The counts of a release as evidence: which of them are compared, and with which weight."""

import json

from canary_mw.observability.evidence import ArmCounts, EpochKey, Evidence, Threshold
from canary_mw.observability.judgement import judge, metric_evidence
from canary_mw.rollout.findings import ERROR_RATE, LATENCY
from canary_mw.rollout.statistics import Epoch


def epoch(weights: dict[str, float], **arms: ArmCounts) -> tuple[EpochKey, dict[str, ArmCounts]]:
    return EpochKey("r", 1, json.dumps(weights)), arms


LIMITS = (Threshold("p95", 0.1), Threshold("p99", 0.3))
FIRST = epoch(
    {"v2": 10, "v3": 10, "stable": 80},
    v2=ArmCounts(1000, 40, 990, (980, 985), 30, (50, 9)),
    v3=ArmCounts(1000, 5, 990, (980, 985), 4, (50, 10)),
    stable=ArmCounts(8000, 40, 7900, (7800, 7850), 40, (400, 80)),
)
# Before there were thresholds, and before v3 got anything.
EARLY = epoch({"v2": 50, "stable": 50}, v2=ArmCounts(100, 1, 99, (), 1), stable=ArmCounts(90, 1, 89, (), 1))


def test_each_variant_is_compared_with_stable_by_their_weights_alone() -> None:
    errors, latency = metric_evidence(Evidence(thresholds=LIMITS, epochs=dict([EARLY, FIRST])), "v2")
    assert errors == (ERROR_RATE, [[Epoch(0.5, 1, 1, 99, 89), Epoch(10 / 90, 30, 40, 990, 7900)]], ())
    assert latency.metric is LATENCY
    assert latency.series == [
        [Epoch(0.5, 0, 0, 0, 0), Epoch(10 / 90, 50, 400, 980, 7800)],
        [Epoch(0.5, 0, 0, 0, 0), Epoch(10 / 90, 9, 80, 985, 7850)],
    ]


def test_a_variant_that_an_epoch_does_not_know_has_nothing_there() -> None:
    errors, _ = metric_evidence(Evidence(thresholds=LIMITS, epochs=dict([EARLY])), "v3")
    assert errors.series == [[Epoch(0.0, 0, 1, 0, 89)]]


def test_before_there_are_thresholds_nothing_is_slow() -> None:
    assert metric_evidence(Evidence(epochs=dict([EARLY])), "v2")[1] == (LATENCY, [], ())


def test_the_bad_variant_is_found_and_the_other_is_not() -> None:
    found = judge(Evidence(thresholds=LIMITS, epochs=dict([FIRST])), ["v2", "v3"])
    assert (found["v2"].worse, found["v3"].worse) == (True, False)


def test_only_requests_that_are_drawn_one_by_one_have_to_come_as_the_weights_say() -> None:
    off = epoch({"v2": 10, "stable": 90}, v2=ArmCounts(2000), stable=ArmCounts(8000))
    assert judge(Evidence(epochs=dict([off])), ["v2"], rolls=True)["v2"].split_off
    assert not judge(Evidence(epochs=dict([off])), ["v2"])["v2"].split_off
