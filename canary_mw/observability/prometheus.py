"""Metrics in the Prometheus text formats, rendered on each scrape from the figures of all workers."""

from collections.abc import Callable, Iterable
from collections.abc import Mapping as Dict
from time import time
from typing import Any, Protocol
from weakref import ref

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from canary_mw.observability.attempts.driven import NOTHING, Driven
from canary_mw.observability.attempts.rollout_metrics import rollout_families
from canary_mw.observability.counters import RequestCounters
from canary_mw.observability.events import Reloaded
from canary_mw.observability.figures.layout import Header
from canary_mw.observability.figures.reader import read
from canary_mw.observability.figures.recent import reload_text
from canary_mw.observability.figures.values import Figures
from canary_mw.observability.figures.writer import OpenFolder, no_folder
from canary_mw.observability.metric_families import families
from canary_mw.observability.source_metrics import rule_metrics, source_metrics
from canary_mw.observability.source_status import SourceStatus


class MeteredMiddleware(Protocol):
    """What a middleware tells besides what it counts."""

    store: Any

    def source_status(self) -> list[SourceStatus]:
        """How it goes with what is watched over a network."""

    def upstream_gauges(self) -> Dict[tuple[str, ...], int]:
        """Gauges by name and service."""

    def driven(self) -> Driven:
        """The releases with steps."""

    def ejections(self) -> dict[str, int]:
        """Numbers of ejections of endpoints, by service."""


def _nobody() -> None:
    return None


class Metrics(RequestCounters):
    """Counts requests by release, Mapping, service and variant, and shows which rules are in force.

    Pass it to a middleware or a `RuleStore` as one of the `observers`, and call `follow` with the middleware. With a
    run folder the numbers are those of all workers, whichever of them is asked, and of workers that have ended.
    Without one they are those of this process.
    """

    def __init__(self, open_folder: OpenFolder = no_folder) -> None:
        super().__init__(open_folder)
        self._middleware: Callable[[], MeteredMiddleware | None] = _nobody
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def follow(self, middleware: MeteredMiddleware) -> None:
        """Include what a middleware does not count by request: ejected endpoints, watches over a network."""
        # Not kept: threads know these metrics, and an app that nobody uses is collected.
        self._middleware = ref(middleware)

    def reloaded(self, record: Reloaded) -> None:
        """Note the generation and state of the rules."""
        super().reloaded(record)
        self.figures.set_state(
            {
                Header.GENERATION: record.generation,
                Header.SINCE: int(time() * 1e6),
                Header.CONTENT: int(record.content[:16] or "0", 16),
                Header.CLEAN: int(record.error is None),
            }
        )
        if self.figures.storage is not None:
            self.tally("reloads", "ok" if record.error is None else "error")
            self.figures.text("reloads", reload_text(record, time()))

    def tick(self) -> float:
        """Do what is due for the figures; returns the seconds until more is."""
        self._note_upstreams()
        return super().tick()

    def read(self, now: float | None = None) -> Figures:
        """The figures of all workers, or without a run folder those of this process."""
        now = time() if now is None else now
        self._note_upstreams()
        storage, folder = self.figures.storage, self.figures.open_folder()
        if folder is None or (storage is not None and not storage.name):
            return super().read(now)
        return read(folder.descriptor, now)

    def _note_upstreams(self) -> None:
        middleware = self._middleware()
        if middleware is not None and self.figures.storage is not None:
            for service, count in middleware.ejections().items():
                self.figures.set_counter(count, "ejections", service)
            self.figures.set_gauges(middleware.upstream_gauges())

    def collect(self) -> Iterable[Metric]:
        """The metric families; called by `prometheus_client`."""
        figures, middleware = self.read(), self._middleware()
        yield from families(figures)
        yield from rollout_families(middleware.driven() if middleware is not None else NOTHING, figures.evidence)
        if middleware is not None:
            store = middleware.store
            yield rule_metrics(store.table, store.rules, store.diagnostics)
        statuses = middleware.source_status() if middleware is not None else []
        if statuses:
            yield from source_metrics(statuses)

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics and their media type, in the format that an `Accept` header asks for."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def render(self) -> bytes:
        """The metrics in the Prometheus text format."""
        return self.expose()[0]
