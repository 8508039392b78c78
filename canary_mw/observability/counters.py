"""Requests counted by the decisions that they fit: two additions on the path of each, labels when somebody asks."""

from collections import defaultdict
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import ClassVar, NamedTuple
from weakref import WeakSet

from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.observability.events import Finished, Reloaded
from canary_mw.observability.observers import Observer
from canary_mw.routing.group import Decision


@dataclass(slots=True)
class RefusalCounters:
    """What was kept out; shared by the protocol of a server and its app.

    Attributes:
        refused: requests that were malformed, too large, too slow, not allowed or in a loop, by status.
        stalled: connections that were ended because their client had stopped reading.
    """

    # The name under which the app hands them to the protocol, in the state of its lifespan.
    KEY: ClassVar[str] = "canary_mw.door"

    refused: dict[int, int] = field(default_factory=dict)
    stalled: int = 0

    def refuse(self, status: int) -> None:
        """One request more."""
        self.refused[status] = self.refused.get(status, 0) + 1


DecisionLabels = tuple[str | None, str | None, str | None]


class Labels(NamedTuple):
    """What requests are told apart by; "" for what `Finished` has not, and status "0" for none."""

    mapping: str
    service: str
    variant: str
    status: str


class RequestTotals:
    """So many requests, and the seconds that they took all together."""

    __slots__ = ("requests", "seconds")

    def __init__(self, requests: int = 0, seconds: float = 0.0) -> None:
        self.requests = requests
        self.seconds = seconds


class RequestCounters(Observer):
    """Counts finished requests by Mapping, service, variant and status.

    The middlewares call `count` in place of `finished`, and make no record then; a subclass that overrides `finished`
    gets the records. Exact from any number of threads. A forked child begins at zero.
    """

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        """What each process has for itself; in a forked child a lock may be held for ever."""
        # Entered twice when the garbage collector, in the midst of it, ends a coroutine and thereby a request.
        self._counting = RLock()
        self._folding = Lock()
        self._recent: defaultdict[tuple[Decision | DecisionLabels | None, int | None], RequestTotals] = defaultdict(
            RequestTotals
        )
        self._totals: defaultdict[Labels, RequestTotals] = defaultdict(RequestTotals)

    def count(self, decision: Decision | DecisionLabels | None, status: int | None, seconds: float) -> None:
        """One request more, of a decision or of what `names_of` gives for it; see `Finished` for the others."""
        with self._counting:
            found = self._recent[decision, status]
            found.requests += 1
            found.seconds += seconds

    def finished(self, record: Finished) -> None:
        """One request more, for whoever has a record of it."""
        self.count((record.mapping, record.service, record.variant), record.status, record.seconds)

    def reloaded(self, record: Reloaded) -> None:
        """Let go of decisions that may be out of force."""
        with self._folding:
            self._fold()

    def counts(self) -> dict[Labels, RequestTotals]:
        """All since the process began."""
        ensure_forked_hooks()
        with self._folding:
            self._fold()
            return {labels: RequestTotals(found.requests, found.seconds) for labels, found in self._totals.items()}

    def _fold(self) -> None:
        """Move what was counted by decision to where it is kept by labels, and let go of the decisions.

        Those in force come back with their next request. One out of force can come back too, with a request that was
        decided before; it stays until this is done again.
        """
        with self._counting:
            recent, self._recent = self._recent, defaultdict(RequestTotals)
        for (decision, status), found in recent.items():
            mapping, service, variant = decision if isinstance(decision, tuple) else labels_of(decision)
            total = self._totals[Labels(mapping or "", service or "", variant or "", str(status or 0))]
            total.requests += found.requests
            total.seconds += found.seconds


def labels_of(decision: Decision | None) -> DecisionLabels:
    """Mapping, service and variant, as observers are told of them."""
    if decision is None:
        return None, None, None
    return decision.mapping.name, decision.mapping.service.text, decision.variant


_all: "WeakSet[RequestCounters]" = WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each._begin()


after_fork(_after_fork)
