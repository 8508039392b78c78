"""A release that stands for all: brought into each phase by the engine itself, with evidence of each kind."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import replace
from typing import Any

from canary_mw.rollout.commands import Command, CommandName, Who, command
from canary_mw.rollout.engine import Now, tick
from canary_mw.rollout.evidence import ReleaseEvidence, VariantEvidence
from canary_mw.rollout.findings import ERROR_RATE, MetricEvidence, StepCounts
from canary_mw.rollout.outcome import Outcome
from canary_mw.rollout.state import PHASES, HeldBy, ReleaseState
from canary_mw.rollout.statistics import Arm, Epoch, SeenKeys
from canary_mw.rules.plan import Analysis, Hook, HookType, MetricRule, OnFailure, Plan, Stage
from canary_mw.rules.release import GrayRelease, HashFunction, ReleaseVariant

_GRAY = "gray"
# Stages, and the ones in which Progressing is looked at.
_PERCENTS = (5.0, 25.0, 50.0)
_HOLDBACK = 5.0
FULL = 100.0 - _HOLDBACK
PRESENT, LAST = 1, 2
_PAUSE, _BAKE, _TIMEOUT = 600.0, 800.0, 21_600.0
DAY = 86_400.0
CAUSES: tuple[HeldBy, ...] = ("timeout", "evidence", "sample_ratio", "plan", "metric")
# A release without steps is another one.
ALL_PHASES = tuple(each for each in PHASES if each != "Manual")


def _evidence(metric: MetricEvidence, seen: tuple[SeenKeys, ...] = ()) -> ReleaseEvidence:
    return ReleaseEvidence(variants={_GRAY: VariantEvidence((metric,), seen, 500)})


_CLEAN_STEP = StepCounts(Arm(0, 5000), Arm(0, 15_000), 5000, 0, 15_000, 0)
_CLEAN_METRIC = MetricEvidence(ERROR_RATE, [[Epoch(0.25, 0, 0, 5000, 15_000)]], [_CLEAN_STEP])
_BAD_STEP = StepCounts(Arm(60, 2000), Arm(10, 6000), 2000, 60, 6000, 10)
NO_TRAFFIC = ReleaseEvidence()
CLEAN = _evidence(_CLEAN_METRIC)
_LITTLE_STEP = StepCounts(Arm(0, 40), Arm(0, 120), 40, 0, 120, 0)
LITTLE = _evidence(MetricEvidence(ERROR_RATE, [[Epoch(0.25, 0, 0, 40, 120)]], [_LITTLE_STEP]))
BAD = _evidence(MetricEvidence(ERROR_RATE, [[Epoch(0.25, 60, 10, 2000, 6000)]], [_BAD_STEP]))
WRONG_SPLIT = _evidence(_CLEAN_METRIC, (SeenKeys(0.25, 4000, 6000),))


def released(evidence: ReleaseEvidence, state: ReleaseState) -> ReleaseEvidence:
    """The evidence as that of the attempt of a state."""
    return replace(evidence, attempt=state.attempt)


def release(on_failure: OnFailure = "rollback", hooks: tuple[HookType, ...] = ("confirm-rollout",)) -> GrayRelease:
    """A release with steps, evidence, a bake and a holdback."""
    analysis = Analysis((MetricRule("error_rate", "error_rate"),), timeout=_TIMEOUT)
    percents = enumerate((*_PERCENTS, FULL), 1)
    stages = tuple(
        Stage({_GRAY: each}, _PAUSE if each != FULL else 0.0, analysis=analysis, item=i) for i, each in percents
    )
    plan = Plan(
        stages=stages,
        items=len(stages),
        shares=((_GRAY, 1.0),),
        bake=_BAKE,
        holdback=_HOLDBACK,
        on_failure=on_failure,
        hooks=tuple(Hook(each, "http://127.0.0.1/") for each in dict.fromkeys(hooks)),
    )
    variants = (ReleaseVariant(name=_GRAY, mappings=("gray",)),)
    return GrayRelease(
        name="release", variants=variants, hash=HashFunction("sha256", "salt"), lane="release", plan=plan
    )


def with_stage(document: GrayRelease, step: int, **changes: Any) -> GrayRelease:
    """The release with another stage."""
    plan = plan_of(document)
    stages = [each._replace(**changes) if index == step else each for index, each in enumerate(plan.stages)]
    return replace(document, plan=replace(plan, stages=tuple(stages)))


def with_analysis(document: GrayRelease, **changes: Any) -> GrayRelease:
    """The release with another analysis in all stages."""
    plan = plan_of(document)
    stages = [each._replace(analysis=each.analysis._replace(**changes)) for each in plan.stages if each.analysis]
    return replace(document, plan=replace(plan, stages=tuple(stages)))


def plan_of(document: GrayRelease) -> Plan:
    """The plan of a release that has one."""
    if document.plan is None:
        raise ValueError("the release has no steps")
    return document.plan


def in_phase(document: GrayRelease, phase: str, cause: str = "timeout", *, step: int = PRESENT) -> ReleaseState:
    """The release in a phase.

    Args:
        cause: what holds it, for Held.
        step: index of the stage in which it is, or was.
    """
    state = _state(tick(document, None, None, Now(controller=True)))
    if phase == "Pending":
        return state
    for _ in range(step + 1):
        state = _told(document, state, "promote")
    return _LEAD[phase](document, state) if phase != "Held" else _held(document, state, cause)


def _held(document: GrayRelease, state: ReleaseState, cause: str) -> ReleaseState:
    changed = document
    evidence, now = NO_TRAFFIC, Now(controller=True)
    if cause == "timeout":
        now, changed = replace(now, elapsed=_TIMEOUT), with_analysis(document, mode="act", on_timeout="hold")
    elif cause == "plan":
        changed = with_stage(document, 0, pause=1.0)
    elif cause == "sample_ratio":
        evidence = WRONG_SPLIT
    elif cause == "metric":
        evidence, changed = BAD, replace(document, plan=replace(plan_of(document), on_failure="hold"))
    held = tick(changed, state, None if cause == "evidence" else released(evidence, state), now)
    return _state(held)


def _rolled_back(document: GrayRelease, state: ReleaseState) -> ReleaseState:
    acting = with_analysis(replace(document, plan=replace(plan_of(document), on_failure="rollback")), mode="act")
    return _state(tick(acting, state, released(BAD, state), Now(controller=True)))


def _baking(document: GrayRelease, state: ReleaseState) -> ReleaseState:
    return _told(document, state, "promote", full=True)


_LEAD: Dict[str, Callable[[GrayRelease, ReleaseState], ReleaseState]] = {
    "Progressing": lambda document, state: state,
    "Paused": lambda document, state: _told(document, state, "pause"),
    "Baking": _baking,
    "Completed": lambda document, state: _told(document, _baking(document, state), "promote"),
    "RolledBack": _rolled_back,
    "Aborted": lambda document, state: _told(document, state, "abort"),
}


def _told(document: GrayRelease, state: ReleaseState, name: CommandName, *, full: bool = False) -> ReleaseState:
    return _state(command(document, state, Command(name=name, full=full), Who("somebody")))


def _state(outcome: Outcome) -> ReleaseState:
    if outcome.state is None:
        raise ValueError("the release has no state")
    return outcome.state
