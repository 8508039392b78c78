"""Who hears of the requests and releases of a middleware: observers, counters, a tracer."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.filters.exports import ExportedRequests
from canary_mw.middleware.records import decided_record, finished_record, relayed_record
from canary_mw.middleware.release import ReleaseShell
from canary_mw.middleware.rollouts import driven_by
from canary_mw.observability.attempts.driven import Driven
from canary_mw.observability.counters import RequestCounters
from canary_mw.observability.events import Finished
from canary_mw.observability.failures import failure_of
from canary_mw.observability.figures.tallies import Tallies
from canary_mw.observability.observers import Observer, notify
from canary_mw.observability.opentelemetry import tracer_of
from canary_mw.propagate.context import add_tallies, enter, leave
from canary_mw.propagate.hosts import told
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.rules.upstream import Origin
from canary_mw.run_folder.opened import run_folder
from canary_mw.upstreams.health import gauges_of


class ObservedRequests(ExportedRequests):
    """The part of a middleware that tells of its requests and releases.

    Attributes:
        rollouts: see `MiddlewareBase`.
        wraps: see `MiddlewareBase`.
        decided_observers, finished_observers: the observers that implement `decided`, and `finished`.
        tally: counts events in the figures, by their name and labels.
        tracer: None without tracing.
        observed: whether any observer is notified of requests, or counts them.
        told: the hosts that hear of lanes.
        sole_counters: what counts requests, where nobody else is told when they begin; else None.
    """

    told = told
    wraps: bool
    store: Any
    upstreams: Any
    release: ReleaseShell
    rollouts: Rollouts
    _evidence_counters: RequestCounters | None = None

    def driven(self) -> Driven:
        """The releases with steps, and whether somebody raises them."""
        return driven_by(self.rollouts)

    def _set_observers(self, observers: Sequence[Observer], *, tracing: bool) -> None:
        # No record is created when no observer uses it. Counters get `count` calls instead.
        unused = Observer.finished, RequestCounters.finished
        self.decided_observers = [e for e in observers if getattr(type(e), "decided", None) is not Observer.decided]
        self.finished_observers = [e for e in observers if getattr(type(e), "finished", None) not in unused]
        self._counting = [each for each in observers if isinstance(each, RequestCounters)]
        self.tally = Tallies([each.tally for each in self._counting], [each.record for each in self._counting])
        self._counters = [each for each in self._counting if each not in self.finished_observers]
        # An app records where figures are kept.
        self._records = bool(self._counting) and self.wraps
        if self._records:
            add_tallies(self.tally)
        self.tracer = tracer_of(observers, asked=tracing)
        self._settle()

    def _settle(self) -> None:
        """Work out who is told of each request."""
        records = self.decided_observers or self.finished_observers
        self.observed = bool(records or self._counters) or self.tracer is not None
        alone = len(self._counters) == 1 and not (self.decided_observers or self._records or self.tracer)
        self.sole_counters = self._counters[0] if alone else None

    def _count_for_releases(self, table: RouteTable) -> None:
        """Count requests where a release decides by them, and nobody counts them yet."""
        if not self._counting and any(each.plan is not None for each in table.documents.in_force):
            if self._evidence_counters is None:
                self._evidence_counters = RequestCounters(partial(run_folder, self.options.run_dir))
                self._count_also(self._evidence_counters)
            self._evidence_counters.start()
            self.store.add_counters(self._evidence_counters, None)
        for counters in filter(None, (*self._counting, self._evidence_counters)):
            counters.on_failure(self.rollouts.ask_to_look)

    def counters(self) -> RequestCounters | None:
        """What counts the requests of this process; None where nothing does."""
        return next(iter(self._counting), self._evidence_counters)

    def _start_lanes(self) -> None:
        """Let the requests of the app tell the hosts of the environment, and of releases, of their lanes.

        Raises:
            ConfigError: the environment names what is no host.
        """
        told.read_environ()
        self._tell_hosts(self.store.table)
        self.store.tell(self._tell_hosts)

    def _tell_hosts(self, table: RouteTable) -> None:
        """Let the requests of the app tell the hosts of the releases in force."""
        told.follow(self, [host for each in table.releases.values() for host in each.document.propagate.hosts])

    def _tell_finished(
        self, record: Finished, head: RequestHead | None = None, decision: Decision | None = None
    ) -> None:
        notify(self.finished_observers, record)
        self._export(record, head, decision)

    def _count_also(self, counters: RequestCounters) -> None:
        """Count requests from now on, where nobody has counted them."""
        self.tally.add(counters.tally, counters.record)
        self._counters = [*self._counters, counters]
        self._records = self.wraps
        if self._records:
            add_tallies(self.tally)
        self._settle()

    def notify_decided(self, decision: Decision | None, head: RequestHead) -> float:
        """Notify observers of a decision; returns the `perf_counter` time, for `notify_finished`."""
        for counters in self._counters:
            counters.begin()
        if self._records:
            enter(decision, self.tally, head, self.release, self.store.table)
        since = perf_counter()
        if self.tracer is not None:
            forwards = decision is not None and not (decision.local and self.wraps)
            self.tracer.annotate(decision, head, self.store.generation, forwards=forwards)
        if self.decided_observers:
            notify(self.decided_observers, decided_record(decision, head))
        return since

    def upstream_gauges(self) -> dict[tuple[str, ...], int]:
        """See `gauges_of`; any thread may call it."""
        return gauges_of(self.upstreams)

    def address_of(self, head: RequestHead) -> str | None:
        """The address of the client behind trusted proxies."""
        return self.release.address_of(self.store.table, head)

    def count_finished(
        self,
        decision: Decision | None,
        head: RequestHead,
        status: int | None,
        since: float,
        reason: str | None,
        net: SafetyNet | None = None,
        first_byte: float | None = None,
        body: int = 0,
    ) -> None:
        """Count a request in the figures; the arguments are those of `notify_finished`."""
        if not self._counters:
            return
        now = perf_counter()
        seconds, delay = now - since, None if first_byte is None else first_byte - since
        # Most requests end in one way.
        plain = net is None and reason is None and status is not None and status < 500
        failure = None if plain else failure_of(status, reason, net)
        for counters in self._counters:
            counters.count(decision, head, status, seconds, delay, body, failure, net, self)
            if now >= counters.sample.due or (failure and now >= counters.sample.failed_due):
                counters.sample.take(decision, head, status, seconds, delay, net, now, failed=bool(failure))

    def notify_finished(
        self,
        decision: Decision | None,
        head: RequestHead,
        status: int | None,
        since: float,
        reason: str | None,
        net: SafetyNet | None = None,
        first_byte: float | None = None,
        body: int = 0,
        *,
        counted: bool = False,
    ) -> None:
        """Notify observers of the end of a request; see `Finished`.

        Args:
            first_byte: the `perf_counter` time of the head of the response.
            body: bytes of the body of the response.
            counted: whether `count_finished` was called already. It may be called before the last byte is sent: where
                the process is killed then, no client has got a response that was not counted.
        """
        if self._records:
            leave()
        if not counted:
            self.count_finished(decision, head, status, since, reason, net, first_byte, body)
        if self.finished_observers:
            seconds, delay = perf_counter() - since, None if first_byte is None else first_byte - since
            record = finished_record(decision, head, status, seconds, reason, net, delay, body)
            self._tell_finished(record, head, decision)

    def notify_relayed(
        self,
        decision: Decision,
        head: RequestHead,
        status: int,
        since: float,
        size: int,
        origin: Origin,
        request_id: bytes | None,
    ) -> None:
        """As `notify_finished`, for a request without a body whose whole response has come at once, from one attempt.

        Args:
            size: bytes of the body of the response.
            origin: that was asked.
            request_id: that it got.
        """
        counters = self.sole_counters
        if counters is not None and status < 500:
            counters.count_at_once(decision, head, status, since, size, self)
        else:
            self.count_finished(decision, head, status, since, None, None, perf_counter(), size)
        if self.finished_observers:
            seconds = perf_counter() - since
            self._tell_finished(relayed_record(decision, head, status, seconds, size, origin, request_id))

    def notify_answered(
        self, decision: Decision | None, head: RequestHead, status: int | None, since: float, reason: str | None
    ) -> None:
        """Notify observers of a request that a service of a filter has answered: no release counts it.

        Args:
            since: see `notify_finished`.
        """
        for counters in self._counters:
            counters.begin()
        self.count_finished(None, head, status, since, reason)
        if self.finished_observers:
            plain = None if decision is None else replace(decision, release=None, split=None)
            seconds = perf_counter() - since
            record = finished_record(plain, head, status, seconds, reason, None, None, 0)
            self._tell_finished(record, head, decision)

    def notify_refused(self, method: str, path: str, status: int, reason: str | None) -> None:
        """Notify observers of a request that was refused before a decision."""
        for counters in self._counters:
            counters.begin()
            counters.count(None, None, status, 0.0)
        self._tell_finished(Finished(method, path, status, 0.0, reason=reason))
