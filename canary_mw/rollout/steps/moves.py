"""Moves from one state to another: what is kept, what begins anew, and what is said of it."""

from collections.abc import Mapping as Dict
from dataclasses import replace
from typing import Any, NamedTuple

from canary_mw.rollout.formatting import share
from canary_mw.rollout.outcome import Message, Outcome
from canary_mw.rollout.state import HISTORY, Change, HeldBy, Phase, ReleaseState
from canary_mw.rollout.steps.targets import Target, last_step, nothing, present_step
from canary_mw.rules.plan import Plan, plan_digest
from canary_mw.rules.release import GrayRelease


class Cause(NamedTuple):
    """Why something happens, when, and by whom; `at` in seconds since 1970."""

    reason: str
    at: float
    who: str = ""
    address: str = ""


def first_state(document: GrayRelease, subject: str, attempt: int, at: float) -> ReleaseState:
    """The state with which an attempt begins: weight 0, or without steps what the document says."""
    plan = document.plan
    return ReleaseState(
        name=document.name,
        attempt=attempt,
        phase="Manual" if plan is None else "Pending",
        weights={} if plan is None else nothing(plan),
        subject=subject,
        revision=document.revision,
        plan="" if plan is None else plan_digest(plan, 0),
        since=at,
    )


def begin(state: ReleaseState, cause: Cause) -> Outcome:
    """The first state of a release."""
    return _moved(None, state, cause)


def next_attempt(
    document: GrayRelease, state: ReleaseState, subject: str, cause: Cause, *, attempts: int = 0
) -> Outcome:
    """A new attempt, with new evidence and a new budget.

    Args:
        attempts: the highest number that figures have seen; the new one is above it.
    """
    number = max(state.attempt, attempts) + 1
    begun = replace(first_state(document, subject, number, cause.at), history=state.history, past=_past(state, subject))
    return _moved(state, begun, cause)


def enter(plan: Plan, state: ReleaseState, target: Target, cause: Cause) -> Outcome:
    """Go to a target; what belonged to the step before is over."""
    return _moved(
        state,
        replace(
            state,
            phase=target.phase,
            step=target.step,
            weights=target.weights,
            baking=target.phase in ("Baking", "Completed"),
            plan=plan_digest(plan, target.step),
            **_new_step(state),
        ),
        cause,
    )


def set_weight(plan: Plan, state: ReleaseState, step: int, weights: Dict[str, float], cause: Cause) -> Outcome:
    """Pause at a weight that is given."""
    changed = replace(
        state,
        phase="Paused",
        step=step,
        weights=weights,
        baking=False,
        plan=plan_digest(plan, step),
        **_new_step(state),
    )
    return _moved(state, changed, cause)


def _new_step(state: ReleaseState) -> dict[str, Any]:
    return {
        "visit": state.visit + 1,
        "elapsed": 0.0,
        "baked": 0.0,
        "resumed": False,
        "overruled": (),
        "advised": "",
        "held_by": "",
        "objection": "",
    }


def pause(state: ReleaseState, cause: Cause) -> Outcome:
    """Stay at the weight until a human goes on."""
    return _moved(state, replace(state, phase="Paused", held_by="", objection=""), cause)


def hold(state: ReleaseState, held_by: HeldBy, cause: Cause, *, objection: str = "") -> Outcome:
    """Stay at the weight until a human decides, or what holds it is over."""
    return _moved(state, replace(state, phase="Held", held_by=held_by, objection=objection), cause)


def resume(
    plan: Plan, state: ReleaseState, phase: Phase, cause: Cause, *, by_human: bool = False, overruled: str = ""
) -> Outcome:
    """Go on at the same weight.

    Args:
        by_human: whether a `pause: {}` of this step is over.
        overruled: what does not hold this step any more.
    """
    step = present_step(plan, state)
    return _moved(
        state,
        replace(
            state,
            phase=phase,
            step=step,
            plan=plan_digest(plan, last_step(plan) if state.baking else step),
            held_by="",
            objection="",
            resumed=state.resumed or by_human,
            overruled=(*state.overruled, overruled) if overruled else state.overruled,
        ),
        cause,
    )


def latch(document: GrayRelease, state: ReleaseState, phase: Phase, cause: Cause) -> Outcome:
    """Everybody to stable, until `retry` or another subject."""
    off = {each.name: 0.0 for each in document.variants}
    return _moved(state, replace(state, phase=phase, weights=off, baking=False, held_by="", objection=""), cause)


def to_manual(document: GrayRelease, state: ReleaseState, subject: str, cause: Cause, attempt: int) -> Outcome:
    """The steps are gone: the documents say the weights."""
    begun = replace(
        first_state(document, subject, attempt, cause.at), history=state.history, past=_past(state, subject)
    )
    return _moved(state, begun, cause)


def _past(state: ReleaseState, subject: str) -> tuple[str, ...]:
    """The subjects that were released before this one."""
    return tuple(each for each in (*state.past, state.subject) if each and each != subject)[-HISTORY:]


def _moved(before: ReleaseState | None, after: ReleaseState, cause: Cause) -> Outcome:
    phase = "" if before is None else before.phase
    change = Change(cause.at, phase, after.phase, after.step, after.weights, cause.reason, cause.who, cause.address)
    state = replace(after, reason=cause.reason, since=cause.at).with_change(change)
    message = _message(phase, state, cause, _sentence(before, state, cause))
    return Outcome(state=state, weights=in_force(state), off=state.latched, messages=(message,))


def in_force(state: ReleaseState) -> Dict[str, float] | None:
    """The percents that a state puts in force; None for those of the documents."""
    if state.phase == "Manual":
        return None
    return dict.fromkeys(state.weights, 0.0) if state.latched else state.weights


def kept(state: ReleaseState) -> Outcome:
    """Nothing changes."""
    return Outcome(state=state, weights=in_force(state), off=state.latched)


def advice(state: ReleaseState, text: str) -> Message:
    """What would be done if `mode` were "act"."""
    said = f"Release {state.name}: advice only, nothing is done: {text}."
    return _message(state.phase, state, Cause(text, 0.0), said)._replace(kind="advice")


def _message(before: str, after: ReleaseState, cause: Cause, text: str) -> Message:
    return Message(
        kind="transition",
        text=text,
        release=after.name,
        attempt=after.attempt,
        before=before,
        after=after.phase,
        step=after.step,
        weights=after.weights,
        reason=cause.reason,
        who=cause.who,
    )


def _sentence(before: ReleaseState | None, after: ReleaseState, cause: Cause) -> str:
    return f"Release {after.name} {_phases(before, after)}{f' by {cause.who}' if cause.who else ''}: {cause.reason}."


def _phases(before: ReleaseState | None, after: ReleaseState) -> str:
    if before is None or before.attempt != after.attempt:
        return f"begins attempt {after.attempt} in {after.phase}"
    phases = f"stays {after.phase}" if before.phase == after.phase else f"goes from {before.phase} to {after.phase}"
    if after.phase == "Manual":
        return phases
    if before.weight == after.weight:
        return f"{phases}, gray at {share(after.weight)}"
    return f"{phases}, gray from {share(before.weight)} to {share(after.weight)}"
