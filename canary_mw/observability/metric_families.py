"""Figures as metrics: names, labels and values, as prometheus_client has them."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from canary_mw.observability.attempts.release_metrics import release_families
from canary_mw.observability.figures.buckets import BOUNDS, nearest_bound
from canary_mw.observability.figures.values import CLASSES, Figures, RowKey

# The nearest bounds of ours stand for these, in seconds.
_WANTED = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BUCKETS = tuple(dict.fromkeys(map(nearest_bound, _WANTED)))
_ROW_LABELS = ("release", "mapping", "service", "variant")

# Counters by the name of their event: labels and help.
EVENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "assignments": (("release", "variant", "reason"), "Requests by why their release put them on a variant."),
    "predicates": (("predicate", "result"), "Answers of the predicates of releases."),
    "lanes": (
        ("result",),
        "Lanes in requests: obeyed, of an unknown variant, or removed as their peer is not trusted.",
    ),
    "gray_failures": (("release", "variant", "kind"), "Requests whose gray variant failed, whoever answered."),
    "fallbacks": (
        ("release", "variant", "kind", "result"),
        "What the safety net did about failures of gray.",
    ),
    "shadow": (("result",), "Copies for shadows."),
    "refused_requests": (("status",), "Requests that were malformed, too large, too slow or not allowed."),
    "access_log_dropped_lines": ((), "Lines of the access log that were dropped: their reader was too slow."),
    "events": (("release", "variant", "name"), "Events that the app has recorded."),
    "event_values": (("release", "variant", "name"), "The sum of their values."),
    "ignored_events": (("why",), "Events of the app that belong to no drawn request, or cannot be."),
    "stalled_clients": ((), "Connections ended because their client stopped reading."),
    "upstream_errors": (("service", "reason"), "Attempts that failed."),
    "auth": (("service", "result"), "Requests that an AuthService was asked about, by what followed."),
    "auth_seconds": (("service",), "Time that its answers took, in seconds."),
    "rate_limit": (("result",), "Requests that a RateLimitService was asked about, by its answer."),
    "rate_limit_seconds": ((), "Time that its answers took, in seconds."),
    "log_entries": (("service", "result"), "Entries for LogServices: sent, and dropped."),
    "spans": (("result",), "Spans for a TracingService: sent, dropped, and those of refused batches (failed)."),
    "tcp_connections": (("mapping", "state"), "Connections of TCPMappings: accepted, and how they ended."),
    "tcp_bytes": (("mapping", "direction"), "Bytes of ended connections of TCPMappings, as seen from the client."),
    "ejections": (("service",), "Endpoints left alone by outlier_detection."),
    "release_transitions": (("release", "to"), "Changes of the state of releases, by the phase after them."),
    "reloads": (("result",), "Readings of rules, by whether they are wholly in force."),
}


def request_families(figures: Figures) -> Iterator[Metric]:
    """Requests and their durations."""
    requests = CounterMetricFamily("canary_mw_requests", "Finished requests.", labels=(*_ROW_LABELS, "status_class"))
    durations = HistogramMetricFamily(
        "canary_mw_request_duration_seconds", "From the request head to the end of the answer.", labels=_ROW_LABELS
    )
    retries = CounterMetricFamily("canary_mw_retries", "Attempts beyond the first.", labels=("service",))
    for service in dict.fromkeys(key.service for key in figures.rows):
        count = sum(row.retries for key, row in figures.rows.items() if key.service == service)
        if count:
            retries.add_metric((service,), count)
    for labels, classes, buckets, seconds in _by_labels(figures):
        for name, count in zip(CLASSES, classes, strict=True):
            if count:
                requests.add_metric((*labels, name), count)
        durations.add_metric(labels, _cumulative(buckets), seconds)
    yield requests
    yield durations
    yield retries


def _by_labels(figures: Figures) -> Iterator[tuple[tuple[str, ...], list[int], list[int], float]]:
    """Rows by the labels that metrics have: drawn or not makes no difference."""
    rows = figures.rows
    for labels in dict.fromkeys(key[:4] for key in rows):
        same = [rows[key] for key in (RowKey(*labels), RowKey(*labels, drawn=True)) if key in rows]
        classes = [sum(counts) for counts in zip(*(row.classes for row in same), strict=True)]
        buckets = [sum(counts) for counts in zip(*(row.buckets for row in same), strict=True)]
        yield labels, classes, buckets, sum(row.seconds for row in same)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    found = [(f"{BOUNDS[index]:.6g}", float(sum(buckets[: index + 1]))) for index in _BUCKETS]
    return [*found, ("+Inf", float(sum(buckets)))]


# What is counted in parts of one.
_SCALES = {"event_values": 1000, "auth_seconds": 1_000_000, "rate_limit_seconds": 1_000_000}
# Counters that are there before the first event.
_ZEROS = {"shadow": ("sent", "failed", "skipped_body", "skipped_busy"), "stalled_clients": ("",)}


def event_families(figures: Figures) -> Iterator[Metric]:
    """Everything else that is counted."""
    for name, (labels, text) in EVENTS.items():
        family = CounterMetricFamily(f"canary_mw_{name}", text, labels=labels)
        zeros = {(name, value)[: len(labels) + 1]: 0 for value in _ZEROS.get(name, ())}
        counted = {key: count for key, count in figures.counters.items() if key[0] == name}
        for key, count in {**zeros, **counted}.items():
            family.add_metric(key[1:], count / _SCALES.get(name, 1))
        yield family


def gauge_families(figures: Figures) -> Iterator[Metric]:
    """Gauges of the workers that run."""
    newest = max((worker.generation for worker in figures.workers), default=0)
    contents = [worker.content for worker in sorted(figures.workers, key=lambda worker: worker.since)]
    current = sum(worker.content == contents[-1] for worker in figures.workers)
    values = {
        "in_flight_requests": ("Requests that are being answered.", figures.gauges.get("in_flight", 0)),
        "workers": ("Workers that have counted and run.", len(figures.workers)),
        "workers_current": ("Those of them with the newest rules.", current),
        "rules_generation": ("Number of the rules in force.", newest),
        "rules_clean": (
            "1 when the newest rules are wholly in force, in all workers.",
            int(bool(figures.workers) and all(worker.clean for worker in figures.workers)),
        ),
        "config_age_seconds": (
            "Since the rules in force were read last.",
            figures.now - max((worker.since for worker in figures.workers), default=figures.now),
        ),
    }
    for name, (text, value) in values.items():
        yield GaugeMetricFamily(f"canary_mw_{name}", text, value=value)


UPSTREAM_GAUGES = {
    "upstream_connections": "Connections to upstreams, open or being opened.",
    "upstream_waiting_requests": "Requests that wait for a connection.",
    "circuit_breaker_requests": "Requests in flight that count towards `max_requests`.",
    "circuit_breaker_retries": "Retries in flight that count towards `max_retries`.",
}


def upstream_families(figures: Figures) -> Iterator[Metric]:
    """Gauges of the upstreams of the workers that run."""
    for name, text in UPSTREAM_GAUGES.items():
        family = GaugeMetricFamily(f"canary_mw_{name}", text, labels=("service",))
        for key, value in figures.upstream_gauges.items():
            if key[0] == name:
                family.add_metric(key[1:], value)
        yield family


def families(figures: Figures) -> Iterable[Metric]:
    """All metrics of figures."""
    yield from request_families(figures)
    yield from event_families(figures)
    yield from release_families(figures)
    yield from gauge_families(figures)
    yield from upstream_families(figures)
