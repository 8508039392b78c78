"""Metrics of sources of rules that are watched over a network."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from canary_mw.observability.source_status import SourceStatus

_LABELS = ("source", "kind", "namespace")


def source_metrics(statuses: Sequence[SourceStatus]) -> Iterable[Metric]:
    """The metric families of the sources."""
    gauges: dict[str, tuple[str, list[float | None]]] = {
        "synced": ("1 when the newest objects are known.", [float(each.synced) for each in statuses]),
        "last_contact_seconds": ("Age of the last answer.", [each.last_contact for each in statuses]),
        "objects": ("Objects that hold rules.", [float(each.objects) for each in statuses]),
        "from_cache": ("1 when the rules are of the cache.", [float(each.cache_age is not None) for each in statuses]),
    }
    for name, (text, values) in gauges.items():
        family = GaugeMetricFamily(f"canary_mw_source_{name}", text, labels=_LABELS)
        for status, value in zip(statuses, values, strict=True):
            if value is not None:
                family.add_metric(_labels_of(status), value)
        yield family
    yield from _counters(statuses)


def _counters(statuses: Sequence[SourceStatus]) -> Iterator[Metric]:
    relists = CounterMetricFamily("canary_mw_source_relists", "Lists after the first one.", labels=(*_LABELS, "reason"))
    errors = CounterMetricFamily("canary_mw_source_errors", "Failed requests and watches.", labels=(*_LABELS, "code"))
    for status in statuses:
        for family, counts in ((relists, status.relists), (errors, status.errors)):
            for name, count in counts.items():
                family.add_metric((*_labels_of(status), name), count)
    yield relists
    yield errors


def _labels_of(status: SourceStatus) -> tuple[str, str, str]:
    return status.source, status.kind, status.namespace
