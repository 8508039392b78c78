"""What an admin app shows: the rules of a process, its figures, and what else the process says about itself."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Protocol, TypeVar

from canary_mw.admin.models.operations import FileDiff, SettingInForce
from canary_mw.admin.models.rollout import Rollout
from canary_mw.admin.releases.trail import Trails
from canary_mw.control.store import RuleStore
from canary_mw.observability.figures.values import Figures
from canary_mw.observability.source_status import SourceStatus
from canary_mw.upstreams.health import EndpointStatus

T = TypeVar("T")

_MOST_REMEMBERED = 1_000


class MetricsRenderer(Protocol):
    """Source of the metrics page."""

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that an `Accept` header asks for, and their media type."""


def no_figures() -> Figures:
    """The figures of a process that counts nothing."""
    return Figures(now=time())


def no_differences(generation: int) -> Sequence[FileDiff]:
    """Where nobody keeps the texts."""
    return ()


def no_rollout(name: str) -> Rollout | None:
    """Where nothing drives releases."""
    return None


def _nothing() -> object:
    return None


def _nowhere() -> str | None:
    return None


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Subject:
    """What an admin app shows.

    Attributes:
        draining: returns whether the process shuts down and takes no new requests.
        read_figures: reads the figures of all workers of the pod; it may take a while.
        endpoints: the addresses of all services that this process knows; in any thread.
        sources: how it goes with what is watched over a network; in any thread.
        differences: what the reload changed in the texts after which a table was in force, by its number.
        waiting: what a new process waits for before it is ready, "" for nothing.
        rollout: how far the release of a name is.
        stamp: changes with the states of the releases; cheap, in any thread.
        settings: those in force, without secrets.
        folder: returns where the workers keep their figures, None for the memory of this process.
        pod: name of the pod or host.
        started: seconds since 1970.
        clock: the same.
        states: of each gray variant since when it is in which state, as far as it was looked at.
        trails: how the evidence about releases grew, as far as it was looked at.
        memory: what takes long to work out, for as long as it is right; for one thread.
    """

    store: RuleStore
    metrics: MetricsRenderer
    draining: Callable[[], bool] = _never
    read_figures: Callable[[], Figures] = no_figures
    endpoints: Callable[[], Sequence[EndpointStatus]] = tuple
    sources: Callable[[], Sequence[SourceStatus]] = tuple
    differences: Callable[[int], Sequence[FileDiff]] = no_differences
    waiting: Callable[[], str] = str
    rollout: Callable[[str], Rollout | None] = no_rollout
    stamp: Callable[[], object] = _nothing
    settings: Sequence[SettingInForce] = ()
    folder: Callable[[], str | None] = _nowhere
    pod: str = field(default_factory=socket.gethostname)
    started: float = field(default_factory=time)
    clock: Callable[[], float] = time
    states: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    trails: Trails = field(default_factory=Trails)
    memory: dict[object, tuple[object, Any]] = field(default_factory=dict)

    def remembered(self, what: object, state: object, work_out: Callable[[], T]) -> T:
        """What was worked out before for the same state, or what is worked out now."""
        known = self.memory.get(what)
        if known is None or known[0] != state:
            if len(self.memory) >= _MOST_REMEMBERED:
                self.memory.clear()
            known = self.memory[what] = state, work_out()
        found: T = known[1]
        return found
