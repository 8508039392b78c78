"""The collector of a TracingService as its thread sees it: spans that wait, and how they are sent."""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from canary_mw.exceptions import UpstreamError
from canary_mw.host import HostLogger
from canary_mw.observability.exports.destination import Destination
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.spans.span import Span
from canary_mw.rules.filters.traces import TracePolicy

logger = HostLogger(logging.getLogger("canary_mw.tracing_service"))

# Spans that wait; more are dropped. How many go together, and the seconds that one waits for others.
MAX_SPANS = 2048
BATCH = 512
INTERVAL = 5.0


class Sender(Protocol):
    """Sends batches to a collector."""

    def send(self, spans: Sequence[Span], limit: float) -> object:
        """Send a batch within some seconds.

        Raises:
            UpstreamError: the collector has not taken it; `sent` says whether it may have.
        """

    def close(self) -> object:
        """Close its connections."""


class SpanDestination(Destination[Span]):
    """See `Destination`."""

    def __init__(self, policy: TracePolicy, sender: Sender, tally: Tally) -> None:
        self._sender = sender
        super().__init__(
            f"TracingService {policy.name}",
            logger,
            most=MAX_SPANS,
            enough=BATCH - 1,
            interval=INTERVAL,
            count=lambda result, count: tally("spans", result, count=count),
        )

    def send_all(self, limit: float) -> None:
        """See `Destination.send_all`. A batch that has not left stays, one that the collector refuses is lost."""
        end = monotonic() + limit
        while self.waiting:
            # By their places: other threads append meanwhile.
            batch = [self.waiting[at] for at in range(min(len(self.waiting), BATCH))]
            try:
                self._sender.send(batch, max(0.0, end - monotonic()))
            except BaseException as exc:
                if not isinstance(exc, UpstreamError) or exc.sent:
                    self._take(len(batch))
                    self.count("failed", len(batch))
                raise
            self._take(len(batch))
            self.succeeded(len(batch))

    def disconnect(self, limit: float) -> None:
        """See `Destination.disconnect`."""
        self._sender.close()

    def _take(self, count: int) -> None:
        for _ in range(count):
            self.waiting.popleft()
