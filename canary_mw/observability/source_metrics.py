"""Metrics of sources of rules that are watched over a network."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from canary_mw.observability.source_status import DELAY_BOUNDS, SourceStatus

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
    yield _delays(statuses)


def _counters(statuses: Sequence[SourceStatus]) -> Iterator[Metric]:
    relists = CounterMetricFamily("canary_mw_source_relists", "Lists after the first one.", labels=(*_LABELS, "reason"))
    errors = CounterMetricFamily("canary_mw_source_errors", "Failed requests and watches.", labels=(*_LABELS, "code"))
    for status in statuses:
        for family, counts in ((relists, status.relists), (errors, status.errors)):
            for name, count in counts.items():
                family.add_metric((*_labels_of(status), name), count)
    yield relists
    yield errors


def _delays(statuses: Sequence[SourceStatus]) -> Metric:
    text = "From an event of the API until its rules were in force."
    family = HistogramMetricFamily("canary_mw_source_event_to_table_seconds", text, labels=("source",))
    for status in {each.source: each for each in statuses if each.delays}.values():
        bounds = [*(f"{bound:g}" for bound in DELAY_BOUNDS), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(status.delays)), strict=True))
        family.add_metric((status.source,), buckets, status.delay_sum)
    return family


def _labels_of(status: SourceStatus) -> tuple[str, str, str]:
    return status.source, status.kind, status.namespace
