"""Request and refusal counters. Per request they cost two additions by decision; labels are computed when read."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple
from weakref import WeakSet

from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.locks import new_lock, new_rlock
from canary_mw.observability.events import Finished, Reloaded
from canary_mw.observability.observers import Observer
from canary_mw.routing.decided import Decision, ReleaseDecision
from canary_mw.routing.governed import APP
from canary_mw.rules.release import STABLE


@dataclass(slots=True)
class RefusalCounters:
    """Refused requests and stalled clients; shared by a server's protocol and its app.

    Attributes:
        refused: requests that were malformed, too large, too slow, not allowed or in a loop, by status.
        stalled: connections closed because the client stopped reading.
    """

    # The key in the lifespan state, through which the app passes the counters to the protocol.
    KEY: ClassVar[str] = "canary_mw.refusals"

    refused: dict[int, int] = field(default_factory=dict)
    stalled: int = 0

    def count(self, status: int) -> None:
        """Count one refused request."""
        self.refused[status] = self.refused.get(status, 0) + 1


DecisionLabels = tuple[str | None, str | None, str | None]


class Labels(NamedTuple):
    """Labels of a request; "" for a field that is None in `Finished`, and status "0" for None."""

    mapping: str
    service: str
    variant: str
    status: str


class Assignment(NamedTuple):
    """What a release decided: its name, the variant's name or "stable", and the reason."""

    release: str
    variant: str
    reason: str


class RequestTotals:
    """A number of requests, and their total duration in seconds."""

    __slots__ = ("requests", "seconds")

    def __init__(self, requests: int = 0, seconds: float = 0.0) -> None:
        self.requests = requests
        self.seconds = seconds


class RequestCounters(Observer):
    """Counts finished requests by Mapping, service, variant and status.

    The middlewares call `count` instead of `finished` and create no record. A subclass that overrides `finished` gets
    the records. Counts are exact under threads. A forked child starts at zero.
    """

    def __init__(self) -> None:
        self._reset()
        _instances.add(self)

    def _reset(self) -> None:
        """Create the state of this process; in a forked child the inherited locks may be held forever."""
        # Reentrant: garbage collection inside `count` may end a coroutine, and thereby another request.
        self._recent_lock = new_rlock()
        self._totals_lock = new_lock()
        self._recent: defaultdict[tuple[Decision | DecisionLabels | None, int | None], RequestTotals] = defaultdict(
            RequestTotals
        )
        self._totals: defaultdict[Labels, RequestTotals] = defaultdict(RequestTotals)
        self._assignments: defaultdict[Assignment, int] = defaultdict(int)

    def count(self, decision: Decision | DecisionLabels | None, status: int | None, seconds: float) -> None:
        """Count one request by its decision, or by what `labels_of` returns for it; the rest as in `Finished`."""
        with self._recent_lock:
            totals = self._recent[decision, status]
            totals.requests += 1
            totals.seconds += seconds

    def finished(self, record: Finished) -> None:
        """Count one request by its record."""
        self.count((record.mapping, record.service, record.variant), record.status, record.seconds)

    def reloaded(self, record: Reloaded) -> None:
        """Release decisions that may no longer be in force."""
        with self._totals_lock:
            self._merge_recent()

    def counts(self) -> dict[Labels, RequestTotals]:
        """All requests since the process started."""
        ensure_forked_hooks()
        with self._totals_lock:
            self._merge_recent()
            return {labels: RequestTotals(each.requests, each.seconds) for labels, each in self._totals.items()}

    def assignments(self) -> dict[Assignment, int]:
        """The requests that releases have decided since the process started."""
        ensure_forked_hooks()
        with self._totals_lock:
            self._merge_recent()
            return dict(self._assignments)

    def _merge_recent(self) -> None:
        """Add the counts by decision to the totals by labels, and release the decisions.

        A decision in force is stored again with its next request. One no longer in force can be stored again too, by a
        request that was decided earlier; it is released by the next call.
        """
        with self._recent_lock:
            recent, self._recent = self._recent, defaultdict(RequestTotals)
        for (decision, status), counted in recent.items():
            mapping, service, variant = decision if isinstance(decision, tuple) else labels_of(decision)
            totals = self._totals[Labels(mapping or "", service or "", variant or "", str(status or 0))]
            totals.requests += counted.requests
            totals.seconds += counted.seconds
            # What another canary-mw has sent here was counted there.
            if isinstance(decision, ReleaseDecision) and decision.release is not None and not decision.sent:
                name, variant, reason = decision.release[:3]
                self._assignments[Assignment(name, variant or STABLE, reason)] += counted.requests


def labels_of(decision: Decision | None) -> DecisionLabels:
    """Mapping, service and variant of a decision, as in `Decided` and `Finished`."""
    if decision is None:
        return None, None, None
    if decision.mapping is APP:
        return None, None, decision.variant
    return decision.mapping.name, decision.mapping.service.text, decision.variant


_instances: "WeakSet[RequestCounters]" = WeakSet()


def _after_fork() -> None:
    for each in list(_instances):
        each._reset()


after_fork(_after_fork)
