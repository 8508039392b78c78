"""What tells LogServices of requests: queues, and a thread that encodes and sends, so that no request waits for it."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from time import monotonic, time
from weakref import WeakSet

from canary_mw.forking import JOIN_TIMEOUT, SystemThread, after_fork, ensure_forked_hooks, start_thread
from canary_mw.host import HostLogger
from canary_mw.http.messages import RequestHead
from canary_mw.locks import new_lock
from canary_mw.observability.events import Finished
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.logs.destination import Connect, Destination
from canary_mw.observability.logs.entries import Logged
from canary_mw.observability.observers import Observer
from canary_mw.routing.decided import Decision
from canary_mw.rules.filters.logs import LogPolicy

logger = HostLogger(logging.getLogger("canary_mw.log_service"))

# Seconds at the end of the process, less than it waits for its threads.
_LAST = JOIN_TIMEOUT * 0.8


class LogQueues:
    """The LogServices of a middleware; the thread is started with the first entry.

    Args:
        node_id: who sends the entries.
        connect: opens a stream.
        tally: counts entries that are sent, and dropped.
    """

    def __init__(self, node_id: str, connect: Connect, tally: Tally) -> None:
        self._make = node_id, connect, tally
        self._policies: tuple[LogPolicy, ...] = ()
        self.reset_after_fork()
        _queues.add(self)

    def reset_after_fork(self) -> None:
        """Create the state of this process: what waits is the parent's, and so are its streams."""
        self._lock = new_lock()
        # Held while there is nothing to do; released to wake the thread.
        self._gate = new_lock()
        self._gate.acquire()
        self._thread: SystemThread | None = None
        self._ended = False
        self._leaving: list[Destination] = []
        self._destinations = [Destination(each, *self._make) for each in self._policies]

    def follow(self, policies: Sequence[LogPolicy]) -> None:
        """Tell these LogServices from now on; those that stay keep what waits, and the others are told of the rest."""
        ensure_forked_hooks()
        with self._lock:
            known = {each.policy: each for each in self._destinations}
            self._policies = tuple(policies)
            kept = [
                known.pop(each) if each in known else Destination(each, *self._make) for each in dict.fromkeys(policies)
            ]
            self._destinations = kept
            if self._thread is not None:
                self._leaving += known.values()
                self.wake()

    def add(self, logged: Logged) -> None:
        """Let an entry wait."""
        ensure_forked_hooks()
        wakes = [each.add(logged) for each in self._destinations]
        if any(wakes):
            with self._lock:
                if self._thread is None:
                    self._ended = False
                    self._thread = start_thread(self._run, "canary-mw-log-service", stop=self.end)
                self.wake()

    def waiting(self) -> list[Logged]:
        """The entries that wait, of all LogServices."""
        return [logged for each in self._destinations for logged in list(each.waiting)]

    def wake(self) -> None:
        """Let the thread look."""
        with suppress(RuntimeError):
            self._gate.release()

    def end(self) -> None:
        """Ask the thread to end."""
        self._ended = True
        self.wake()

    def close(self) -> None:
        """Send what is left, within the time that a thread has to end; a later entry starts a new thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self.end()
            thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        while not self._ended:
            pause = min((each.due_in(monotonic()) for each in self._destinations), default=inf)
            if pause > 0:
                self._gate.acquire(timeout=-1 if pause == inf else pause)
            if not self._ended:
                self._flush_due()
        self._close([*self._leaving, *self._destinations])

    def _flush_due(self) -> None:
        leaving, self._leaving = self._leaving, []
        self._close(leaving)
        for each in self._destinations:
            if each.due_in(monotonic()) <= 0 and not self._ended:
                each.flush()

    def _close(self, destinations: Sequence[Destination]) -> None:
        end = monotonic() + _LAST
        for each in destinations:
            each.close(max(0.0, end - monotonic()))


class RequestLog(Observer):
    """Tells the LogServices of a middleware of each request.

    Its `finished` does nothing: an entry needs more than the record.

    Args:
        wraps: requests without a Mapping, and those of a local one, are answered by the wrapped app.
    """

    def __init__(self, queues: LogQueues, *, wraps: bool) -> None:
        self.queues = queues
        self._wraps = wraps
        self._failed = False

    def add(self, record: Finished, head: RequestHead | None = None, decision: Decision | None = None) -> None:
        """Let the entry of a request wait."""
        local = self._wraps and (decision.local if decision is not None else head is not None)
        namespace = "default" if decision is None else decision.mapping.namespace
        try:
            self.queues.add(Logged(record, time(), head, namespace, local, decision is not None))
        except Exception:
            # No thread can be started.
            if not self._failed:
                self._failed = True
                logger.exception("LogServices are not told; later failures are not logged")


_queues: "WeakSet[LogQueues]" = WeakSet()


def _after_fork() -> None:
    for each in list(_queues):
        each.reset_after_fork()


after_fork(_after_fork)
