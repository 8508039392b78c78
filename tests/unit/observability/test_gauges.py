"""Gauges of upstreams and of rules: of all workers that run, in sum."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from middlewares import middleware, serving_middleware
from prometheus_client.parser import text_string_to_metric_families
from rules import document
from servers import fetch, run
from upstream import Peer, serving

from canary_mw import Metrics
from canary_mw.client.held import Held
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.figures.reader import read
from canary_mw.observability.figures.writer import FiguresWriter
from canary_mw.observability.source_metrics import rule_metrics
from canary_mw.rules.upstream import CircuitBreakers
from canary_mw.upstreams.circuit_breakers import InFlight
from canary_mw.upstreams.health import EndpointStatus, gauges_of


class Opened(NamedTuple):
    descriptor: int


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_gauges_are_those_of_the_workers_that_run(folder: int) -> None:
    workers = [FiguresWriter(lambda: Opened(folder)) for _ in range(2)]
    for worker in workers:
        worker.set_gauges({("waiting", "a"): 3, ("waiting", "b"): 1})
    assert read(folder, 1e9).upstream_gauges == {("waiting", "a"): 6, ("waiting", "b"): 2}
    workers[0].set_gauges({("waiting", "b"): 2})
    assert read(folder, 1e9).upstream_gauges == {("waiting", "a"): 3, ("waiting", "b"): 3}
    assert workers[1].storage is not None
    workers[1].storage.close()
    for _ in range(2):
        assert read(folder, 1e9).upstream_gauges == {("waiting", "a"): 0, ("waiting", "b"): 2}


class Upstreams:
    def __init__(self) -> None:
        self.in_flight = InFlight()

    def endpoint_statuses(self) -> list[EndpointStatus]:
        held = [Held(2, 1), Held(1, 4), None]
        return [EndpointStatus("a", f"10.0.0.{number}", "healthy", held=each) for number, each in enumerate(held)]


def test_endpoints_of_a_service_are_one_and_limits_of_its_mappings_too() -> None:
    upstreams = Upstreams()
    slots = [upstreams.in_flight.acquire_request("a", CircuitBreakers(max_requests=each)) for each in (5, 6)]
    slots.append(upstreams.in_flight.acquire_retry("a", CircuitBreakers()))
    assert dict(gauges_of(upstreams)) == {
        ("upstream_connections", "a"): 3,
        ("upstream_waiting_requests", "a"): 5,
        ("circuit_breaker_requests", "a"): 2,
        ("circuit_breaker_retries", "a"): 1,
    }
    assert len(slots) == 3


def values(metrics: Metrics, name: str) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.render().decode())
    (family,) = [each for each in families if each.name == name]
    return {next(iter(each.labels.values())): each.value for each in family.samples}


@pytest.mark.usefixtures("interface")
def test_a_middleware_shows_its_connections() -> None:
    async def answering(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b"1")

    async def main() -> None:
        async with serving(answering) as upstream:
            metrics = Metrics()
            service = f"127.0.0.1:{upstream.origin.port}"
            served: Any = middleware(
                rules=StaticSource(document("shop", prefix="/shop/", service=service)), observers=[metrics]
            )
            metrics.follow(served)
            async with serving_middleware(served) as port:
                assert (await fetch(port, "/shop/")).status == 200
                assert values(metrics, "canary_mw_upstream_connections") == {service: 1}
                assert values(metrics, "canary_mw_upstream_waiting_requests") == {service: 0}
                assert values(metrics, "canary_mw_rules") == {"live": 1, "last_good": 0, "ignored": 0}

    run(main())


def counted(store: RuleStore) -> dict[str, float]:
    family = rule_metrics(store.table, store.rules, store.diagnostics)
    return {sample.labels["state"]: sample.value for sample in family.samples}


def test_rules_are_live_or_kept_or_ignored() -> None:
    good = document("a", prefix="/a/") + document("b", prefix="/b/")
    store = RuleStore(StaticSource(good))
    store.reload()
    assert counted(store) == {"live": 2, "last_good": 0, "ignored": 0}
    store.source = StaticSource(
        document("a", prefix="/a/")
        + document("b", prefix="/b/", weight='"many"')
        + document("c", prefix="/c/", weight='"many"')
    )
    store.reload()
    assert counted(store) == {"live": 1, "last_good": 1, "ignored": 1}
