"""Where a release goes next by its plan."""

from collections.abc import Mapping as Dict
from typing import NamedTuple

from canary_mw.rollout.state import Phase, ReleaseState
from canary_mw.rules.plan import Plan, Stage, divided

# Percents are whole slots of a ten-thousandth; less than half of one is no difference.
_SAME = 5e-5


class Target(NamedTuple):
    """The next phase of a release, with its stage and the percent of each gray variant."""

    phase: Phase
    step: int
    weights: Dict[str, float]

    def raises(self, state: ReleaseState) -> bool:
        """Whether a gray variant gets more than it has now."""
        return any(percent > state.weights.get(name, 0.0) + _SAME for name, percent in self.weights.items())


def next_target(plan: Plan, state: ReleaseState) -> Target | None:
    """The next step: the stage that is not reached yet, the one after it, Baking or Completed; None at the end."""
    if state.latched or state.phase == "Completed":
        return None
    if state.baking:
        return Target("Completed", last_step(plan), divided(100.0, plan.shares))
    step = present_step(plan, state)
    if not reached(plan, state):
        return stage_target(plan, step)
    return stage_target(plan, step + 1) if step < last_step(plan) else baking(plan)


def reached(plan: Plan, state: ReleaseState) -> bool:
    """Whether the stage of the state is in force; it is not before the first one, and after a smaller `set-weight`."""
    stage = plan.stages[present_step(plan, state)]
    return state.phase != "Pending" and state.weight >= sum(stage.weights.values()) - _SAME


def begun(state: ReleaseState) -> bool:
    """Whether gray has any weight."""
    return state.weight > 0


def stage_target(plan: Plan, step: int) -> Target:
    """A stage; the last one is Baking, but for a pause of its own."""
    stage = plan.stages[step]
    if step == last_step(plan) and not stage.pause and not stage.until_promoted:
        return baking(plan)
    return Target("Progressing", step, stage.weights)


def baking(plan: Plan) -> Target:
    """The time after the last step: 100 percent less `holdback`."""
    return Target("Baking", last_step(plan), plan.full_weights)


def step_of_weight(plan: Plan, percent: float) -> int:
    """The index of the first stage that has at least a weight; of the last one where none has."""
    steps = (index for index, stage in enumerate(plan.stages) if sum(stage.weights.values()) >= percent - _SAME)
    return next(steps, last_step(plan))


def present_step(plan: Plan, state: ReleaseState) -> int:
    """The index of the state's stage, also where the plan has got shorter."""
    return min(state.step, last_step(plan))


def present_stage(plan: Plan, state: ReleaseState) -> Stage:
    """The stage of a state."""
    return plan.stages[present_step(plan, state)]


def last_step(plan: Plan) -> int:
    """The index of the last stage."""
    return len(plan.stages) - 1


def nothing(plan: Plan) -> Dict[str, float]:
    """Weight 0 for all gray variants."""
    return {name: 0.0 for name, _ in plan.shares}
