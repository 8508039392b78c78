"""What other pods ask of this one: its evidence, and to believe that a release was rolled back."""

from time import time
from typing import TYPE_CHECKING, NamedTuple

from canary_mw.control.rollouts.keeper import Keeper
from canary_mw.exceptions import CommandRefused
from canary_mw.rollout.state import Phase
from canary_mw.rollout.steps.moves import Cause, latch
from canary_mw.rules.release import GrayRelease

if TYPE_CHECKING:
    from canary_mw.control.rollouts.controller import Controller
    from canary_mw.control.rollouts.inputs import Given
    from canary_mw.control.rollouts.rollouts import Rollouts

# How far an attempt may be ahead of the one that is known: a latch is never taken back.
_MOST_AHEAD = 1000


class RolledBack(NamedTuple):
    """What a pod tells.

    Attributes:
        phase: what the release is there now.
        who: the token's name, and `address` of the pod.
    """

    name: str
    attempt: int
    reason: str
    phase: Phase = "RolledBack"
    who: str = ""
    address: str = ""


def evidence_of(rollouts: "Rollouts", cursor: str) -> "Given":
    """What this pod has seen; who asks controls. Raises OSError.

    Args:
        cursor: of what the one who asks knows.
    """

    def look(controller: "Controller") -> "Given":
        if controller.opened is not None:
            controller.opened.latches.hear(0.0)
        return controller.evidence.give([each.name for each in controller.documents], cursor)

    return rollouts.ask(look, waits=False)


def believe(rollouts: "Rollouts", told: RolledBack) -> bool:
    """Put everybody on stable at once, as another pod does; whether that was news.

    Raises:
        CommandRefused: there is no such release, or no such attempt of it.
    """
    # The latch counts for the next request, whatever the store of states does meanwhile.
    if not rollouts.ask(lambda controller: _latch(controller, told), waits=False):
        return False
    return rollouts.ask(lambda controller: _lower(controller, told))


def _document(controller: "Controller", told: RolledBack) -> GrayRelease:
    found = next((each for each in controller.documents if each.name == told.name), None)
    if found is None:
        raise CommandRefused(f"there is no release {told.name}")
    return found


def _latch(controller: "Controller", told: RolledBack) -> bool:
    """Latch the attempt unless it is over."""
    _document(controller, told)
    known, opened = controller.states.known.get(told.name), controller.opened
    now = known.state.attempt if known is not None else 0
    if told.attempt < now:
        return False
    if known is not None and told.attempt > now + _MOST_AHEAD:
        raise CommandRefused(f"attempt {told.attempt} is far ahead of the present one, {now}")
    if opened is not None:
        opened.latches.set(told.name, told.attempt)
    return True


def _lower(controller: "Controller", told: RolledBack) -> bool:
    known = controller.states.known.get(told.name)
    if known is None or known.state.attempt != told.attempt or known.state.latched:
        # A newer attempt is latched; who controls stores why, once it is known here.
        controller.apply()
        return known is None or not known.state.latched
    cause = Cause(told.reason or "another pod has taken it back", time(), told.who, told.address)
    outcome = latch(_document(controller, told), known.state, told.phase, cause)
    if outcome.state is not None:
        # Who has told it tells all pods.
        Keeper.lower(controller, told.name, outcome.state, outcome.messages)
    return True
