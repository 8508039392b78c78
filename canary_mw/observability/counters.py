"""Counters of requests, and of refusals. Labels are worked out once for each decision in force."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from math import ceil, log2
from time import perf_counter, time
from typing import Any, ClassVar

from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts.arms import ArmCounter, SentArmCounter
from canary_mw.observability.attempts.keys import ClientAddresses
from canary_mw.observability.attempts.private import PrivateEvidence
from canary_mw.observability.attempts.release_evidence import EvidenceRead, More, evidence_in, no_more, read_evidence
from canary_mw.observability.attempts.writer import EvidenceWriter
from canary_mw.observability.events import Finished, Reloaded
from canary_mw.observability.failures import REFUSED, failure_of
from canary_mw.observability.figures.buckets import BOUNDS
from canary_mw.observability.figures.layout import (
    BUCKET_0,
    BYTES_OUT,
    FIRST_BYTE_MICROS,
    MICROS,
    ROW_CELLS,
    Header,
)
from canary_mw.observability.figures.reader import read_private
from canary_mw.observability.figures.recent import RecentSample
from canary_mw.observability.figures.tallies import Tally, no_tally
from canary_mw.observability.figures.targets import Labels, Target, add_failure, add_traffic, labels_of, recorded_for
from canary_mw.observability.figures.ticks import Ticks
from canary_mw.observability.figures.values import Figures, RowKey
from canary_mw.observability.figures.writer import FiguresWriter, OpenFolder, no_folder
from canary_mw.observability.observers import Observer
from canary_mw.routing.assignment import Assigned
from canary_mw.routing.decided import Decision
from canary_mw.rules.epoch import Epoch
from canary_mw.rules.release import STABLE

# See `buckets.bucket_of`, which is written out below.
_SHORTEST = BOUNDS[0]
_OFFSET = BUCKET_0 + 111
_LAST = ROW_CELLS - 1
_IN_FLIGHT = Header.IN_FLIGHT.value


@dataclass(slots=True)
class RefusalCounters:
    """Refused requests and stalled clients; shared by a server's protocol and its app.

    Attributes:
        refused: requests that were malformed, too large, too slow, not allowed or in a loop, by status.
        stalled: connections closed because the client stopped reading.
        tally: is told of both.
    """

    # The key in the lifespan state, through which the app passes the counters to the protocol.
    KEY: ClassVar[str] = "canary_mw.refusals"

    refused: dict[int, int] = field(default_factory=dict)
    stalled: int = 0
    tally: Tally = field(default=no_tally, compare=False, repr=False)

    def count(self, status: int) -> None:
        """Count one refused request."""
        self.refused[status] = self.refused.get(status, 0) + 1
        self.tally("refused_requests", str(status))

    def count_stalled(self) -> None:
        """Count one client that stopped reading."""
        self.stalled += 1
        self.tally("stalled_clients")


class RequestCounters(Observer):
    """Counts finished requests in figures that the workers of a pod share.

    The middlewares call `begin` and `count` instead of `finished` and create no record. A subclass that overrides
    `finished` gets the records. Counts are exact under threads. A forked child starts at zero.

    Args:
        open_folder: returns the run folder as it is now, None for figures of this process alone.

    Attributes:
        figures: where everything is counted.
        sample: of recent requests.
        private: the evidence of this process, where it shares nothing.
    """

    def __init__(self, open_folder: OpenFolder = no_folder) -> None:
        self.figures = FiguresWriter(open_folder)
        self.sample = RecentSample(self.figures)
        self._ticks = Ticks(self.figures)
        self._evidence = EvidenceWriter(self.figures)
        self.private = PrivateEvidence(self.figures, self._evidence)
        self._epochs: Dict[str, Epoch] | None = None

    def share(self, open_folder: OpenFolder) -> None:
        """Count in a run folder, unless another one was given."""
        if self.figures.open_folder is no_folder:
            self.figures.open_folder = open_folder

    def on_failure(self, tell: Callable[[], object]) -> None:
        """Call a function when a key of gray fails, or is slow, for the first time; it does not wait."""
        self._evidence.tell = tell

    def start(self) -> None:
        """This process serves requests; it counts as a worker from now on."""
        with self.figures.lock:
            self.figures.open()
        self._settle_attempts()

    def _settle_attempts(self) -> None:
        """Begin the attempts of releases, once this process counts."""
        if self._epochs is not None and self.figures.storage is not None:
            epochs, self._epochs = self._epochs, None
            self._evidence.reloaded(epochs, time())

    def tick(self) -> float:
        """Do what is due for the figures; returns the seconds until more is."""
        if self.figures.storage is not None:
            self._evidence.tick()
        return self._ticks.tick()

    def begin(self) -> None:
        """Count a request that has begun."""
        figures = self.figures
        with figures.lock:
            header = (figures.storage or figures.open()).header
            header[_IN_FLIGHT] += 1

    def count(
        self,
        decision: Decision | None,
        head: RequestHead | None,
        status: int | None,
        seconds: float,
        first_byte: float | None = None,
        sent: int = 0,
        failure: str | None = None,
        net: SafetyNet | None = None,
        addresses: ClientAddresses | None = None,
    ) -> None:
        """Count one request that has ended.

        Args:
            head: of the request, None for one that was refused.
            status, seconds, first_byte: as in `Finished`.
            sent: bytes of the body of its answer.
            failure: see `failure_of`.
            addresses: knows the client.
        """
        key: Any = decision
        digest: int | None = None
        if decision is not None and decision.release is not None:
            # Each request of a release has a decision of its own.
            name, variant, reason, _, _, _, _, digest, epoch = decision.release
            key = id(decision.mapping), decision.sent, name, variant, reason, id(epoch)
        figures = self.figures
        with figures.lock:
            target = figures.targets.get(key) or self._new_target(key, labels_of(decision), decision)
            self._add(target, status, seconds, seconds if first_byte is None else first_byte, sent)
            if head is not None:
                forwarded: UpstreamRequest | None = getattr(head, "forwarded", None)
                # Most requests have no body and no retry.
                if forwarded is not None and (forwarded.body is not None or forwarded.attempts > 1):
                    add_traffic(target.row, forwarded)
            if failure:
                add_failure(target.row, failure, net)
            arm = target.arm
            if arm is not None and failure != REFUSED:
                arm.add(digest, seconds if first_byte is None else first_byte, head, addresses, failed=bool(failure))

    def _add(self, target: Target, status: int | None, seconds: float, first_byte: float, sent: int) -> None:
        """Add one request, with the lock held."""
        row, reason, header, _, _ = target
        status_class = 0 if status is None else status // 100 if status < 600 else 5
        bucket = BUCKET_0 if seconds <= _SHORTEST else ceil(log2(seconds) * 8) + _OFFSET
        if bucket >= ROW_CELLS:
            bucket = _LAST
        micros = int(seconds * 1e6)
        first_micros = int(first_byte * 1e6)
        row[status_class] += 1
        row[bucket] += 1
        row[MICROS] += micros
        row[FIRST_BYTE_MICROS] += first_micros
        row[BYTES_OUT] += sent
        if reason is not None:
            reason[0] += 1
        # A child may end what its parent has begun.
        if header[_IN_FLIGHT]:
            header[_IN_FLIGHT] -= 1

    def begin_now(self) -> float:
        """As `begin`; returns the `perf_counter` time."""
        figures = self.figures
        with figures.lock:
            header = (figures.storage or figures.open()).header
            header[_IN_FLIGHT] += 1
        return perf_counter()

    def count_at_once(
        self,
        decision: Decision,
        head: RequestHead,
        status: int,
        since: float,
        sent: int,
        addresses: ClientAddresses | None = None,
    ) -> None:
        """As `count`, with the sample, for a request without a body whose whole answer, below 500, has come at once.

        Most requests of a proxy are such: the same in one call. `since` is that of `begin_now`.
        """
        seconds = (now := perf_counter()) - since
        figures, digest = self.figures, None
        key: Any = decision
        if decision.release is not None:
            name, variant, cause, _, _, _, _, digest, epoch = decision.release
            key = id(decision.mapping), decision.sent, name, variant, cause, id(epoch)
        with figures.lock:
            target = figures.targets.get(key) or self._new_target(key, labels_of(decision), decision)
            self._add(target, status, seconds, seconds, sent)
            arm = target.arm
            if arm is not None:
                arm.add(digest, seconds, head, addresses, failed=False)
        sample = self.sample
        if now >= sample.due:
            sample.take(decision, head, status, seconds, seconds, None, now, failed=False)

    def _new_target(self, key: Any, labels: Labels, decision: Decision | None = None) -> Target:
        figures = self.figures
        header = figures.open().header
        reason = None
        if labels.assigned is not None:
            row = labels.row
            reason = figures.counter("assignments", row.release, row.variant, labels.reason)
        arm: ArmCounter | SentArmCounter | None = None
        if labels.row.drawn and labels.assigned is not None:
            arm = self._evidence.arm(labels.row.release, labels.row.variant, labels.assigned.epoch, time())
        elif (sent := recorded_for(decision)) is not None and labels.assigned is None:
            arm = self._evidence.sent_arm(sent.name, sent.variant or STABLE, sent.epoch, time())
        target = Target(figures.row(labels.row), reason, header, arm, decision)
        if not figures.allocating:
            figures.targets[key] = target
        return target

    def tally(self, *key: str, count: int = 1) -> None:
        """Count any other event, by its name and labels."""
        self.figures.add(*key, count=count)

    def record(self, assigned: Assigned, name: str, client: str | None, thousandths: int) -> None:
        """Count an event of a request that is under way, where the analysis of its release asks for events."""
        if assigned.epoch is not None and assigned.epoch.analysis is not None:
            with self.figures.lock:
                self.figures.open()
                self._evidence.event(assigned, name, client, thousandths, time())

    def evidence(self, more: More = no_more) -> EvidenceRead:
        """The evidence of all workers, and what other pods have seen."""
        folder = self.figures.open_folder()
        if folder is None or self.private.counts:
            attempts = self._evidence.attempts
            return evidence_in([*self.private.contents(), *more(attempts)], attempts)
        return read_evidence(folder.descriptor, more)

    def finished(self, record: Finished) -> None:
        """Count one request by its record."""
        labels = record.release or "", record.mapping or "", record.service or "", record.variant or ""
        key = RowKey(*labels, record.drawn)
        first_byte = record.seconds if record.first_byte is None else record.first_byte
        failure = failure_of(record.status, record.reason, None)
        with self.figures.lock:
            target = self.figures.targets.get(key) or self._new_target(key, Labels(key))
            self._add(target, record.status, record.seconds, first_byte, 0)
            if failure:
                add_failure(target.row, failure, None)

    def reloaded(self, record: Reloaded) -> None:
        """Release decisions that may no longer be in force."""
        self._epochs = record.epochs
        self._settle_attempts()
        with self.figures.lock:
            self.figures.targets.clear()

    def read(self, now: float) -> Figures:
        """The figures of this process."""
        with self.figures.lock:
            storage = self.figures.storage
            content = storage.content() if storage is not None else None
        return read_private(content, now, self._evidence.attempts, self.private.restored)
