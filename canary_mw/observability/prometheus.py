"""Metrics in the Prometheus text format, rendered from plain integer counters on each scrape."""

import os
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from canary_mw.observability.counters import RefusalCounters, RequestCounters
from canary_mw.observability.events import Reloaded
from canary_mw.observability.fallbacks import FallbackCounters
from canary_mw.observability.source_metrics import source_metrics
from canary_mw.observability.source_status import SourceStatus


class MeteredMiddleware(Protocol):
    """The counters of a middleware."""

    refusals: RefusalCounters
    shadows: Any
    nets: Any

    def source_status(self) -> list[SourceStatus]:
        """How it goes with what is watched over a network."""

    def ejections(self) -> dict[str, int]:
        """Numbers of ejections of endpoints, by service."""

    def upstream_errors(self) -> dict[tuple[str, str], int]:
        """Numbers of failed attempts at upstreams, by service and reason."""


class Metrics(RequestCounters):
    """Counts requests by Mapping, service, variant and status, and shows which rules are in force.

    Pass it to a middleware or a `RuleStore` as one of the `observers`, and call `follow` with the middleware. The
    numbers are those of this process: with several workers each scrape reaches one of them, named by the label `pid`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._middleware: MeteredMiddleware | None = None
        self._generation = 0
        self._clean = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def follow(self, middleware: MeteredMiddleware) -> None:
        """Include the counters of a middleware: refused requests, copies for shadows, ejected endpoints."""
        self._middleware = middleware

    def reloaded(self, record: Reloaded) -> None:
        """Store the generation and state of the rules."""
        super().reloaded(record)
        self._generation = record.generation
        self._clean = int(record.error is None)

    def collect(self) -> Iterable[Metric]:
        """The metric families; called by `prometheus_client`."""
        names = ("mapping", "service", "variant", "status", "pid")
        pid = str(os.getpid())
        requests = CounterMetricFamily("canary_mw_requests", "Finished requests.", labels=names)
        seconds = CounterMetricFamily("canary_mw_request_seconds", "Time that they took.", labels=names)
        for labels, totals in self.counts().items():
            requests.add_metric((*labels, pid), totals.requests)
            seconds.add_metric((*labels, pid), totals.seconds)
        decided = ("release", "variant", "reason", "pid")
        assigned = CounterMetricFamily("canary_mw_assignments", "Requests decided by releases.", labels=decided)
        for assignment, count in self.assignments().items():
            assigned.add_metric((*assignment, pid), count)
        generation = GaugeMetricFamily("canary_mw_rules_generation", "Number of the rules in force.", labels=("pid",))
        generation.add_metric((pid,), self._generation)
        clean = GaugeMetricFamily(
            "canary_mw_rules_clean", "1 when the newest rules are wholly in force.", labels=("pid",)
        )
        clean.add_metric((pid,), self._clean)
        of_middleware, of_sources = self._middleware_metrics(pid), self._source_metrics(pid)
        return requests, seconds, assigned, generation, clean, *of_middleware, *of_sources

    def _middleware_metrics(self, pid: str) -> Iterable[Metric]:
        middleware = self._middleware
        refusals = middleware.refusals if middleware else RefusalCounters()
        help_text = "Requests that were malformed, too large, too slow or not allowed."
        stalled = CounterMetricFamily(
            "canary_mw_stalled_clients", "Connections ended because their client stopped reading.", labels=("pid",)
        )
        stalled.add_metric((pid,), refusals.stalled)
        copies = middleware.shadows.counts if middleware else {}
        ejections = middleware.ejections() if middleware else {}
        errors = CounterMetricFamily(
            "canary_mw_upstream_errors", "Attempts that failed.", labels=("service", "reason", "pid")
        )
        for labels, count in (middleware.upstream_errors() if middleware else {}).items():
            errors.add_metric((*labels, pid), count)
        return (
            *_fallback_metrics(middleware.nets.counters if middleware else FallbackCounters(), pid),
            _counter("canary_mw_shadow", "Copies for shadows.", "result", copies, pid),
            _counter("canary_mw_refused_requests", help_text, "status", refusals.refused, pid),
            stalled,
            errors,
            _counter("canary_mw_ejections", "Endpoints left alone by outlier_detection.", "service", ejections, pid),
        )

    def _source_metrics(self, pid: str) -> Iterable[Metric]:
        statuses = self._middleware.source_status() if self._middleware else []
        return source_metrics(statuses, pid) if statuses else ()

    def render(self) -> bytes:
        """The metrics in the Prometheus text format."""
        return generate_latest(self._registry)


def _fallback_metrics(counters: FallbackCounters, pid: str) -> Iterable[Metric]:
    names = ("release", "variant", "kind")
    failures = CounterMetricFamily(
        "canary_mw_gray_failures", "Requests whose gray variant failed, whoever answered.", labels=(*names, "pid")
    )
    for failure, count in counters.failures().items():
        failures.add_metric((*failure, pid), count)
    fallbacks = CounterMetricFamily(
        "canary_mw_fallbacks", "What the safety net did about failures of gray.", labels=(*names, "result", "pid")
    )
    for (failure, result), count in counters.fallbacks().items():
        fallbacks.add_metric((*failure, result, pid), count)
    return failures, fallbacks


def _counter(name: str, text: str, label: str, counts: Dict[Any, int], pid: str) -> Metric:
    """A counter with one label and `pid`."""
    family = CounterMetricFamily(name, text, labels=(label, "pid"))
    # Copied, since requests may be counted during the loop.
    for value, count in dict(counts).items():
        family.add_metric((str(value), pid), count)
    return family
