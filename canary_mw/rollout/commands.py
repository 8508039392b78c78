"""What people tell a release: promote, abort, retry, undo, pause, resume, set-weight."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from canary_mw.exceptions import CommandRefused
from canary_mw.rollout.outcome import Outcome
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.steps.moves import (
    Cause,
    enter,
    first_state,
    kept,
    latch,
    next_attempt,
    pause,
    resume,
    set_weight,
    to_manual,
)
from canary_mw.rollout.steps.targets import baking, next_target, nothing, present_stage, step_of_weight
from canary_mw.rules.epoch import subject_of
from canary_mw.rules.plan import Plan, divided
from canary_mw.rules.release import GrayRelease

CommandName = Literal["promote", "abort", "retry", "undo", "pause", "resume", "set-weight"]
COMMANDS: tuple[CommandName, ...] = get_args(CommandName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        weight: percent of all gray variants together, of `set-weight`.
        full: of `promote`: past all steps.
    """

    name: CommandName
    weight: float | None = None
    full: bool = False


class Who(NamedTuple):
    """Who gives a command, from which address, and when in seconds since 1970."""

    name: str
    address: str = ""
    at: float = 0.0


def command(document: GrayRelease, state: ReleaseState | None, wanted: Command, who: Who) -> Outcome:
    """What follows from a command. Evidence does not matter to it, a latch does.

    Args:
        state: None where the release has none yet.

    Raises:
        CommandRefused: it does not fit the phase; nothing changes, and nothing is left for later.
    """
    if state is None:
        state = first_state(document, subject_of(document), 1, who.at)
    outcome = _HANDLERS[wanted.name](document, state, wanted, who)
    if not document.enabled and document.plan is not None and outcome.weights is not None:
        return replace(outcome, weights=nothing(document.plan))
    return outcome


def allowed(document: GrayRelease, state: ReleaseState | None) -> tuple[CommandName, ...]:
    """The commands that would not be refused now."""
    return tuple(name for name in COMMANDS if _is_allowed(document, state, name))


def _is_allowed(document: GrayRelease, state: ReleaseState | None, name: CommandName) -> bool:
    try:
        command(document, state, Command(name=name, weight=0.0), Who(""))
    except CommandRefused:
        return False
    return True


def _cause(wanted: Command, who: Who) -> Cause:
    words: str = wanted.name
    if wanted.name == "set-weight":
        words = f"{wanted.name} {wanted.weight:g}"
    elif wanted.name == "promote" and wanted.full:
        words = f"{wanted.name} --full"
    return Cause(f"the command {words}", who.at, who.name, who.address)


def _promote(document: GrayRelease, state: ReleaseState, wanted: Command, who: Who) -> Outcome:
    plan = _raisable(document, state, wanted)
    target = baking(plan) if wanted.full and not state.baking else next_target(plan, state)
    if target is None:
        raise _refused(state, wanted, "there is no next step")
    return enter(plan, state, target, _cause(wanted, who))


def _pause(document: GrayRelease, state: ReleaseState, wanted: Command, who: Who) -> Outcome:
    _under_way(document, state, wanted)
    return kept(state) if state.phase == "Paused" else pause(state, _cause(wanted, who))


def _resume(document: GrayRelease, state: ReleaseState, wanted: Command, who: Who) -> Outcome:
    plan = _raisable(document, state, wanted)
    if state.phase not in ("Paused", "Held"):
        raise _refused(state, wanted, "it is neither Paused nor Held")
    if state.held_by == "timeout":
        # The timeout begins anew, the pause of the step does not.
        state = replace(
            state, elapsed=min(state.elapsed, plan.bake if state.baking else present_stage(plan, state).pause)
        )
    return resume(plan, state, "Progressing", _cause(wanted, who), by_human=True, overruled=state.objection)


def _set_weight(document: GrayRelease, state: ReleaseState, wanted: Command, who: Who) -> Outcome:
    plan = _raisable(document, state, wanted)
    percent = wanted.weight
    if percent is None or not 0 <= percent <= 100:
        raise CommandRefused("set-weight needs a percent from 0 to 100, as in: set-weight 25")
    step = step_of_weight(plan, percent)
    return set_weight(plan, state, step, divided(percent, plan.shares), _cause(wanted, who))


def _abort(document: GrayRelease, state: ReleaseState, wanted: Command, who: Who) -> Outcome:
    if state.latched:
        return kept(state)
    # A release without steps keeps no state before: what is released is remembered by its latch.
    named = replace(state, subject=subject_of(document), revision=document.revision)
    return latch(document, named if document.plan is None else state, "Aborted", _cause(wanted, who))


def _undo(document: GrayRelease, state: ReleaseState, wanted: Command, who: Who) -> Outcome:
    if document.plan is None:
        raise _refused(state, wanted, "a release without steps takes abort and retry only")
    if state.latched:
        raise _refused(state, wanted, "everybody is on stable already; retry begins the next attempt")
    return latch(document, state, "Aborted", _cause(wanted, who))


def _retry(document: GrayRelease, state: ReleaseState, wanted: Command, who: Who) -> Outcome:
    if not state.latched:
        raise _refused(state, wanted, "only a release that is RolledBack or Aborted begins anew; abort it before")
    _check_subject(document, state, wanted)
    if document.plan is None:
        return to_manual(document, state, subject_of(document), _cause(wanted, who), state.attempt + 1)
    return next_attempt(document, state, state.subject, _cause(wanted, who))


def _under_way(document: GrayRelease, state: ReleaseState, wanted: Command) -> Plan:
    """The plan of a release that is under way; only such a one can be paused or raised."""
    if document.plan is None or state.phase == "Manual":
        raise _refused(state, wanted, "a release without steps takes abort and retry only")
    if state.latched:
        raise _refused(state, wanted, "everybody is on stable; retry begins the next attempt")
    if state.phase == "Completed":
        raise _refused(state, wanted, "all steps are done; abort takes it back")
    return document.plan


def _raisable(document: GrayRelease, state: ReleaseState, wanted: Command) -> Plan:
    """The plan of a release that is under way, and is that of the state."""
    plan = _under_way(document, state, wanted)
    _check_subject(document, state, wanted)
    return plan


def _check_subject(document: GrayRelease, state: ReleaseState, wanted: Command) -> None:
    """Refuse to raise by the steps of other rules: those of a state may be in force in other processes only."""
    if document.plan is not None and state.subject != subject_of(document):
        released = f"revision {state.revision}" if state.revision else "something else"
        reason = f"its state is of {released}, which these rules do not release: they are newer, or older, than others"
        raise _refused(state, wanted, f"{reason}; abort, undo and pause are taken until all have the same")


def _refused(state: ReleaseState, wanted: Command, reason: str) -> CommandRefused:
    return CommandRefused(f"{wanted.name} is refused: release {state.name} is {state.phase}, and {reason}")


_HANDLERS: dict[CommandName, Callable[[GrayRelease, ReleaseState, Command, Who], Outcome]] = {
    "promote": _promote,
    "abort": _abort,
    "retry": _retry,
    "undo": _undo,
    "pause": _pause,
    "resume": _resume,
    "set-weight": _set_weight,
}
