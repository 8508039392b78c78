"""What a release does at a tick: from the document, the state and the evidence follow the next state and the weights.

Level-triggered: each tick derives what is wanted from what is, so no edge can be lost. Time is handed in, and counted.
"""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.outcome import Outcome
from canary_mw.rollout.queries import QueryStanding
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.steps import course
from canary_mw.rollout.steps.looks import Outside, alpha_of, look
from canary_mw.rollout.steps.looks import hooks_asked as hooks_asked
from canary_mw.rollout.steps.looks import queries_asked as queries_asked
from canary_mw.rollout.steps.moves import Cause, begin, first_state, hold, kept, latch, next_attempt, to_manual
from canary_mw.rollout.steps.targets import last_step, next_target, nothing, present_stage
from canary_mw.rollout.verdict import Look, Verdict, verdict
from canary_mw.rules.epoch import subject_of
from canary_mw.rules.plan import Plan, plan_digest
from canary_mw.rules.release import GrayRelease

Store = Literal["answered", "away", "newer", "unshared"]
_STORE: Dict[Store, str] = {
    "away": "the store has not answered",
    "newer": "a newer version has written the state, and only that one may raise",
    "unshared": "no shared store: several pods cannot agree",
}
_CHANGED = (
    "the steps up to the present one were changed: promote goes on with the next step, resume stays at this one, "
    "abort and retry begin anew"
)
_NO_EVIDENCE = ReleaseEvidence(readable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What else is known at a tick.

    Attributes:
        elapsed: seconds since the last tick of the controller, by its monotonic clock.
        wall: seconds since 1970, for what is shown.
        controller: whether this process may raise. Anyone may lower.
        alone_of: number of processes that judge on their own, without each other's figures.
        gates: what hooks said, by their type: whether all of the type said yes; of `rollback`, whether all answered.
        demand: why a hook of the type `rollback` takes the release back, "" if none does. It is a human's word: neither
            `mode` nor `on_failure` softens it.
        queries: how those stand that were asked about this step.
        store: whether the shared state could be read, and shares it with all.
        shared: whether pods share the state, whose documents may differ for a while.
        subject: what is released, "" for what the document alone says.
        attempts: the highest attempt of this release that figures have seen.
    """

    elapsed: float = 0.0
    wall: float = 0.0
    controller: bool = False
    alone_of: int = 1
    gates: Dict[str, bool] = field(default_factory=dict)
    demand: str = ""
    queries: Sequence[QueryStanding] = ()
    store: Store = "answered"
    shared: bool = False
    subject: str = ""
    attempts: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process decides more than to lower."""
        return self.controller and self.store == "answered"


class _Release(NamedTuple):
    """A release with steps at a tick."""

    document: GrayRelease
    plan: Plan
    subject: str
    now: Now


def tick(
    document: GrayRelease | None, state: ReleaseState | None, evidence: ReleaseEvidence | None, now: Now
) -> Outcome:
    """The next state of a release, and the weights in force.

    Args:
        document: None where it was removed.
        state: None where the release has none yet.
        evidence: None where it cannot be read.
    """
    if document is None:
        return Outcome()
    subject = now.subject or subject_of(document)
    if document.plan is None:
        return _without_steps(document, state, subject, now)
    release = _Release(document, document.plan, subject, now)
    if state is None:
        return _unknown(release)
    if state.phase == "Manual" or state.subject != subject:
        return _anew(release, state)
    if not document.enabled:
        return replace(kept(state), weights=nothing(document.plan))
    return _judged(release, state, evidence or _NO_EVIDENCE)


def _without_steps(document: GrayRelease, state: ReleaseState | None, subject: str, now: Now) -> Outcome:
    """The documents say the weights, unless somebody has aborted the release."""
    if state is None or not now.leads:
        return Outcome() if state is None else kept(state)
    if state.latched:
        if state.revision == document.revision or (now.shared and subject in state.past):
            return kept(state)
        cause = Cause("another revision is released", now.wall)
        return to_manual(document, state, subject, cause, max(state.attempt, now.attempts) + 1)
    if state.phase != "Manual":
        return to_manual(document, state, subject, Cause("the document has no steps any more", now.wall), state.attempt)
    return kept(state)


def _unknown(release: _Release) -> Outcome:
    """A release without a state is at weight 0, whatever the reason is."""
    document, plan, subject, now = release
    first = first_state(document, subject, now.attempts + 1, now.wall)
    if now.store == "away":
        return kept(replace(first, reason=_STORE["away"]))
    if now.store != "answered":
        return kept(replace(first, phase="Held", held_by="store", reason=_STORE[now.store]))
    if not now.controller:
        return Outcome(weights=nothing(plan))
    return begin(first, Cause("the release is new", now.wall))


def _anew(release: _Release, state: ReleaseState) -> Outcome:
    """Something else is released: everybody is on stable, and the controller begins another attempt."""
    if not release.now.leads or (release.now.shared and release.subject in state.past):
        # A pod that has older documents still must not undo what became of the newer ones.
        return replace(kept(state), weights=nothing(release.plan))
    what = "the document has steps now" if state.phase == "Manual" else "something else is released"
    cause = Cause(what, release.now.wall)
    return next_attempt(release.document, state, release.subject, cause, attempts=release.now.attempts)


def _judged(release: _Release, state: ReleaseState, evidence: ReleaseEvidence) -> Outcome:
    plan, now = release.plan, release.now
    state = _counted(plan, state, now.elapsed) if now.leads else state
    seen = look(plan, state, evidence, next_target(plan, state), _outside(plan, now))
    found = verdict(seen)
    if state.latched or state.phase == "Completed":
        # At 100 percent there is no stable arm to compare with.
        return replace(kept(state), verdict=found if state.latched else None, look=seen)
    outcome, found = _followed(release, state, seen, found, evidence)
    return replace(outcome, verdict=found, look=seen)


def _outside(plan: Plan, now: Now) -> Outside:
    return Outside(now.queries, now.alone_of)


def _counted(plan: Plan, state: ReleaseState, seconds: float) -> ReleaseState:
    """The clocks go on while the machine decides; they stand still while a human does."""
    alpha = alpha_of(state, present_stage(plan, state).analysis)
    runs = state.phase in ("Progressing", "Baking") or state.held_by in ("timeout", "evidence")
    seconds = max(seconds, 0.0) if runs else 0.0
    baked = state.baked + (seconds if state.phase == "Baking" else 0.0)
    return replace(state, alpha=alpha, elapsed=state.elapsed + seconds, baked=baked)


def _followed(
    release: _Release, state: ReleaseState, seen: Look, found: Verdict, evidence: ReleaseEvidence
) -> tuple[Outcome, Verdict]:
    """What follows from a verdict: what lowers first, in every phase and by every process."""
    document, plan, _, now = release
    demand = now.demand or course.demand(plan, state, seen, found)
    if demand:
        return latch(document, state, "RolledBack", Cause(demand, now.wall)), found
    if not now.leads:
        waiting = Verdict("wait", _STORE.get(now.store, "another process decides about raising"), waits_for="time")
        return kept(state), waiting if found.kind == "step_up" else found
    if state.plan != plan_digest(plan, last_step(plan) if state.baking else state.step) and state.held_by != "plan":
        return hold(state, "plan", Cause(_CHANGED, now.wall)), found
    at = course.At(document, plan, state, seen, found, now.gates, now.wall, evidence.readable, evidence.complete)
    return course.followed(at)
