"""Drives the releases of a rule store: a thread where a release has steps, or was taken back, and nothing elsewhere."""

import logging
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet, ref

from canary_mw.control.rollouts.settings import Surroundings, is_cluster, is_used, surroundings
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import CommandRefused
from canary_mw.forking import JOIN_TIMEOUT, SystemThread, after_fork, ensure_forked_hooks, start_thread
from canary_mw.host import HostLogger
from canary_mw.locks import Latch, Mutex
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import GrayRelease
from canary_mw.run_folder.folder import Folder

if TYPE_CHECKING:
    from canary_mw.control.rollouts.controller import Controller
    from canary_mw.control.rollouts.inputs import Evidence, Observe, Peers
    from canary_mw.control.rollouts.standing import Standing
    from canary_mw.rollout.commands import Command, Who

T = TypeVar("T")
logger = HostLogger(logging.getLogger("canary_mw.rollouts"))

# Seconds within which a process hears of what others have stored.
_INTERVAL = 0.05
# Seconds between two looks for a state of a release without steps, which somebody may have aborted.
_LOOK, _IDLE = 0.25, 5.0
# Seconds for which a new process waits for the store before it says that it is ready.
_PATIENCE = 5.0


class Rollouts:
    """The releases of a rule store. Any thread may call it. What drives them is loaded where there is one to drive.

    Args:
        named: the setting that names the place of the states.
        run_folder: returns the run folder as it is now, None without one.
        evidence: makes what reads it.
        hook_hosts: see `HookClient`.
        deployment: see `Place`.
        peers: makes what knows the other pods, given what reads the evidence.

    Attributes:
        observers: are told of each transition that this process has stored, in its thread. They are given before
            anything is stored.
    """

    def __init__(
        self,
        rules: RuleStore,
        named: str | None,
        run_folder: Callable[[], Folder | None],
        evidence: "Callable[[], Evidence]",
        where: Surroundings | None = None,
        hook_hosts: Collection[str] = (),
        deployment: str = "",
        peers: "Callable[[Evidence], Peers] | None" = None,
    ) -> None:
        self._rules = rules
        self._named, self._run_folder = named, run_folder
        self._evidence = evidence
        self._where = surroundings(os.environ, named) if where is None else where
        self.observers: list[Observe] = []
        self._hook_hosts, self._deployment, self._peers = tuple(hook_hosts), deployment, peers
        self._shared = is_cluster(named)
        if self._shared:
            # Before a server forks: a child must not wait for what another thread imports.
            for name in ("cluster.store", "peers.peers"):
                import_module(f"canary_mw.control.rollouts.{name}")
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        """Make what each process has for itself."""
        # The first is held while a table comes into force: who puts tables in force takes only the second.
        self._mutex, self._starting = Mutex(), Mutex()
        self._thread: SystemThread | None = None
        self._began = monotonic()
        self._runs = self._said = False
        self._made: Controller | None = None

    @property
    def _controller(self) -> "Controller":
        """What knows the states of this process; made at first use."""
        if self._made is None:
            from canary_mw.control.rollouts.cluster.wanted import Wanted
            from canary_mw.control.rollouts.controller import Controller
            from canary_mw.control.rollouts.hooks.hooks import Hooks
            from canary_mw.control.rollouts.place import Place
            from canary_mw.control.rollouts.queries.queries import Queries

            place = Place(self._named, self._run_folder, Wanted(self._rules), self._deployment)
            self._made = Controller(self._rules, place, self._evidence(), self._where)
            if self._peers is not None:
                self._made.peers = self._peers(self._made.evidence)
            self._made.observers = [*self.observers]
            self._made.ask_and_tell(Hooks(self._hook_hosts))
            self._made.queries = Queries(self._hook_hosts).ask
        return self._made

    def start(self) -> None:
        """Drive the releases from now on, where there are any; call it with the rules in force."""
        ensure_forked_hooks()
        self._began, self._runs = monotonic(), True
        self._rules.tell(self._take_table)
        self._take_table(self._rules.table)
        if self._thread is not None:
            # What is stored is in force on return, if the store answers at once.
            with self._mutex:
                self._controller.look_up()
                self._controller.apply()

    def watch(self) -> None:
        """Look for the state of others from the thread of the rules; call it before that is started."""
        tick = partial(_look_for_states, ref(self))
        if not any(getattr(each, "func", None) is _look_for_states for each in self._rules.ticks):
            self._rules.ticks.append(tick)

    def _take_table(self, table: RouteTable) -> None:
        driven = any(each.plan is not None or self._shared for each in table.documents.in_force)
        if self._runs and (self._where.stopped or driven):
            self._begin()

    def look_for_states(self) -> float:
        """Begin where a state lies; returns the seconds until the next look."""
        if self._thread is not None or not self._rules.table.documents.in_force:
            return _IDLE
        if self._runs and is_used(self._named, self._run_folder):
            self._begin()
        return _LOOK

    def _begin(self) -> None:
        """Start the thread, once."""
        with self._starting:
            if self._thread is None and self._runs:
                stop = Latch()
                drive = partial(_drive, ref(self), stop)
                self._thread = start_thread(drive, "canary-mw-rollouts", stop=stop.set, owner=self)

    def _say_where(self) -> None:
        from canary_mw.control.rollouts.place import say_where

        opened = self._controller.opened
        if opened is None or self._said or (opened.folder is not None and not self._controller.leads):
            return
        self._said = True
        say_where(opened, self._where)

    def step(self) -> None:
        """Look once."""
        from canary_mw.control.rollouts.peers.thresholds import agree

        with self._mutex:
            self._controller.step()
            agree(self._controller)
            self._say_where()

    def end(self) -> None:
        """Let another process control; what is counted is stored."""
        with self._mutex:
            self._controller.end()

    def stop(self) -> None:
        """End the thread; `start` starts it again."""
        ensure_forked_hooks()
        # The thread of the rules may be about to begin it.
        with self._starting:
            self._runs = False
            thread, self._thread = self._thread, None
        if thread is not None and thread.stop is not None:
            thread.stop()
            if not thread.is_current():
                thread.join(JOIN_TIMEOUT)

    @property
    def ready(self) -> bool:
        """Whether the weights of the releases are known, or were waited for long enough."""
        if not any(each.plan is not None or self._shared for each in self._documents):
            return True
        known = self._made is not None and self._made.states.stored is not None
        return known or monotonic() - self._began > _PATIENCE

    def ask(self, job: "Callable[[Controller], T]", *, waits: bool = True) -> T:
        """The result of a job with what knows the states.

        Args:
            waits: False for a job that changes nothing but latches: it waits for no store.
        """
        if not waits and self._made is not None:
            return job(self._made)
        with self._mutex:
            return job(self._controller)

    def ask_to_look(self) -> None:
        """Ask the controller, in whichever process, to look at the evidence now; requests may call it."""
        opened = self._made.opened if self._made is not None else None
        if opened is not None:
            opened.latches.ask_to_look()

    def versions(self) -> "dict[str, int | None]":
        """The versions of the states that this process knows; any thread may ask, and waits for nothing."""
        made = self._made
        return {} if made is None else {name: each.version for name, each in list(made.states.known.items())}

    def standing(self, name: str) -> "Standing | None":
        """How a release stands; None where there is no such release."""
        from canary_mw.control.rollouts.standing import standing_of

        with self._mutex:
            document = self._document(name)
            return None if document is None else standing_of(self._controller, document, self._where)

    @property
    def is_controlled(self) -> bool | None:
        """Whether some process of this host raises the releases; None where nothing is driven."""
        opened = self._made.opened if self._made is not None and self._thread is not None else None
        return None if opened is None else opened.latches.is_beaten() and opened.latches.controller != 0

    def standings(self) -> "Sequence[Standing]":
        """How all releases stand, in the order of the documents."""
        return [each for each in map(self.standing, [each.name for each in self._documents]) if each is not None]

    @property
    def _documents(self) -> Sequence[GrayRelease]:
        return self._rules.table.documents.in_force

    def _document(self, name: str) -> GrayRelease | None:
        return next((each for each in self._documents if each.name == name), None)

    def command(self, name: str, wanted: "Command", if_match: int | None, who: "Who") -> "Standing":
        """Do what somebody asks of a release. Abort works without a store.

        Args:
            if_match: the version that they have seen; None for any.

        Raises:
            CommandRefused: it does not fit the phase, or there is no such release.
            VersionMoved: the state is another one by now.
            StoreAway: nothing can be stored.
        """
        from canary_mw.control.rollouts.standing import standing_of

        self._begin()
        with self._mutex:
            document = self._document(name)
            if document is None:
                raise CommandRefused(f"there is no release {name}")
            self._controller.look_up()
            self._controller.obey(document, wanted, if_match, who)
            self._controller.apply()
            return standing_of(self._controller, document, self._where)


def _look_for_states(reference: "ref[Rollouts]") -> float:
    rollouts = reference()
    return _IDLE if rollouts is None else rollouts.look_for_states()


def _drive(reference: "ref[Rollouts]", stop: Latch) -> None:
    """The thread: it keeps nothing alive."""
    failed = False
    while not stop.wait(_INTERVAL):
        rollouts = reference()
        if rollouts is None:
            return
        try:
            rollouts.step()
            failed = False
        except Exception:
            if not failed:
                logger.exception("looking at the releases failed; trying again")
            failed = True
        del rollouts
    rollouts = reference()
    if rollouts is not None:
        rollouts.end()


_all: WeakSet[Rollouts] = WeakSet()


# What drove releases in a parent. It is never freed: that would close connections in the event loop of the parent.
_of_parents: list["Controller"] = []


def _after_fork() -> None:
    for rollouts in _all:
        if rollouts._made is not None:
            _of_parents.append(rollouts._made)
        rollouts._reset()


after_fork(_after_fork)
