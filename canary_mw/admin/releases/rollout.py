"""How far a release is, by the state that all processes share."""

from collections.abc import Callable

from canary_mw.admin.answers.frame import iso_or_none
from canary_mw.admin.models.rollout import PodsReporting, Rollout, RolloutChange, RolloutNext, RolloutStep
from canary_mw.admin.releases.rollout_metrics import metrics_of, queries_of
from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.rollouts.standing import Standing
from canary_mw.control.store import RuleStore
from canary_mw.rollout.commands import allowed
from canary_mw.rollout.state import Change, ReleaseState
from canary_mw.rollout.steps.moves import first_state
from canary_mw.rollout.steps.targets import next_target
from canary_mw.rules.epoch import subject_of
from canary_mw.rules.plan import Plan
from canary_mw.rules.release import GrayRelease


def rollout_in_force(store: RuleStore, find: Callable[[], Rollouts | None], name: str) -> Rollout | None:
    """How far a release of a store is; None for a group of Mappings, and where nothing drives releases."""
    rollouts = find()
    standing = None if rollouts is None else rollouts.standing(name)
    document = next((each for each in store.table.documents.in_force if each.name == name), None)
    return None if standing is None or document is None else rollout_of(document, standing)


def stamp(find: Callable[[], Rollouts | None]) -> object:
    """What changes with the state of any release: an answer that was worked out before is not given after it."""
    rollouts = find()
    return None if rollouts is None else tuple(rollouts.versions().items())


def rollout_of(document: GrayRelease, standing: Standing) -> Rollout:
    """How far a release is.

    Args:
        document: as it is written.
    """
    plan = document.plan
    # Without a state nobody has ever told this release anything, or the store is away.
    state = standing.state or first_state(document, subject_of(document), 1, 0.0)
    stage = None if plan is None else plan.stages[min(state.step, len(plan.stages) - 1)]
    analysis = None if stage is None else stage.analysis
    return {
        "phase": state.phase,
        "status": state.status,
        "version": standing.version,
        "attempt": state.attempt,
        "revision": state.revision,
        "item": _item(plan, state),
        "items": plan.items if plan else 0,
        "weight": _percent(state.weight),
        "weights": {name: _percent(percent) for name, percent in state.weights.items()},
        "elapsed_seconds": round(state.elapsed, 3),
        "pause_seconds": stage.pause if stage else 0.0,
        "baked_seconds": round(state.baked, 3),
        "bake_seconds": plan.bake if plan else 0.0,
        "holdback": plan.holdback if plan else 0.0,
        "promote": plan.promote if plan else "auto",
        "mode": analysis.mode if analysis else None,
        "reason": state.reason,
        "held_by": state.held_by,
        "since": iso_or_none(state.since),
        "controller": {"name": standing.controller, "here": standing.is_controller, "pods": _pods(standing)},
        "steps": _steps(plan, state) if plan else [],
        "metrics": metrics_of(analysis, standing.look),
        "queries": queries_of(plan, analysis, standing.look),
        "next": _next(plan, state, standing),
        "stopped": standing.stopped,
        "findings": list(standing.findings),
        "commands": list(allowed(document, state)),
        "history": [_change(plan, each) for each in reversed(state.history)],
    }


def _pods(standing: Standing) -> PodsReporting | None:
    if standing.pods is None:
        return None
    reporting, known, newest = standing.pods
    return {"reporting": reporting, "known": known, "newest_seconds": None if newest is None else round(newest, 3)}


def _steps(plan: Plan, state: ReleaseState) -> list[RolloutStep]:
    found: list[RolloutStep] = []
    ended = state.phase == "Completed" or state.baking
    for index, stage in enumerate(plan.stages):
        done = ended or index < state.step
        current = index == state.step and state.phase != "Pending" and not state.latched
        found.append(
            {
                "item": stage.item,
                "weight": _percent(sum(stage.weights.values())),
                "weights": {name: _percent(percent) for name, percent in stage.weights.items()},
                "pause_seconds": stage.pause,
                "until_promoted": stage.until_promoted,
                "analysed": stage.analysis is not None,
                "state": "done" if done else "current" if current else "ahead",
            }
        )
    return found


def _next(plan: Plan | None, state: ReleaseState, standing: Standing) -> RolloutNext:
    """What follows from the last look; the process that drives the release has one."""
    found, target = standing.verdict, None if plan is None else next_target(plan, state)
    return {
        "verdict": found.kind if found else None,
        "text": found.text if found else "",
        "weight": None if target is None else _percent(sum(target.weights.values())),
        "needed": found.needed if found else None,
    }


def _change(plan: Plan | None, change: Change) -> RolloutChange:
    stages = plan.stages if plan else ()
    return {
        "at": iso_or_none(change.at) or "",
        "before": change.before,
        "after": change.after,
        "item": stages[change.step].item if change.step < len(stages) else 0,
        "weights": {name: _percent(percent) for name, percent in change.weights.items()},
        "reason": change.reason,
        "who": change.who,
        "address": change.address,
    }


def _item(plan: Plan | None, state: ReleaseState) -> int:
    if plan is None or state.phase == "Pending":
        return 0
    return plan.stages[min(state.step, len(plan.stages) - 1)].item


def _percent(percent: float) -> float:
    return round(percent, 6)
