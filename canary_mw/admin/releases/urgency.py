"""Which releases need somebody, and which of them first: by what the figures say, and by how far the release is."""

from canary_mw.admin.models.releases import Release
from canary_mw.admin.models.rollout import Phase, Rollout
from canary_mw.rollout.sentence import STATES, State

NEEDS_YOU: tuple[State, ...] = ("worse", "slower", "split_off")
# What the figures say of gray is in the past.
LATCHED: tuple[Phase, ...] = ("RolledBack", "Aborted")
# The machine has stopped, and waits for a human.
_WAITING: tuple[Phase, ...] = ("RolledBack", "Held")
_FINDINGS = {
    "worse": "gray is failing",
    "slower": "gray is slower",
    "split_off": "the split is off",
    "RolledBack": "it was rolled back",
    "Held": "it is held",
}


def needs_somebody(state: State, rollout: Rollout | None) -> bool:
    """Whether somebody has to look at a release. Who has taken it back has looked at it."""
    phase = rollout["phase"] if rollout else "Manual"
    return phase in _WAITING or (state in NEEDS_YOU and phase not in LATCHED)


def rank(release: Release) -> tuple[int, int, str]:
    """The most urgent release has the lowest rank: one that harms somebody now, then one that waits, then others."""
    state, phase = release["verdict"]["state"], _phase(release)
    harms = state in NEEDS_YOU and phase not in LATCHED
    first = 0 if harms else 1 + _WAITING.index(phase) if phase in _WAITING else 3
    return first, STATES.index(state), release["name"]


def why(release: Release) -> str:
    """Why a release needs somebody, as "gray is failing"."""
    state, phase = release["verdict"]["state"], _phase(release)
    return _FINDINGS[state if state in NEEDS_YOU and phase not in LATCHED else phase]


def _phase(release: Release) -> Phase:
    return release["rollout"]["phase"] if release["rollout"] else "Manual"
