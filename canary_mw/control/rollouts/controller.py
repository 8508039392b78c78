"""One look at the releases: which states are in force, who controls, and what follows for the one who does.

Every process calls `step` again and again, and derives everything anew: what it missed once it finds the next time.
Three things are needed to raise: the lock of the folder, a store that answers, and a state that nobody else has written
since it was read. None of them is needed to lower.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic, time

from canary_mw.control.rollouts.checkpoints import keep_progress, restore_evidence
from canary_mw.control.rollouts.hooks.hooks import Hooks
from canary_mw.control.rollouts.inputs import AskGates, AskQueries, Evidence, Peers
from canary_mw.control.rollouts.keeper import Keeper
from canary_mw.control.rollouts.latch import SILENCE
from canary_mw.control.rollouts.peers.nobody import NoPeers
from canary_mw.control.rollouts.place import Opened, Place
from canary_mw.control.rollouts.settings import Surroundings
from canary_mw.control.rollouts.states import Known, only_counts
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import StoreAway, VersionMoved
from canary_mw.host import HostLogger
from canary_mw.rollout.commands import Command, Who, command
from canary_mw.rollout.engine import Now, Store, tick
from canary_mw.rollout.outcome import Message, Outcome
from canary_mw.rollout.queries import QueryStanding
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.steps.moves import Cause, latch
from canary_mw.rules.release import GrayRelease
from canary_mw.run_folder.lock import RETRY_INTERVAL, FolderLock

logger = HostLogger(logging.getLogger("canary_mw.rollouts"))

LOCK = "controller.lock"
# Seconds between two looks of the controller at evidence.
TICK = 1.0
# The least between two, where gray fails.
_SOONEST = 0.05
# Seconds between two checkpoints.
_CHECKPOINT = 5.0
# The most that counts of the time between two ticks: a process that was stopped has not watched meanwhile.
_LONGEST = 5.0
# Seconds within which a process that takes a release back stores why, if it can.
_STORED_WITHIN = 3.0
_ENDED = "a process took it back, and ended before it could store why"


def _asks_nobody(document: GrayRelease, state: ReleaseState) -> tuple[QueryStanding, ...]:
    return ()


class Controller(Keeper):
    """What a process does about releases; one thread at a time calls it.

    Attributes:
        gates, queries: ask about a release; by default nobody is asked.
        evidence: where it comes from.
        peers: the other pods; by default there are none.
        leads: whether this process controls.
        outcomes: of the last look at each release.
    """

    def __init__(
        self,
        rules: RuleStore,
        place: Place,
        evidence: Evidence,
        surroundings: Surroundings,
        *,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(rules, place, surroundings, clock)
        self.evidence = evidence
        self._wall = wall
        self.gates: AskGates | None = None
        self.queries: AskQueries = _asks_nobody
        self.peers: Peers = NoPeers()
        self._hooks: Hooks | None = None
        self.leads = False
        self.outcomes: dict[str, Outcome] = {}
        self._lock = FolderLock(lambda: self.opened.folder if self.opened is not None else None, LOCK)
        self._began = clock()
        self._last_tick: float | None = None
        self._looks = 0
        self._soonest = _SOONEST
        self._restored: set[str] = set()
        self._latched_since: dict[tuple[str, int], float] = {}

    def ask_and_tell(self, hooks: Hooks) -> None:
        """Ask the hooks of releases, and tell them what this process has stored."""
        self.gates, self._hooks = hooks.gates, hooks
        self.observers.append(partial(self._tell, hooks))

    def _tell(self, hooks: Hooks, message: Message, state: ReleaseState) -> None:
        document = next((each for each in self.documents if each.name == message.release), None)
        outcome = self.outcomes.get(message.release)
        if document is not None and message.kind == "transition":
            hooks.changed(document, state, message, outcome.look if outcome is not None else None)

    def step(self) -> None:
        """Look once; a process that controls also does what is due."""
        self.look_up()
        self.apply()
        if self.is_due("figures", TICK):
            self.evidence.tick(self._rules)
        if self.opened is None:
            return
        if self.is_due("lock", RETRY_INTERVAL):
            self._contend()
        self._hear()
        if self.leads:
            self._lead()
        elif self.is_due("alone", TICK) and self._is_alone():
            self._tick(0.0)
        self.apply()

    def _adopt(self, opened: Opened) -> None:
        self._lock.release()
        self.leads = False
        super()._adopt(opened)
        if opened.kind == "cluster":
            # One process of the pod has to ask the API before anybody is answered.
            self._contend()

    def _contend(self) -> None:
        """Take the lock, or see whether it is still held."""
        assert self.opened is not None
        speaks = self._lock.acquire() and self._may_lead()
        if speaks:
            self.peers.watch()
        led, self.leads = self.leads, self.opened.store.contend(speaks=speaks)
        self.say_problems(self.opened.store.problems if speaks else ())
        if self.leads and not led:
            self._last_tick, self._restored = None, set()
            logger.debug("this process controls the releases")

    def _hear(self) -> None:
        """Note for the workers of this pod that another pod controls."""
        assert self.opened is not None
        heard = None if self.leads else self.opened.store.heard
        if heard is not None:
            self.opened.latches.hear(heard)

    def _may_lead(self) -> bool:
        # The lock of a folder that cannot be used any more is nobody's.
        return self.opened is not None and (self._lock.folder is not None or self.opened.folder is None)

    def _is_alone(self) -> bool:
        """Whether nobody has controlled for long."""
        assert self.opened is not None
        silence = self.opened.latches.silence()
        return (self._clock() - self._began if silence is None else silence) > SILENCE

    def _lead(self) -> None:
        assert self.opened is not None
        self.peers.pull()
        latches = self.opened.latches
        looks, due = latches.looks, self.is_due("tick", TICK)
        if not due and (looks == self._looks or not self.is_due("look", self._soonest)):
            return
        self._looks, began = looks, self._clock()
        latches.beat()
        now = self._clock()
        elapsed = 0.0 if self._last_tick is None else min(now - self._last_tick, _LONGEST)
        self._last_tick = now
        self._restore()
        self._tick(elapsed)
        if self.is_due("checkpoint", _CHECKPOINT):
            self.keep_progress()
        # Where gray fails all the time, to look takes a fifth of a processor at most.
        self._soonest = max(_SOONEST, 4 * (self._clock() - began))

    def _tick(self, elapsed: float) -> None:
        for document in self.documents:
            known = self.states.known.get(document.name)
            if document.plan is not None or known is not None:
                with suppress(StoreAway):
                    self._tick_release(document, known, elapsed)

    def _tick_release(self, document: GrayRelease, known: Known | None, elapsed: float) -> None:
        if known is None and self.is_young():
            return
        store = self.store_of(document.name)
        if known is not None and self._was_taken_back(known.state):
            outcome = latch(document, known.state, "RolledBack", Cause(_ENDED, self._wall()))
        else:
            outcome = self.judge(document, known, store, elapsed)
        self.outcomes[document.name] = outcome
        if outcome.state is not None:
            self._follow(document.name, known, outcome.state, outcome.messages, store)

    def _was_taken_back(self, state: ReleaseState) -> bool:
        """Whether a latch was set by a process that has not stored why: it was killed, or cannot write."""
        place = state.name, state.attempt
        if state.latched or self.opened is None or not self.opened.latches.is_set(*place):
            return False
        return self._clock() - self._latched_since.setdefault(place, self._clock()) >= _STORED_WITHIN

    def judge(self, document: GrayRelease, known: Known | None, store: Store, elapsed: float = 0.0) -> Outcome:
        """What follows from a look at a release; it changes nothing."""
        state, evidence, gates = (known.state if known is not None else None), None, None
        queries: tuple[QueryStanding, ...] = ()
        if state is not None and document.plan is not None:
            evidence = self.evidence.of(document, state)
            if self.leads and evidence is not None:
                evidence = self.peers.weighed(evidence)
            # The process that controls asks them, so they are asked once.
            gates = self.gates(document, state) if self.gates is not None and self.leads else None
            queries = self.queries(document, state) if self.leads else ()
        now = Now(
            elapsed=elapsed,
            wall=self._wall(),
            controller=self.leads,
            alone_of=1 if self.leads else self.peers.pods,
            gates=gates.open if gates is not None else {},
            demand=gates.rollback if gates is not None else "",
            queries=queries,
            store=store,
            shared=self.opened is not None and self.opened.kind == "cluster",
            attempts=self.evidence.newest_attempt(document.name),
        )
        return tick(document, state, evidence, now)

    def _follow(
        self, name: str, known: Known | None, new: ReleaseState, messages: tuple[Message, ...], store: Store
    ) -> None:
        """Let a state be the next one, if this process may."""
        if known is not None and new.latched and not known.state.latched:
            self.lower(name, new, messages)
        elif not self.leads or store != "answered":
            return
        elif known is not None and known.version is not None and only_counts(known.state, new):
            self.states.count(name, new)
        elif self.write(name, new, messages) and known is None:
            # What is new waits for nothing but its hooks.
            self._next.pop("tick", None)

    def obey(self, document: GrayRelease, wanted: Command, if_match: int | None, who: Who) -> None:
        """Do what somebody asks of a release; see `Rollouts.command`."""
        name = document.name
        known = self.states.known.get(name)
        version = known.version or 0 if known is not None else 0
        if if_match is not None and if_match != version:
            raise VersionMoved(f"the state of {name} has version {version} by now, and not {if_match}")
        outcome = command(document, known.state if known is not None else None, wanted, who)
        if (state := outcome.state) is None or (known is not None and state == known.state):
            return
        if state.latched:
            self.lower(name, state, outcome.messages)
            return
        if self.store_of(name) != "answered":
            raise StoreAway(f"the state of {name} cannot be written: {'; '.join(self.troubles.values())}")
        if not self.write(name, state, outcome.messages):
            raise VersionMoved(f"somebody else has changed the state of {name} at the same time")

    def lower(self, name: str, state: ReleaseState, messages: tuple[Message, ...]) -> None:
        """See `Keeper.lower`; the other pods hear of it before it is stored."""
        self.peers.tell_lowered(state)
        super().lower(name, state, messages)

    def keep_progress(self) -> None:
        """Store what a restart goes on with."""
        if self.opened is None or not self.leads:
            return
        for state in self._under_way():
            if state.name not in self._restored:
                # What is stored is more than what is counted.
                continue
            try:
                keep_progress(self.opened.store, self.evidence, state)
            except StoreAway as exc:
                self.fail("written", exc)

    def _restore(self) -> None:
        """Go on with the evidence of before a restart, once for each release."""
        assert self.opened is not None
        missing = [state for state in self._under_way() if state.name not in self._restored]
        if missing:
            with suppress(StoreAway):
                self._restored |= restore_evidence(self.opened.store, self.evidence, missing)

    def _under_way(self) -> list[ReleaseState]:
        """The states of the releases that may still be raised."""
        names = {each.name for each in self.documents if each.plan is not None}
        known = [each.state for name, each in self.states.known.items() if name in names]
        return [state for state in known if not state.latched]

    def end(self) -> None:
        """Let another process control from now on."""
        self.keep_progress()
        if self._hooks is not None:
            self._hooks.close()
        self.peers.stop()
        self.leads = False
        self._lock.release()
        self._place.close()
