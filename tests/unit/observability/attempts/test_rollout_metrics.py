"""How far releases with steps are, as metrics."""

from typing import Any, NamedTuple

import pytest

from canary_mw.observability.attempts.driven import NOTHING, Driven
from canary_mw.observability.attempts.rollout_metrics import rollout_families
from canary_mw.observability.evidence import ArmCounts, EpochKey, Evidence
from canary_mw.rollout.findings import ERROR_RATE, MetricEvidence, StepCounts, find
from canary_mw.rollout.state import PHASES, ReleaseState
from canary_mw.rollout.statistics import Arm, excess_upper
from canary_mw.rollout.verdict import Look


class Shown(NamedTuple):
    name: str
    state: ReleaseState | None
    look: Look | None = None


def told(driven: Driven, evidence: dict[str, Evidence] | None = None) -> dict[str, dict[tuple[str, ...], float]]:
    """The samples of each family, by the values of their labels."""
    return {
        family.name: {tuple(each.labels.values()): each.value for each in family.samples}
        for family in rollout_families(driven, evidence or {})
    }


def state(phase: Any, step: int = 1) -> ReleaseState:
    return ReleaseState(name="shop", phase=phase, step=step, weights={"gray": 25.0})


def test_the_phase_of_each_release_is_1_and_all_others_are_0() -> None:
    found = told(Driven([Shown("shop", state("Held")), Shown("new", None)], True))["canary_mw_release_phase"]
    assert found == {("shop", phase): float(phase == "Held") for phase in PHASES}


@pytest.mark.parametrize(
    ("phase", "number"), [("Progressing", 2), ("Paused", 2), ("Baking", 2), ("Pending", 0), ("RolledBack", 0)]
)
def test_the_step_is_the_number_of_the_weight_in_force(phase: str, number: int) -> None:
    assert told(Driven([Shown("shop", state(phase))]))["canary_mw_release_step"] == {("shop",): number}


def test_the_bound_is_the_largest_of_the_thresholds_and_variants() -> None:
    few, many = StepCounts(Arm(0, 500), Arm(0, 9000)), StepCounts(Arm(9, 500), Arm(2, 9000))
    evidence = {
        "a": [MetricEvidence(ERROR_RATE, [], [few])],
        "b": [MetricEvidence(ERROR_RATE, [], [few, many, StepCounts(Arm(0, 0), Arm(0, 0))])],
    }
    look = Look(findings={name: find(each) for name, each in evidence.items()}, evidence=evidence)
    found = told(Driven([Shown("shop", state("Progressing"), look)]))["canary_mw_release_excess_upper"]
    assert found == {("shop", "error_rate"): excess_upper(many.gray, many.stable)}


def test_a_bound_by_few_requests_is_no_more_than_everything() -> None:
    evidence = {"a": [MetricEvidence(ERROR_RATE, [], [StepCounts(Arm(1, 1), Arm(1, 1))])]}
    look = Look(findings={"a": find(evidence["a"])}, evidence=evidence)
    found = told(Driven([Shown("shop", state("Progressing"), look)]))["canary_mw_release_excess_upper"]
    assert found == {("shop", "error_rate"): 1.0}


def test_keys_are_those_of_the_attempt_of_releases_with_a_state() -> None:
    epochs = {
        EpochKey("shop", 1, "{}", step): {"stable": ArmCounts(seen=900), "gray": ArmCounts(seen=50 + step)}
        for step in (1, 2)
    }
    evidence = {"shop": Evidence(epochs=epochs), "other": Evidence(epochs=epochs)}
    found = told(Driven([Shown("shop", state("Progressing"))]), evidence)["canary_mw_release_keys"]
    assert found == {("shop", "stable"): 1800, ("shop", "gray"): 103}


@pytest.mark.parametrize(("controlled", "samples"), [(True, {(): 1}), (False, {(): 0}), (None, {})])
def test_it_is_told_whether_somebody_controls(controlled: bool | None, samples: dict[Any, Any]) -> None:
    assert told(Driven((), controlled))["canary_mw_release_controller"] == samples


def test_without_releases_with_steps_there_are_no_samples() -> None:
    assert set(map(len, told(NOTHING, {"shop": Evidence()}).values())) == {0}
