"""Weights, evidence and verdicts as metrics."""

import json
from collections.abc import Mapping as Dict

import pytest

from canary_mw.observability.attempts.release_metrics import release_families
from canary_mw.observability.evidence import ArmCounts, EpochKey, Evidence
from canary_mw.observability.figures.values import Figures, History, SeriesKey, Snapshot

Arms = Dict[str, ArmCounts]
EVEN = {"gray": ArmCounts(2000, 10, 1990, (), 10), "stable": ArmCounts(18_000, 90, 17_910, (), 90)}
BAD = {"gray": ArmCounts(2000, 60, 1940, (), 60), "stable": ArmCounts(18_000, 90, 17_910, (), 90)}
GONE = {"gray": ArmCounts(), "stable": ArmCounts()}


def figures(
    *epochs: tuple[dict[str, float], Arms], requests: int = 0, errors: int = 0, reason: str = "sticky"
) -> Figures:
    known = {EpochKey("r", 1, json.dumps(weights)): arms for weights, arms in epochs}
    names = {name for weights, _ in epochs for name in weights}
    now = Snapshot(requests, errors)
    return Figures(
        now=1000.0,
        evidence={"r": Evidence(epochs=known)},
        histories={SeriesKey("r", name): History(now, {700: Snapshot()}) for name in names},
        counters={("assignments", "r", "gray", reason): 1},
    )


def samples(found: Figures, name: str) -> dict[tuple[str, ...], float]:
    (family,) = [each for each in release_families(found) if each.name == name]
    return {tuple(sample.labels.values())[1:]: sample.value for sample in family.samples}


def state(found: Figures) -> str:
    said = samples(found, "canary_mw_verdict")
    assert sum(said.values()) == 1
    assert len(said) == 7
    return next(labels[0] for labels, value in said.items() if value)


SPLIT: dict[str, float] = {"gray": 10, "stable": 90}


def test_weights_are_those_of_the_last_epoch() -> None:
    found = figures(({"gray": 1, "stable": 99}, EVEN), (SPLIT, EVEN))
    assert samples(found, "canary_mw_weight_ratio") == {("gray",): 0.1, ("stable",): 0.9}


def test_evidence_is_told_by_metric() -> None:
    told = samples(figures((SPLIT, BAD)), "canary_mw_release_evidence_log")
    assert told["error_rate",] > 4.6
    assert told["latency",] == 0


@pytest.mark.parametrize(
    ("arms", "requests", "errors", "expected"),
    [
        (BAD, 2000, 0, "worse"),
        (EVEN, 20_000, 100, "same"),
        (EVEN, 41, 0, "not_enough"),
    ],
)
def test_a_release_has_one_state(arms: Arms, requests: int, errors: int, expected: str) -> None:
    assert state(figures((SPLIT, arms), requests=requests, errors=errors)) == expected


def test_a_release_whose_gray_has_no_weight_and_no_requests_is_off() -> None:
    assert state(figures((SPLIT, BAD), ({"gray": 0, "stable": 100}, GONE))) == "off"


def test_the_worst_of_several_variants_counts() -> None:
    arms = {"v2": EVEN["gray"], "v3": BAD["gray"], "stable": EVEN["stable"]}
    found = figures(({"v2": 9, "v3": 9, "stable": 82}, arms), requests=20_000, errors=100)
    assert state(found) == "worse"
    alone = samples(figures((SPLIT, BAD)), "canary_mw_release_evidence_log")
    assert samples(found, "canary_mw_release_evidence_log")["error_rate",] == pytest.approx(
        alone["error_rate",], rel=0.2
    )


@pytest.mark.parametrize(("reason", "expected"), [("weight", "split_off"), ("roll", "split_off"), ("sticky", "same")])
def test_only_requests_that_are_drawn_one_by_one_have_to_come_as_the_weights_say(reason: str, expected: str) -> None:
    off = {"gray": ArmCounts(4000, 20, 4000, (), 20), "stable": ArmCounts(16_000, 180, 16_000, (), 180)}
    assert state(figures((SPLIT, off), requests=20_000, errors=100, reason=reason)) == expected


def test_without_evidence_nothing_is_told() -> None:
    assert [family.samples for family in release_families(Figures())] == [[], [], []]
    assert [family.samples for family in release_families(Figures(evidence={"r": Evidence()}))] == [[], [], []]
