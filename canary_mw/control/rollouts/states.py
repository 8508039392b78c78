"""The states as a process knows them: read, counted since, or lowered and not stored yet."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from canary_mw.control.rollouts.checkpoints import Progress, progress_in
from canary_mw.control.rollouts.place import Opened
from canary_mw.control.rollouts.store import Stored
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import ReleaseState

# Times that what was lowered is written at once, where others write at the same time.
_TRIES = 3


class Known(NamedTuple):
    """A state and the version of it that is stored; None where none is."""

    state: ReleaseState
    version: int | None


class Lowered(NamedTuple):
    """A state that is in force here, though it is not stored yet."""

    state: ReleaseState
    messages: tuple[Message, ...]


@dataclass(slots=True)
class States:
    """What a process knows.

    Attributes:
        known: by release.
        lowered: what was rolled back or aborted, and has to be stored yet, or again.
        stored: what was read last, None before.
        changes: counts changes of `known`.
    """

    known: dict[str, Known] = field(default_factory=dict)
    lowered: dict[str, Lowered] = field(default_factory=dict)
    stored: Stored | None = None
    changes: int = 0

    def read(self, opened: Opened) -> None:
        """Take over what is stored; raises StoreAway."""
        stored = opened.store.load()
        progress = {name: progress_in(data) for name, data in opened.store.checkpoints().items()}
        rows = {name: Known(row.state, row.version) for name, row in stored.states.items()}
        for name, (state, version) in rows.items():
            before = self.known.get(name)
            counted = progress.get(name), (before.state if before is not None else None)
            rows[name] = Known(_with_progress(state, *counted), version)
        # What a newer version has written, or nobody can read, or was lost with its file, is as it was known here.
        lost = {name: Known(each.state, None) for name, each in self.known.items() if name not in rows}
        for name, each in self.known.items():
            if name in rows and _is_forgotten(each.state, rows[name].state):
                self.lowered.setdefault(name, Lowered(each.state, ()))
        self.known, self.stored = {**lost, **rows}, stored
        for name, lowered in list(self.lowered.items()):
            self._keep_lowered(name, lowered)
        for name, (state, _) in self.known.items():
            if state.latched:
                # What a restart finds in the place of the state may be older.
                opened.latches.set(name, state.attempt)
        self.changes += 1

    def _keep_lowered(self, name: str, lowered: Lowered) -> None:
        now = self.known.get(name)
        if now is not None and (now.state.attempt > lowered.state.attempt or _is_lowered(now.state, lowered.state)):
            del self.lowered[name]
        else:
            self.known[name] = Known(lowered.state, now.version if now is not None else None)

    def count(self, name: str, state: ReleaseState) -> None:
        """Note what was counted since the state was stored."""
        self.known[name] = Known(state, self.known[name].version)

    def lower(self, name: str, state: ReleaseState, messages: tuple[Message, ...]) -> None:
        """Note what is in force here from now on, and has to be stored."""
        before = self.known.get(name)
        self.lowered[name] = Lowered(state, messages)
        self.known[name] = Known(state, before.version if before is not None else None)
        self.changes += 1

    def write(self, opened: Opened, name: str, state: ReleaseState) -> bool:
        """Store a state unless somebody else has stored another one; raises StoreAway."""
        before = self.known.get(name)
        version = opened.store.compare_and_set(name, state, before.version if before is not None else None)
        if version is None:
            return False
        self.known[name] = Known(state, version)
        self.changes += 1
        return True

    def write_lowered(self, opened: Opened, said: Callable[[Lowered], object]) -> None:
        """Store what was lowered; raises StoreAway.

        Args:
            said: is called for each that is stored now.
        """
        for name, lowered in list(self.lowered.items()):
            for _ in range(_TRIES):
                if name not in self.lowered:
                    # Somebody else has lowered it, too.
                    break
                if self.write(opened, name, lowered.state):
                    del self.lowered[name]
                    said(lowered)
                else:
                    self.read(opened)


def _with_progress(state: ReleaseState, *counted: Progress | ReleaseState | None) -> ReleaseState:
    """The state with what was counted since it was stored, of the same stay at its weight."""
    here = state.attempt, state.visit, state.step
    same = [each for each in counted if each is not None and (each.attempt, each.visit, each.step) == here]
    elapsed = max([state.elapsed, *(each.elapsed for each in same)])
    baked = max([state.baked, *(each.baked for each in same)])
    return state if (elapsed, baked) == (state.elapsed, state.baked) else replace(state, elapsed=elapsed, baked=baked)


def _is_lowered(now: ReleaseState, wanted: ReleaseState) -> bool:
    return now.latched and now.attempt >= wanted.attempt


def _is_forgotten(before: ReleaseState, now: ReleaseState) -> bool:
    """Whether an older state lies in the place of one that takes gray back: a backup, or what somebody had kept."""
    return before.latched and not now.latched and now.attempt <= before.attempt


def only_counts(before: ReleaseState, after: ReleaseState) -> bool:
    """Whether two states differ in what is counted alone."""
    return replace(after, elapsed=before.elapsed, baked=before.baked) == before
