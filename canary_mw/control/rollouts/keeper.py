"""Keeps the states of releases in force: reads them, stores them, lowers at once, and tells what has changed."""

import logging
from collections.abc import Callable, Sequence
from time import monotonic

from canary_mw.control.rollouts.in_force import overrides_of
from canary_mw.control.rollouts.inputs import Observe
from canary_mw.control.rollouts.latch import Latches
from canary_mw.control.rollouts.place import Opened, Place
from canary_mw.control.rollouts.settings import Surroundings
from canary_mw.control.rollouts.states import Lowered, States
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import StoreAway
from canary_mw.host import HostLogger
from canary_mw.rollout.engine import Store
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import ReleaseState
from canary_mw.routing.releases.override import LatchCell
from canary_mw.rules.release import GrayRelease

logger = HostLogger(logging.getLogger("canary_mw.rollouts"))

_READ, _WRITE = "read", "written"
_RETRY = 0.5
# Seconds for which a write that failed says that others would fail, too.
_FAILED = 10.0
# Seconds for which a store of a cluster that knows nothing may be one that has lost what it knew.
_YOUNG = 60.0
_REMEMBERED = 50


class Keeper:
    """The states of releases, as they are in force in this process; one thread at a time calls it.

    Args:
        rules: whose releases these are.

    Attributes:
        observers: are told of each transition that this process has stored.
        states: what is known.
        opened: where it is kept; None before that could be opened.
        troubles: why the store cannot be read, or written; empty where it can.
        messages: by release, the last ones.
    """

    def __init__(
        self, rules: RuleStore, place: Place, surroundings: Surroundings, clock: Callable[[], float] = monotonic
    ) -> None:
        self._rules = rules
        self._place = place
        self._surroundings = surroundings
        self._clock = clock
        self.observers: list[Observe] = []
        self.states = States()
        self.opened: Opened | None = None
        self.troubles: dict[str, str] = {}
        self.messages: dict[str, tuple[Message, ...]] = {}
        self._young_until = self._failed_until = 0.0
        self._own_latches = Latches(None)
        self._next: dict[str, float] = {}
        self._in_force: object = None
        self._said_stop = False
        self._said_problems: tuple[str, ...] = ()
        self._said_unreadable: dict[str, str] = {}

    @property
    def documents(self) -> Sequence[GrayRelease]:
        """The releases as they are written."""
        return self._rules.table.documents.in_force

    def is_due(self, what: str, interval: float) -> bool:
        """Whether something is to be done now that is done once in an interval of seconds."""
        now = self._clock()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + interval
        return True

    def look_up(self) -> None:
        """Read the states if they may have changed."""
        if _READ in self.troubles and not self.is_due("retry", _RETRY):
            return
        try:
            opened = self._place.open()
            if opened is not self.opened:
                self._adopt(opened)
            if self.states.stored is None or opened.store.has_changed():
                self.states.read(opened)
                self._note_age()
                self._say_unreadable()
        except (OSError, StoreAway) as exc:
            self.fail(_READ, exc)
            return
        self.recover(_READ)
        self._forget_failure()
        if self.states.lowered and (_WRITE not in self.troubles or self.is_due("retry", _RETRY)):
            self._store_lowered(opened)

    def _adopt(self, opened: Opened) -> None:
        """Go on with another folder: what was known is stored there."""
        self.opened, self.states.stored = opened, None
        for name, known in self.states.known.items():
            if known.state.latched:
                opened.latches.set(name, known.state.attempt)
        if opened.latches.error is not None:
            text = "the latches in %s cannot be used: %s; a rollback reaches other workers a moment later"
            logger.warning(text, opened.folder and opened.folder.path, opened.latches.error)

    def _note_age(self) -> None:
        stored = self.states.stored
        if stored is not None and not stored.states and not self._young_until and self._surroundings.in_cluster:
            self._young_until = self._clock() + _YOUNG
            text = "the store of states is new and knows nothing: no release begins in its first %d seconds"
            logger.info(text, _YOUNG)

    def _say_unreadable(self) -> None:
        """Say once why the state of a release is not known."""
        now = self.states.stored.unreadable if self.states.stored is not None else {}
        for name, reason in now.items():
            if self._said_unreadable.get(name) != reason:
                text = "the state of release %s cannot be read: %s; it is not raised until it can, and keeps its weight"
                logger.error(text, name, reason)
        for name in self._said_unreadable.keys() - now.keys():
            logger.info("the state of release %s can be read again", name)
        self._said_unreadable = {**now}

    def say_problems(self, problems: tuple[str, ...]) -> None:
        """Say once what keeps this process from raising."""
        if problems != self._said_problems:
            self._said_problems = problems
            for each in problems:
                logger.error("no release can be raised from here: %s", each)

    def is_young(self) -> bool:
        """Whether a store that knows nothing may be one that has lost what it knew."""
        return self._clock() < self._young_until and self.states.stored is not None and not self.states.stored.states

    def fail(self, what: str, error: Exception) -> None:
        """Note that the store cannot be used to read, or to write."""
        if not self.troubles:
            where = self._place.words
            text = "%s cannot be %s: %s; no release is raised until it can, and what is lowered stays so"
            logger.error(text, where, what, error)
        self.troubles[what] = str(error)
        self._failed_until = self._clock() + _FAILED

    def _forget_failure(self) -> None:
        """A write that failed long ago, and is not wanted any more, says nothing of the next one."""
        if not self.states.lowered and self._clock() >= self._failed_until:
            self.troubles.pop(_WRITE, None)

    def recover(self, what: str) -> None:
        """Note that it can be used."""
        if self.troubles.pop(what, None) is not None and not self.troubles:
            logger.info("the store of states can be used again")

    def store_of(self, name: str) -> Store:
        """How it goes with the store of a release."""
        stored = self.states.stored
        if self._surroundings.unshared:
            return "unshared"
        if stored is None or name in stored.unknown:
            return "away"
        return "newer" if name in stored.newer else "answered"

    def lower(self, name: str, state: ReleaseState, messages: tuple[Message, ...]) -> None:
        """Put everybody on stable: first in all workers, then in the state."""
        latches = self._own_latches if self.opened is None else self.opened.latches
        latches.set(name, state.attempt)
        self.states.lower(name, state, messages)
        self.apply()
        if self.opened is not None:
            self._store_lowered(self.opened)
        if name in self.states.lowered:
            for message in messages:
                logger.warning("%s; the state is stored as soon as the store can be used", message.text)

    def _store_lowered(self, opened: Opened) -> None:
        def said(lowered: Lowered) -> None:
            if not lowered.messages:
                text = "the store had an older state of release %s: that it was taken back is stored again"
                logger.warning(text, lowered.state.name)
            self._say(lowered.messages, lowered.state)

        try:
            self.states.write_lowered(opened, said)
        except StoreAway as exc:
            self.fail(_WRITE, exc)
        else:
            self.recover(_WRITE)

    def write(self, name: str, state: ReleaseState, messages: tuple[Message, ...]) -> bool:
        """Store a state unless somebody else was faster; what it raises is in force afterwards. Raises StoreAway."""
        if self.opened is None:
            raise StoreAway(self.troubles.get(_READ, "the store of states was not opened yet"))
        try:
            written = self.states.write(self.opened, name, state)
            if not written:
                self.states.read(self.opened)
                return False
        except StoreAway as exc:
            self.fail(_WRITE, exc)
            raise
        self.recover(_WRITE)
        self._say(messages, state)
        self.apply()
        return True

    def _say(self, messages: tuple[Message, ...], state: ReleaseState) -> None:
        for message in messages:
            name = message.release
            self.messages[name] = (*self.messages.get(name, ()), message)[-_REMEMBERED:]
            level = logging.WARNING if message.after in ("RolledBack", "Held") else logging.INFO
            logger.log(level, "%s", message.text)
            for observe in self.observers:
                try:
                    observe(message, state)
                except Exception:
                    logger.exception("%r failed on a change of release %s", observe, name)

    @property
    def stopped(self) -> bool:
        """Whether everybody gets stable, of all releases."""
        return self._surroundings.stopped or (self.states.stored is not None and self.states.stored.stopped)

    def apply(self) -> None:
        """Put in force what follows from documents, states and latches."""
        states, table = self.states, self._rules.table
        latched = tuple(self._cell(name).cells[0] for name in states.known)
        basis = states.changes, self.stopped, latched, states.stored is None, id(self.opened)
        if (table, basis) == self._in_force:
            return
        self._say_stop()
        known = {name: each.state for name, each in states.known.items()}
        overrides = overrides_of(
            table.documents,
            None if states.stored is None and not known else known,
            self._cell,
            unknown=states.stored.unknown if states.stored is not None else (),
            stopped=self.stopped,
            unshared=self._surroundings.unshared,
        )
        self._rules.override(overrides)
        self._in_force = self._rules.table, basis

    def _say_stop(self) -> None:
        if self.stopped != self._said_stop:
            self._said_stop = self.stopped
            text = (
                "all releases are stopped: everybody gets stable" if self.stopped else "no release is stopped any more"
            )
            logger.warning(text)

    def _cell(self, name: str) -> LatchCell:
        latches = self._own_latches if self.opened is None else self.opened.latches
        return latches.cell(name)
