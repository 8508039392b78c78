"""The course of a release that has its controller: from phase to phase, by the verdict of a look."""

from collections.abc import Mapping as Dict
from dataclasses import replace
from typing import NamedTuple

from canary_mw.rollout.findings import Metric
from canary_mw.rollout.formatting import share, span
from canary_mw.rollout.outcome import Outcome
from canary_mw.rollout.state import HeldBy, Phase, ReleaseState
from canary_mw.rollout.steps.looks import admission, hooks_missing
from canary_mw.rollout.steps.moves import Cause, advice, enter, hold, kept, latch, pause, resume
from canary_mw.rollout.steps.targets import Target, begun, next_target, present_stage, reached
from canary_mw.rollout.verdict import Look, Verdict
from canary_mw.rules.plan import Analysis, MetricKind, Plan
from canary_mw.rules.release import GrayRelease


class At(NamedTuple):
    """A release at a tick of its controller.

    Attributes:
        found: the verdict of what was seen.
        gates: what hooks said, by their type.
        wall: seconds since 1970.
        readable: whether the evidence could be read.
        complete: whether all pods have said what they have seen.
    """

    document: GrayRelease
    plan: Plan
    state: ReleaseState
    seen: Look
    found: Verdict
    gates: Dict[str, bool]
    wall: float
    readable: bool
    complete: bool

    @property
    def target(self) -> Target | None:
        """Where the release goes next."""
        return next_target(self.plan, self.state)

    @property
    def analysis(self) -> Analysis | None:
        """That of the present stage."""
        return present_stage(self.plan, self.state).analysis

    def because(self, reason: str) -> Cause:
        """A cause of now."""
        return Cause(reason, self.wall)


def demand(plan: Plan, state: ReleaseState, seen: Look, found: Verdict) -> str:
    """Why evidence or a query rolls the release back, "" where nothing does; it follows `mode` and `on_failure`."""
    if found.kind != "roll_back" or _advises(present_stage(plan, state).analysis):
        return ""
    if not found.variant:
        return found.reason
    culprit = seen.findings[found.variant].culprit
    return found.text if culprit is None else f"{found.text}: {culprit.failures} keys {_happened(culprit.metric)}"


def _happened(metric: Metric) -> str:
    """What happened to the keys that are counted."""
    if metric.direction == "decrease":
        return "of stable reached the threshold" if metric.kind == "value" else "of stable brought it"
    words: Dict[MetricKind, str] = {"latency": "were slow", "value": "were above the threshold"}
    return f"{words.get(metric.kind, 'failed')} in gray"


def _advises(analysis: Analysis | None) -> bool:
    return analysis is not None and analysis.mode == "advise"


def followed(at: At) -> tuple[Outcome, Verdict]:
    """What follows, with the verdict as it is then meant: hooks and humans may let a safe step wait."""
    if at.found.kind in ("roll_back", "hold"):
        return _objected(at)
    if at.state.phase == "Paused" or at.state.held_by in ("sample_ratio", "plan", "metric"):
        return kept(at.state), _for_human(at.found)
    if at.state.held_by == "store":
        phase: Phase = "Progressing" if begun(at.state) else "Pending"
        return resume(at.plan, at.state, phase, at.because("the store has answered")), at.found
    return _running(at)


def _for_human(found: Verdict) -> Verdict:
    """Nothing follows without a human, who wants to know how safe the next step is."""
    if found.kind == "step_up":
        return Verdict("wait", "promote or resume goes on: nothing else keeps from the next step", waits_for="human")
    return found._replace(reason=f"promote or resume goes on; before a step by itself: {found.reason}")


def _objected(at: At) -> tuple[Outcome, Verdict]:
    """The evidence speaks against gray, and does not roll back: hold, or advise."""
    waiting = Verdict("wait", at.found.reason, at.found.variant, at.found.metric, waits_for="suspicion")
    if _advises(at.analysis):
        return _advised(at), waiting
    cause: HeldBy = "sample_ratio" if at.found.kind == "hold" and not at.found.metric else "metric"
    name = at.found.metric or cause
    held = at.state.held_by in ("sample_ratio", "plan", "metric")
    if held or at.state.phase == "Paused" or name in at.state.overruled:
        return kept(at.state), at.found
    return hold(at.state, cause, at.because(at.found.text), objection=name), at.found


def _advised(at: At) -> Outcome:
    doing = "roll back" if at.found.kind == "roll_back" else "hold"
    text = f"the analysis would {doing}: {at.found.text}"
    if at.state.advised == text:
        return kept(at.state)
    return replace(kept(replace(at.state, advised=text)), messages=(advice(at.state, text),))


def _running(at: At) -> tuple[Outcome, Verdict]:
    """Pending, Progressing, Baking, or held by what ends by itself."""
    state, plan = at.state, at.plan
    if not at.readable and at.seen.analysed and state.held_by != "evidence":
        return hold(state, "evidence", at.because("the evidence cannot be read")), at.found
    if state.phase == "Progressing" and state.baking:
        return resume(plan, state, "Baking", at.because("the bake goes on")), at.found
    if _waits_for_human(at):
        return pause(state, at.because("the plan waits for promote or resume")), at.found
    found = _gated(at)
    if found.kind == "step_up" and at.target is not None:
        return enter(plan, state, at.target, at.because(_why(at))), found
    return _timed_out(at, found) or kept(state), found


def _waits_for_human(at: At) -> bool:
    """Whether the stage is at its `pause: {}`."""
    stage, state = present_stage(at.plan, at.state), at.state
    at_end = not state.baking and reached(at.plan, state) and state.elapsed >= stage.pause
    return at_end and stage.until_promoted and not state.resumed


def _gated(at: At) -> Verdict:
    """A safe step still waits for hooks, and for a human where the plan says so."""
    if at.found.kind != "step_up" or at.target is None:
        return at.found
    if not at.readable and at.seen.analysed:
        return Verdict("wait", "the evidence cannot be read", waits_for="evidence")
    if not at.complete and at.seen.analysed:
        return Verdict("wait", "some pod has not said yet what it has seen", waits_for="evidence")
    missing = hooks_missing(at.plan, at.state, at.gates)
    if missing:
        lacks = "gives no answer" if missing[0] == "rollback" else "has not said yes"
        return Verdict("wait", f"the hook {missing[0]} {lacks}", waits_for="hook")
    if at.seen.unanswered and not _advises(at.analysis):
        return Verdict("wait", at.seen.unanswered, waits_for="query")
    if at.plan.promote == "manual" and at.target.raises(at.state):
        return Verdict("wait", "the next step waits for promote", waits_for="human")
    return at.found


def _why(at: At) -> str:
    if not begun(at.state):
        return "the first step begins"
    if at.state.baking:
        return "the bake is over"
    if at.seen.analysed:
        return f"the evidence keeps the margin at {share(100 * sum(at.seen.next_weights.values()))}"
    return "the time of the step is over"


def _timed_out(at: At, found: Verdict) -> Outcome | None:
    """What follows when a step takes too long; not where it is a human who takes long."""
    analysis, state = at.analysis, at.state
    if analysis is None or _advises(analysis) or found.waits_for in ("", "time", "human") or not begun(state):
        return None
    least = at.plan.bake if state.baking else present_stage(at.plan, state).pause
    if state.phase == "Held" or state.elapsed < max(analysis.timeout, least):
        return None
    reason = f"the timeout of {span(analysis.timeout)} is over: {found.text}"
    if analysis.on_timeout == "abort":
        return latch(at.document, state, "Aborted", at.because(reason))
    admitted = admission(at.seen)
    if analysis.on_timeout == "advance" and at.target is not None and admitted and _may_advance(at, found):
        return enter(at.plan, state, at.target, at.because(f"{reason}; {admitted}"))
    return hold(state, "timeout", at.because(reason))


def _may_advance(at: At, found: Verdict) -> bool:
    """Whether only more evidence is missing, and none speaks against gray. No evidence at all is never success."""
    missing = found.waits_for in ("keys", "evidence") or (found.waits_for == "margin" and found.needed is not None)
    asked = hooks_missing(at.plan, at.state, at.gates) or at.seen.unanswered or at.plan.promote == "manual"
    return missing and at.readable and at.complete and not asked
