"""What a middleware tells services of others about its requests: entries of a log, and spans."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from canary_mw.http.messages import RequestHead
from canary_mw.middleware.options import Options
from canary_mw.observability.events import Finished
from canary_mw.observability.figures.tallies import Tallies
from canary_mw.observability.observers import Observer
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable

if TYPE_CHECKING:
    from canary_mw.observability.logs.connections import Connection
    from canary_mw.observability.logs.service import RequestLog
    from canary_mw.observability.spans.service import RequestTraces

# Puts what has changed of a head into what the wrapped app gets.
Change = Callable[[Any, RequestHead, RequestHead], object]


class ExportedRequests:
    """The part of a middleware that tells LogServices and a TracingService.

    Attributes:
        request_log: what tells LogServices, None where no document names one.
        request_traces: what traces requests for a TracingService, likewise.
        finished_observers: see `ObservedRequests`.
    """

    wraps: bool
    store: Any
    options: Options
    tally: Tallies
    tracer: Any
    finished_observers: list[Observer]
    request_log: "RequestLog | None" = None
    request_traces: "RequestTraces | None" = None

    def _settle(self) -> None:
        """See `ObservedRequests`."""

    def _start_exports(self) -> None:
        """Tell the services of the table in force, and of each later one."""
        self._follow_exports(self.store.table)
        self.store.tell(self._follow_exports)

    def _follow_exports(self, table: RouteTable) -> None:
        self._log_requests(table)
        self._trace_requests(table)

    def _close_exports(self) -> None:
        """Send what is left."""
        for each in (self.request_log, self.request_traces):
            if each is not None:
                each.queues.close()

    def _export(self, record: Finished, head: RequestHead | None, decision: Decision | None) -> None:
        """Tell of a request that has ended."""
        if self.request_log is not None:
            self.request_log.add(record, head, decision)
        if self.request_traces is not None:
            self.request_traces.add(record, head, decision)

    def tell_connection(self, connection: "Connection") -> None:
        """Tell of a connection of a TCPMapping that has ended."""
        if self.request_log is not None:
            self.request_log.add_connection(connection)

    def _log_requests(self, table: RouteTable) -> None:
        """Tell the LogServices of a table of requests from now on."""
        policies, log = table.settings.logs, self.request_log
        if not policies and log is None:
            return
        if log is None:
            # Loads what nobody else needs.
            from canary_mw.middleware.filters.logs import request_log

            log = request_log(self.options, self.tally, wraps=self.wraps)
        log.queues.follow(policies)
        if not policies:
            log.queues.end()
        self._observe_also(log, wanted=bool(policies))
        self.request_log = log if policies else None

    def _trace_requests(self, table: RouteTable) -> None:
        """Trace requests for the TracingService of a table from now on."""
        policy, traces = table.settings.tracing, self.request_traces
        if policy is None and traces is None:
            return
        if traces is None:
            # Loads what nobody else needs.
            from canary_mw.middleware.filters.traces import request_traces

            traces = request_traces(self.options, self.tally, wraps=self.wraps, traced=self.tracer is not None)
        traces.follow(policy)
        if policy is None:
            traces.queues.end()
        self._observe_also(traces, wanted=policy is not None)
        self.request_traces = traces if policy is not None else None

    def _observe_also(self, observer: Observer, *, wanted: bool) -> None:
        """Make records, as observers of the end of requests need them."""
        others = [each for each in self.finished_observers if each is not observer]
        self.finished_observers = [*others, observer] if wanted else others
        self._settle()

    def _begin(self, table: RouteTable, head: RequestHead, change: Change, given: Any) -> RequestHead:
        """Admit a request, and begin its trace, where one is made.

        Args:
            change: puts the context of the trace into what the wrapped app gets.
            given: the scope, or the environ.

        Raises:
            ClientError: see `RouteTable.admit`.
        """
        head = table.admit(head)
        policy, traces = table.settings.tracing, self.request_traces
        if policy is None or traces is None:
            return head
        traced = traces.begin(policy, head, self.store.generation)
        change(given, head, traced)
        return traced
