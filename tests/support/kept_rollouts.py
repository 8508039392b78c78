"""What drives releases, as the admin port sees it: states in a dict that move by commands alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.rollouts.standing import Standing
from canary_mw.exceptions import VersionMoved
from canary_mw.rollout.commands import Command, Who, command
from canary_mw.rollout.state import Phase, ReleaseState
from canary_mw.rollout.steps.moves import first_state
from canary_mw.rules.epoch import subject_of
from canary_mw.rules.release import GrayRelease

SOMEBODY = Who("somebody", "10.0.0.9", 1.0)
# The commands that lead to a phase.
PATHS: dict[Phase, Sequence[Command]] = {
    "Pending": (),
    "Progressing": (Command(name="promote"),),
    "Paused": (Command(name="promote"), Command(name="pause")),
    "Held": (Command(name="promote"),),
    "Baking": (Command(name="promote", full=True),),
    "Completed": (Command(name="promote", full=True), Command(name="promote")),
    "RolledBack": (Command(name="promote"), Command(name="abort")),
    "Aborted": (Command(name="promote"), Command(name="abort")),
}


def state_in(document: GrayRelease, phase: Phase) -> ReleaseState:
    """A state in a phase."""
    state = first_state(document, subject_of(document), 1, 1.0)
    for each in PATHS.get(phase, ()):
        found = command(document, state, each, SOMEBODY).state
        assert found is not None
        state = found
    held = {"held_by": "sample_ratio", "objection": "sample_ratio"} if phase == "Held" else {}
    changes: dict[str, Any] = {"phase": phase, **held}
    return replace(state, **changes)


class KeptRollouts(Rollouts):
    """States by the name of their release.

    Attributes:
        error: is raised by the next command.
        known: what else is known of each release.
    """

    def __init__(self, *documents: GrayRelease, phase: Phase = "Pending") -> None:
        self.documents = {each.name: each for each in documents}
        self.states = {each.name: state_in(each, phase) for each in documents if each.plan is not None}
        self.versions_by_name = dict.fromkeys(self.states, 7)
        self.error: Exception | None = None
        self.known: dict[str, dict[str, Any]] = {}

    def versions(self) -> dict[str, int | None]:
        return {**self.versions_by_name}

    def standing(self, name: str) -> Standing | None:
        if name not in self.documents:
            return None
        state, version = self.states.get(name), self.versions_by_name.get(name, 0)
        known = {"controller": "process 4711", "is_controller": True, **self.known.get(name, {})}
        return Standing(name=name, state=state, version=version, **known)

    def command(self, name: str, wanted: Command, if_match: int | None, who: Who) -> Standing:
        if self.error is not None:
            raise self.error
        version = self.versions_by_name.get(name, 0)
        if if_match not in (None, version):
            raise VersionMoved(f"the state of {name} has version {version} by now, and not {if_match}")
        state = command(self.documents[name], self.states.get(name), wanted, who).state
        if state is not None and state != self.states.get(name):
            self.states[name], self.versions_by_name[name] = state, version + 1
        standing = self.standing(name)
        assert standing is not None
        return standing
