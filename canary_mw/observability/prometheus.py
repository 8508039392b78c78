"""Counters for Prometheus: plain integers on the path of a request, put into its format when somebody asks."""

import os
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from canary_mw.observability.counters import RefusalCounters, RequestCounters
from canary_mw.observability.events import Reloaded


class MeteredMiddleware(Protocol):
    """A middleware, as far as it counts itself."""

    refusals: RefusalCounters
    shadows: Any

    def ejections(self) -> dict[str, int]:
        """How often endpoints were ejected, by service."""


class Metrics(RequestCounters):
    """Counts requests by Mapping, service, variant and status, and follows the rules in force.

    The numbers are this process's; with several workers each scrape meets one of them, told by the label `pid`. A
    middleware takes it as one of its `observers`, and is to be followed; a `RuleStore` of your own takes it likewise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._middleware: MeteredMiddleware | None = None
        self._generation = 0
        self._clean = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def follow(self, middleware: MeteredMiddleware) -> None:
        """Show what a middleware counts itself, too: refused requests, copies for shadows, ejected endpoints."""
        self._middleware = middleware

    def reloaded(self, record: Reloaded) -> None:
        """Note the rules in force."""
        super().reloaded(record)
        self._generation = record.generation
        self._clean = int(record.error is None)

    def collect(self) -> Iterable[Metric]:
        """What `prometheus_client` asks a collector for."""
        names = ("mapping", "service", "variant", "status", "pid")
        pid = str(os.getpid())
        requests = CounterMetricFamily("canary_mw_requests", "Finished requests.", labels=names)
        seconds = CounterMetricFamily("canary_mw_request_seconds", "Time that they took.", labels=names)
        for labels, count in self.counts().items():
            requests.add_metric((*labels, pid), count.requests)
            seconds.add_metric((*labels, pid), count.seconds)
        generation = GaugeMetricFamily("canary_mw_rules_generation", "Number of the rules in force.", labels=("pid",))
        generation.add_metric((pid,), self._generation)
        clean = GaugeMetricFamily(
            "canary_mw_rules_clean", "1 when the newest rules are wholly in force.", labels=("pid",)
        )
        clean.add_metric((pid,), self._clean)
        return requests, seconds, generation, clean, *self._of_the_middleware(pid)

    def _of_the_middleware(self, pid: str) -> Iterable[Metric]:
        followed = self._middleware
        door = followed.refusals if followed else RefusalCounters()
        what = "Requests that were malformed, too large, too slow or not allowed."
        stalled = CounterMetricFamily(
            "canary_mw_stalled_clients", "Connections ended because their client stopped reading.", labels=("pid",)
        )
        stalled.add_metric((pid,), door.stalled)
        copies = followed.shadows.counts if followed else {}
        ejections = followed.ejections() if followed else {}
        return (
            _counter("canary_mw_shadow", "Copies for shadows.", "result", copies, pid),
            _counter("canary_mw_refused_requests", what, "status", door.refused, pid),
            stalled,
            _counter("canary_mw_ejections", "Endpoints left alone by outlier_detection.", "service", ejections, pid),
        )

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)


def _counter(name: str, text: str, label: str, counts: Dict[Any, int], pid: str) -> Metric:
    """A counter with one label beside the process."""
    family = CounterMetricFamily(name, text, labels=(label, "pid"))
    # Copied: requests may be counted meanwhile.
    for value, count in dict(counts).items():
        family.add_metric((str(value), pid), count)
    return family
