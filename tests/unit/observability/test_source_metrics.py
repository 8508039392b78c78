"""The metrics of sources that are watched, and the line that `/readyz?verbose` has for each."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from canary_mw.observability.source_metrics import source_metrics
from canary_mw.observability.source_status import SourceStatus


def status(**changes: Any) -> SourceStatus:
    values: dict[str, Any] = {
        "source": "k8s://shop",
        "kind": "services",
        "namespace": "shop",
        "synced": True,
        "version": "v1",
        "objects": 2,
        "last_contact": 1.5,
        "cache_age": None,
        "relists": {"expired": 3},
        "errors": {"403": 4},
        "error": None,
    }
    return SourceStatus(**{**values, **changes})


class Collector:
    def __init__(self, *statuses: SourceStatus) -> None:
        self._statuses = statuses

    def collect(self) -> Any:
        return source_metrics(self._statuses)


def rendered(*statuses: SourceStatus) -> list[str]:
    registry = CollectorRegistry()
    registry.register(Collector(*statuses))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_the_metrics_have_these_names_and_labels() -> None:
    place = 'kind="services",namespace="shop"'
    end = 'source="k8s://shop"'
    assert rendered(status()) == [
        f"canary_mw_source_synced{{{place},{end}}} 1.0",
        f"canary_mw_source_last_contact_seconds{{{place},{end}}} 1.5",
        f"canary_mw_source_objects{{{place},{end}}} 2.0",
        f"canary_mw_source_from_cache{{{place},{end}}} 0.0",
        f'canary_mw_source_relists_total{{{place},reason="expired",{end}}} 3.0',
        f'canary_mw_source_errors_total{{code="403",{place},{end}}} 4.0',
    ]


def test_consul_has_an_age_for_each_service_that_it_has_answered_about() -> None:
    services = [("shop", 2.5), ("never", None)]
    statuses = [
        status(source="consul://a:8500", kind=kind, namespace="dc1", last_contact=age) for kind, age in services
    ]
    name = "canary_mw_discovery_age_seconds"
    place = 'kind="shop",namespace="dc1",source="consul://a:8500"'
    assert [line for line in rendered(status(), *statuses) if line.startswith(name)] == [f"{name}{{{place}}} 2.5"]


def test_the_time_until_rules_are_in_force_is_one_histogram_of_a_source() -> None:
    delays = (0, 0, 3, 1, *(0,) * 6, 1)
    statuses = [status(kind=kind, delays=delays, delay_sum=12.5) for kind in ("services", "ingresses")]
    lines = [line for line in rendered(*statuses) if "event_to_table" in line]
    name = "canary_mw_source_event_to_table_seconds"
    assert len(lines) == len(delays) + 2
    assert f'{name}_bucket{{le="0.05",source="k8s://shop"}} 3.0' in lines
    assert f'{name}_bucket{{le="10",source="k8s://shop"}} 4.0' in lines
    assert f'{name}_bucket{{le="+Inf",source="k8s://shop"}} 5.0' in lines
    assert f'{name}_sum{{source="k8s://shop"}} 12.5' in lines


def test_a_source_without_an_answer_has_no_age_of_one() -> None:
    lines = rendered(status(synced=False, last_contact=None, cache_age=9.0, relists={}, errors={}))
    assert [line.partition("{")[0] for line in lines] == [
        "canary_mw_source_synced",
        "canary_mw_source_objects",
        "canary_mw_source_from_cache",
    ]
    assert lines[-1].endswith(" 1.0")


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, "version=v1 objects=2 contact=1.5 s ago synced"),
        ({"cache_age": 60.4}, "contact=1.5 s ago source=cache age=60s synced"),
        ({"synced": False, "last_contact": None}, "contact=never not synced: no answer yet"),
        ({"synced": False, "error": "status 503"}, "contact=1.5 s ago not synced: status 503"),
    ],
)
def test_a_line_tells_the_state(changes: dict[str, Any], end: str) -> None:
    assert str(status(**changes)).endswith(end)
    assert str(status(**changes)).startswith("k8s://shop kind=services namespace=shop ")
