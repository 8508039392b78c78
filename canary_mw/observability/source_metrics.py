"""Metrics of the rules of this process, and of sources of rules that are watched over a network."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from canary_mw.config.document import Diagnostic
from canary_mw.config.parser import RuleSet
from canary_mw.observability.source_status import DELAY_BOUNDS, SourceStatus
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.table import RouteTable

_RELEASE = re.compile(r"GrayRelease ([^\s:]+):")
_LABELS = ("source", "kind", "namespace")


def rule_metrics(table: RouteTable, rules: RuleSet | None, diagnostics: Sequence[Diagnostic]) -> Metric:
    """How many rules are live as written, kept at their last good version, or ignored for an error.

    A rule is a group of Mappings, as on the page. One that is never reached is live.
    """
    errors = [each for each in diagnostics if each.severity == "error"]
    last_good = {name for file in (rules.files.values() if rules else ()) for _, name in file.in_error}
    releases = {match[1] for each in errors if (match := _RELEASE.match(each.message)) is not None}
    kept = sum(_is_kept(group, last_good, releases) for group in table.groups)
    mappings = {each.name for each in table.mappings}
    ignored = {each.mapping for each in errors if each.mapping is not None} - mappings
    counts = {"live": len(table.groups) - kept, "last_good": kept, "ignored": len(ignored)}
    family = GaugeMetricFamily("canary_mw_rules", "Rules of this worker by their state.", labels=("state",))
    for state, count in counts.items():
        family.add_metric((state,), count)
    return family


def _is_kept(group: MappingGroup, last_good: Collection[str], releases: Collection[str]) -> bool:
    if group.governed is not None and group.governed.release.name in releases:
        return True
    return any(each.name in last_good for each in group.mappings)


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
    yield _ages(statuses)
    yield from _counters(statuses)
    yield _delays(statuses)


def _ages(statuses: Sequence[SourceStatus]) -> Metric:
    """What an alert about Consul asks for, whose endpoints are kept for as long as there is no answer."""
    text = "Age of the last answer about a service of Consul."
    family = GaugeMetricFamily("canary_mw_discovery_age_seconds", text, labels=_LABELS)
    for status in statuses:
        if status.source.startswith("consul://") and status.last_contact is not None:
            family.add_metric(_labels_of(status), status.last_contact)
    return family


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
