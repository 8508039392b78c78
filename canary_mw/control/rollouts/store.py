"""What keeps the states of releases for all who share them."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from canary_mw.rollout.state import ReleaseState


class Row(NamedTuple):
    """A state, and the number of times that it was written."""

    state: ReleaseState
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a store holds.

    Attributes:
        states: by the name of the release.
        stopped: somebody has stopped all releases.
        newer: the names of those that a newer version has written: nothing of them is raised here.
        unreadable: the names of those whose newest state may not be known, each with the reason.
        awaited: the names of those of which nothing is known yet.
        identity: another one for a store that was made anew.
    """

    states: Dict[str, Row] = field(default_factory=dict)
    stopped: bool = False
    newer: frozenset[str] = frozenset()
    unreadable: Dict[str, str] = field(default_factory=dict)
    awaited: frozenset[str] = frozenset()
    identity: str = ""

    @property
    def unknown(self) -> frozenset[str]:
        """The names of those whose state may be another one than is known."""
        return self.awaited | self.unreadable.keys()


class StateStore(Protocol):
    """Keeps states. Any thread may call it, one at a time; a call takes a second at most.

    Every method but `close` raises StoreAway where the store cannot be reached, or cannot be written.
    """

    def load(self) -> Stored:
        """All that is stored."""

    def compare_and_set(self, name: str, state: ReleaseState, version: int | None) -> int | None:
        """Write a state if its version is still this one; None for a state that there was not.

        Returns:
            The version after it, None where somebody else was faster.
        """

    def checkpoint(self, name: str, data: bytes) -> None:
        """Keep what a restart goes on with; this changes no version."""

    def checkpoints(self) -> Dict[str, bytes]:
        """What was kept so."""

    def has_changed(self) -> bool:
        """Whether somebody else may have written since `load` was called; it is cheap to ask."""

    def contend(self, *, speaks: bool) -> bool:
        """Whether this process may raise, as far as the store has a say in it.

        Args:
            speaks: whether this process holds the lock of the folder, and speaks for all who share that.
        """

    @property
    def heard(self) -> float | None:
        """Seconds since somebody who shares the store, but not the folder, was heard to raise; None for never."""

    @property
    def controller(self) -> str:
        """Who raises, in words; "" where the store does not know."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps this process from raising, in words."""

    def close(self) -> None:
        """Give up what is open; the next call opens it anew."""


class LocalStore:
    """What stores of one host have in common: who holds the lock of their folder may raise."""

    @property
    def heard(self) -> float | None:
        """See `StateStore.heard`."""
        return None

    @property
    def controller(self) -> str:
        """See `StateStore.controller`."""
        return ""

    @property
    def problems(self) -> tuple[str, ...]:
        """See `StateStore.problems`."""
        return ()

    def contend(self, *, speaks: bool) -> bool:
        """See `StateStore.contend`."""
        return speaks
