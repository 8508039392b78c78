"""Counters for Prometheus: plain integers on the path of a request, put into its format when somebody asks."""

import os
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from .observers import DoorCounts, Finished, Observer, Reloaded

Labels = tuple[str, str, str, str]


class Metrics(Observer):
    """Counts requests by Mapping, service, variant and status, and follows the rules in force.

    The numbers are this process's; with several workers each scrape meets one of them, told by the label `pid`.

    Attributes:
        shadows: copies for shadows by what became of them; see `Shadows.counts`.
        door: what was refused, by the server's protocol too.
        ejections: gives how often endpoints were ejected, by service.
    """

    def __init__(self) -> None:
        self.shadows: dict[str, int] = {}
        self.door = DoorCounts()
        self.ejections: Callable[[], dict[str, int]] = dict
        self._requests: dict[Labels, int] = {}
        self._seconds: dict[Labels, float] = {}
        self._generation = 0
        self._clean = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def finished(self, record: Finished) -> None:
        """Count a request; status "0" stands for a client that left before there was an answer."""
        labels = (record.mapping or "", record.service or "", record.variant or "", str(record.status or 0))
        self._requests[labels] = self._requests.get(labels, 0) + 1
        self._seconds[labels] = self._seconds.get(labels, 0.0) + record.seconds

    def reloaded(self, record: Reloaded) -> None:
        """Note the rules in force."""
        self._generation = record.generation
        self._clean = int(record.error is None)

    def collect(self) -> Iterable[Metric]:
        """What `prometheus_client` asks a collector for."""
        names = ("mapping", "service", "variant", "status", "pid")
        pid = str(os.getpid())
        requests = CounterMetricFamily("canary_mw_requests", "Finished requests.", labels=names)
        seconds = CounterMetricFamily("canary_mw_request_seconds", "Time that they took.", labels=names)
        # Copied: another thread may scrape while the loop counts.
        for labels, count in list(self._requests.items()):
            requests.add_metric((*labels, pid), count)
            seconds.add_metric((*labels, pid), self._seconds[labels])
        generation = GaugeMetricFamily("canary_mw_rules_generation", "Number of the rules in force.", labels=("pid",))
        generation.add_metric((pid,), self._generation)
        clean = GaugeMetricFamily(
            "canary_mw_rules_clean", "1 when the newest rules are wholly in force.", labels=("pid",)
        )
        clean.add_metric((pid,), self._clean)
        shadow = CounterMetricFamily("canary_mw_shadow", "Copies for shadows.", labels=("result", "pid"))
        for result, count in self.shadows.items():
            shadow.add_metric((result, pid), count)
        return (requests, seconds, generation, clean, shadow, *self._door(pid), self._ejections(pid))

    def _door(self, pid: str) -> Iterable[Metric]:
        refused = CounterMetricFamily(
            "canary_mw_refused_requests",
            "Requests that were malformed, too large, too slow or not allowed.",
            labels=("status", "pid"),
        )
        for status, count in list(self.door.refused.items()):
            refused.add_metric((str(status), pid), count)
        stalled = CounterMetricFamily(
            "canary_mw_stalled_clients", "Connections ended because their client stopped reading.", labels=("pid",)
        )
        stalled.add_metric((pid,), self.door.stalled)
        return refused, stalled

    def _ejections(self, pid: str) -> Metric:
        ejections = CounterMetricFamily(
            "canary_mw_ejections", "Endpoints left alone by outlier_detection.", labels=("service", "pid")
        )
        for service, count in self.ejections().items():
            ejections.add_metric((service, pid), count)
        return ejections

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
