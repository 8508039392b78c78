"""What tells LogServices of requests."""

import logging
from functools import partial
from time import time

from canary_mw.host import HostLogger
from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Finished
from canary_mw.observability.exports.queues import Queues
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.logs.connections import Connection
from canary_mw.observability.logs.destination import Connect, LogDestination
from canary_mw.observability.logs.entries import Logged
from canary_mw.observability.observers import Observer
from canary_mw.routing.decided import Decision
from canary_mw.rules.filters.logs import LogPolicy

logger = HostLogger(logging.getLogger("canary_mw.log_service"))


def log_queues(node_id: str, connect: Connect, tally: Tally) -> Queues[LogPolicy, Logged | Connection]:
    """The LogServices of a middleware.

    Args:
        node_id: who sends the entries.
        connect: opens a stream.
        tally: counts entries that are sent, and dropped.
    """
    make = partial(LogDestination, node_id=node_id, connect=connect, tally=tally)
    return Queues(make, "canary-mw-log-service")


class RequestLog(Observer):
    """Tells the LogServices of a middleware of each request.

    Its `finished` does nothing: an entry needs more than the record.

    Args:
        wraps: requests without a Mapping, and those of a local one, are answered by the wrapped app.
    """

    def __init__(self, queues: Queues[LogPolicy, Logged | Connection], *, wraps: bool) -> None:
        self.queues = queues
        self._wraps = wraps
        self._failed = False

    def add(self, record: Finished, head: RequestHead | None = None, decision: Decision | None = None) -> None:
        """Let the entry of a request wait."""
        self._add(logged(record, head, decision, wraps=self._wraps))

    def add_connection(self, connection: Connection) -> None:
        """Let the entry of a connection of a TCPMapping wait."""
        self._add(connection)

    def _add(self, item: Logged | Connection) -> None:
        try:
            self.queues.add(item)
        except Exception:
            # No thread can be started.
            if not self._failed:
                self._failed = True
                logger.exception("LogServices are not told; later failures are not logged")


def logged(record: Finished, head: RequestHead | None, decision: Decision | None, *, wraps: bool) -> Logged:
    """A request that has ended just now; `wraps` is as in `RequestLog`."""
    local = wraps and (decision.local if decision is not None else head is not None)
    namespace = "default" if decision is None else decision.mapping.namespace
    return Logged(record, time(), head, namespace, local, decision is not None)
