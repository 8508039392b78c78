"""Failures of upstreams, counted and logged. A request that meets none costs one look at `UpstreamErrors.failing`."""

import logging
from collections.abc import Callable
from time import monotonic
from weakref import WeakSet

from canary_mw.exceptions import ClientError, LoopDetected, UpstreamError
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.forwarding.outages import (
    Failure,
    Outage,
    Report,
    after_failure,
    after_response,
    counted,
    failure_line,
    is_our_own,
    loop_line,
    reason_of,
    recovery_line,
    refused_upgrade_line,
)
from canary_mw.host import HostLogger
from canary_mw.locks import new_lock
from canary_mw.observability.figures.tallies import Tally, no_tally
from canary_mw.rules.mapping import Mapping

logger = HostLogger(logging.getLogger("canary_mw.relay"))

# Services, and refusals, that are remembered: those of the last failures. Rules that change bring new names.
MAX_TRACKED = 1000
# The label of services beyond that number.
OTHER = "(other)"


class UpstreamErrors:
    """The failures of the upstreams of one middleware, in one process; any thread may call it.

    Args:
        clock: monotonic seconds.

    Attributes:
        tally: is told of each failed attempt.
        failing: the services that have failed and have not answered since. Where it is not empty, whoever gets a
            response calls `succeeded`.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.tally: Tally = no_tally
        self.failing: set[str] = set()
        self._clock = clock
        self._counts: dict[tuple[str, str], int] = {}
        self._labels: set[str] = set()
        self._outages: dict[tuple[str, str], Outage] = {}
        self.reset_after_fork()
        _instances.add(self)

    def reset_after_fork(self) -> None:
        """Count from zero in a forked child; a thread of the parent may have held the lock."""
        self._lock = new_lock()
        self._counts, self._labels, self._outages, self.failing = {}, set(), {}, set()

    def failed(
        self, service: str, mapping: str, error: UpstreamError, *, retried: bool = False, in_response: bool = False
    ) -> None:
        """Count a failed attempt, and log it where a line is due; see `Failure` for the arguments."""
        if is_our_own(error):
            return
        failure = Failure(service, mapping, error, error.address, retried, in_response)
        kind = "retried" if retried else "failed"
        with self._lock:
            if error.attempted:
                self._count(service, reason_of(error))
            due = self._note(kind, service)
            if not retried:
                self.failing.add(service)
        # Without the lock: handlers may write to anywhere.
        if due:
            logger.warning("%s", failure_line(failure, due))

    def succeeded(self, service: str) -> None:
        """A service has sent the head of a response."""
        if service not in self.failing:
            return
        with self._lock:
            outage = self._outages.get(("failed", service))
            if outage is None or not outage.failing:
                return
            now = self._clock()
            outage = self._outages["failed", service] = after_response(outage, now)
            if outage.failing:
                return
            self.failing.discard(service)
        logger.info("%s", recovery_line(service, outage, now))

    def refused(self, mapping: Mapping, error: ClientError) -> None:
        """Log that a request to the service of a Mapping is a loop; other errors are the client's."""
        if isinstance(error, LoopDetected):
            self._log_refusal("loop", mapping, loop_line(mapping, error))

    def refused_upgrade(self, mapping: Mapping, text: Callable[[Mapping], str] = refused_upgrade_line) -> None:
        """Log that a WebSocket is refused, by the text of a function."""
        self._log_refusal("upgrade", mapping, text(mapping))

    def _log_refusal(self, kind: str, mapping: Mapping, text: str) -> None:
        with self._lock:
            due = self._note(kind, f"{mapping.name} {mapping.service.text}")
        if due:
            logger.warning("%s%s", text, f" ({counted(due, 'request')})" if due.seconds else "")

    def counts(self) -> dict[tuple[str, str], int]:
        """Failed attempts since the process started, by service and reason."""
        ensure_forked_hooks()
        with self._lock:
            return dict(self._counts)

    def _count(self, service: str, reason: str) -> None:
        if service not in self._labels:
            if len(self._labels) >= MAX_TRACKED:
                service = OTHER
            else:
                self._labels.add(service)
        key = service, reason
        self._counts[key] = self._counts.get(key, 0) + 1
        self.tally("upstream_errors", *key)

    def _note(self, kind: str, name: str) -> Report | None:
        """Remember a failure, in the place of the oldest one where there are too many."""
        key = kind, name
        outage, due = after_failure(self._outages.pop(key, None), self._clock())
        self._outages[key] = outage
        if len(self._outages) > MAX_TRACKED:
            oldest = next(iter(self._outages))
            del self._outages[oldest]
            self.failing.discard(oldest[1])
        return due


_instances: "WeakSet[UpstreamErrors]" = WeakSet()


def _after_fork() -> None:
    for each in list(_instances):
        each.reset_after_fork()


after_fork(_after_fork)
