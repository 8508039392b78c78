"""Counters of requests, in both middlewares and on both paths of the proxy."""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rules
from middlewares import middleware, serving_middleware
from prometheus_client.parser import text_string_to_metric_families
from servers import fetch, fetch_admin, free_port, mapping, run
from standalone import HANDLERS, LARGE, RULES, Noting, Wire, talk
from upstream import Peer, Upstream, serving, until
from wsgiservers import hello

from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.observability.counters import RequestCounters
from canary_mw.observability.events import Decided, Finished, Reloaded
from canary_mw.observability.figures.values import CLASSES, FAILURE_KINDS
from canary_mw.observability.observers import Observer
from canary_mw.observability.prometheus import Metrics
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide


def counted(counts: RequestCounters) -> dict[tuple[str, ...], int]:
    """How many requests, by Mapping, service, variant and class of the status."""
    return {
        (key.mapping, key.service, key.variant, name): count
        for key, row in counts.read(1.0).rows.items()
        for name, count in zip(CLASSES, row.classes, strict=True)
        if count
    }


def seconds(counts: RequestCounters) -> list[float]:
    """The time that requests took, by row."""
    return [row.seconds for row in counts.read(1.0).rows.values()]


def shown(page: bytes, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The samples of a counter, by some of its labels."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name == f"canary_mw_{name}_total"
    }


def only_decision(service: str = "shop") -> Decision:
    """The decision of rules with a single Mapping."""
    decision = decide(rules.table(rules.mapping("stable", "/shop/", service=service)), rules.get("/shop/"), 0.0)
    assert decision is not None
    return decision


class FromRecords(RequestCounters):
    """Keeps the records, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Decided | Finished] = []

    def decided(self, record: Decided) -> None:
        self.kept.append(record)

    def finished(self, record: Finished) -> None:
        self.kept.append(record)
        super().finished(record)


# Both middlewares, and both paths of the proxy


def test_counts_without_records_equal_those_with_records(interface: str) -> None:
    counts, recording = RequestCounters(), FromRecords()
    text = mapping("stable", "/shop/", "shop-stable") + mapping("dead", "/dead/", "127.0.0.1:1")
    text += mapping("moved", "/old/", "shop-gray", host_redirect="true")
    served = middleware(rules=StaticSource(text), local="shop-stable", observers=[counts, recording])
    targets = ("/shop/", "/shop/", "/else", "/dead/", "/old/", "/%00")

    async def main() -> None:
        async with serving_middleware(served) as port:
            for number, target in enumerate(targets):
                await fetch(port, target)
                await until(lambda: sum(counted(counts).values()) > number)  # noqa: B023
            await until(lambda: sum(isinstance(each, Finished) for each in recording.kept) == len(targets))

    run(main())
    assert counted(counts) == {
        ("stable", "shop-stable", "stable", "2xx"): 2,
        ("", "", "", "2xx"): 1,
        ("dead", "127.0.0.1:1", "stable", "5xx"): 1,
        ("moved", "shop-gray", "stable", "3xx"): 1,
        ("", "", "", "4xx"): 1,
    }
    assert counted(recording) == counted(counts)
    # What counts need not wait for the last byte.
    assert all(recorded >= count for recorded, count in zip(seconds(recording), seconds(counts), strict=True))
    assert max(seconds(counts)) > 0


def test_an_observer_that_only_counts_gets_no_records(interface: str) -> None:
    class Other(Observer):
        """Overrides no method."""

    for observers, wanted in (([Metrics()], True), ([Other()], False), ([], False)):
        served = middleware(rules=StaticSource(""), observers=observers)
        assert (served.decided_observers, served.finished_observers, served.observed) == ([], [], wanted)


@pytest.mark.parametrize("handler", HANDLERS)
def test_both_paths_of_the_proxy_count(handler: str, tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def answering(peer: Peer) -> None:
        while True:
            line = (await peer.request()).line
            if b"/think" in line:
                gone.set()
                await peer.gone()
            elif b"/garbage" in line:
                await peer.send(b"garbage\r\n")
            else:
                await peer.answer(LARGE if b"/large" in line else b"1")

    admin_port = free_port()

    async def exchanges(client: Wire, app: Noting, upstream: Upstream) -> None:
        for target in (b"/shop/", b"/shop/", b"/shop/garbage", b"/shop/", b"/shop/large", b"/none"):
            await client.get(target)
        await client.ask(b"GET /shop/think HTTP/1.1\r\nhost: shop.example\r\n\r\n")
        await gone.wait()
        client.writer.close()
        counts: dict[tuple[str, ...], float] = {}
        while ("stable", "none") not in counts:
            counts = shown((await fetch_admin(admin_port, "/metrics")).body, "requests", "mapping", "status_class")
        assert counts == {("stable", "2xx"): 4, ("stable", "5xx"): 1, ("", "4xx"): 1, ("stable", "none"): 1}

    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    talk(path, answering, exchanges, handler=handler, admin_port=admin_port)


def test_metrics_include_the_counters_of_a_middleware(interface: str) -> None:
    async def main() -> None:
        metrics = Metrics()
        alone = metrics.render()
        assert shown(alone, "refused_requests", "status") == shown(alone, "ejections", "service") == {}
        text = mapping("up", "/up/", "up", outlier_detection="{consecutive_5xx: 1}")
        text += mapping("copies", "/up/", "dark", shadow="true")
        urls = {"up": ["http://127.0.0.1:1", "http://127.0.0.1:2"], "dark": "http://127.0.0.1:1"}
        served = middleware(rules=StaticSource(text), upstreams=urls, observers=[metrics])
        metrics.follow(served)
        async with serving_middleware(served) as port:
            assert (await fetch(port, "/up/")).status == 503
            assert (await fetch(port, "/%00")).status == 400
            await until(lambda: shown(metrics.render(), "shadow", "result")["failed",] == 1)
            page = metrics.render()
        assert shown(page, "refused_requests", "status") == {("400",): 1}
        assert shown(page, "ejections", "service") == {("up",): 1}
        assert shown(page, "requests", "mapping", "status_class") == {("up", "5xx"): 1, ("", "4xx"): 1}

    run(main())


def test_retries_and_bodies_count_in_the_row_of_their_mapping(interface: str) -> None:
    metrics = Metrics()
    retry = "{retry_on: connect-failure, num_retries: 2}"
    text = mapping("dead", "/up/", "127.0.0.1:1", retry_policy=retry)
    served = middleware(rules=StaticSource(text), local="shop", observers=[metrics])

    async def main() -> None:
        async with serving_middleware(served) as port:
            assert (await fetch(port, "/up/", "PUT", body=b"12345")).status == 503
            assert (await fetch(port, "/up/")).status == 503
            assert (await fetch(port, "/local")).body
            await until(lambda: sum(counted(metrics).values()) == 3)

    run(main())
    rows = {key.mapping: row for key, row in metrics.read().rows.items()}
    assert (rows["dead"].retries, rows["dead"].bytes_in) == (4, 5)
    assert rows["dead"].failures[FAILURE_KINDS.index("connect")] == rows["dead"].errors == 2
    assert (rows[""].retries, rows[""].bytes_in) == (0, 0)
    assert rows[""].bytes_out > 0
    assert shown(metrics.render(), "retries", "service") == {("127.0.0.1:1",): 4}
    assert metrics.read().gauges["in_flight"] == 0


def test_requests_under_way_are_counted(interface: str) -> None:
    metrics = Metrics()
    asked, answer = threading.Event(), threading.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await asyncio.to_thread(answer.wait)
        await peer.answer(b"1")

    async def main() -> None:
        async with serving(slow) as upstream:
            text = mapping("slow", "/up/", f"127.0.0.1:{upstream.origin.port}")
            served = middleware(rules=StaticSource(text), observers=[metrics])
            async with serving_middleware(served) as port:
                request = asyncio.create_task(fetch(port, "/up/"))
                await until(asked.is_set)
                assert metrics.read().gauges["in_flight"] == 1
                answer.set()
                assert (await request).status == 200
                await until(lambda: metrics.read().gauges["in_flight"] == 0)

    run(main())


# Reloads, threads, processes


def test_counts_survive_reloads_and_old_decisions_are_released(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    counts = RequestCounters()
    store = RuleStore(FileSource(path), observers=[counts])
    for number in range(20):
        path.write_text(mapping("stable", "/shop/", f"shop-{number % 2}"))
        assert store.reload()
        decision = decide(store.table, rules.get("/shop/"), 0.0)
        assert decision is not None
        counts.count(decision, None, 200, 0.25)
        del decision
    gc.collect()
    # isinstance would ask lazy objects of other libraries what they stand for.
    alive = [each for each in gc.get_objects() if type(each) is Decision and each.mapping.file == str(path)]
    assert len(alive) == 1
    assert counted(counts) == {("stable", f"shop-{one}", "stable", "2xx"): 10 for one in (0, 1)}
    assert counted(counts) == counted(counts)
    assert set(seconds(counts)) == {2.5}


def test_a_request_that_outlives_its_rules_is_counted() -> None:
    counts, decision = RequestCounters(), only_decision()
    counts.count(decision, None, 200, 0.5)
    counts.reloaded(Reloaded(generation=2))
    counts.count(decision, None, 200, 0.5)
    counts.finished(Finished("GET", "/shop/", 200, 0.5, "stable", "shop", "stable"))
    assert counted(counts) == {("stable", "shop", "stable", "2xx"): 3}


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_lose_no_request_while_counts_are_read(often: None) -> None:
    counts, decision = RequestCounters(), only_decision()

    def work() -> None:
        for number in range(25_000):
            counts.count(decision, None, 100 + 100 * (number % 5), 1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    before = 0
    while any(thread.is_alive() for thread in threads):
        now = sum(counted(counts).values())
        assert now >= before
        before = now
    (row,) = counts.read(1.0).rows.values()
    assert (row.classes, row.seconds) == ((0, *[20_000] * 5), 100_000.0)


def test_a_request_may_end_during_a_count() -> None:
    """As when the garbage collector ends a coroutine."""
    counts = RequestCounters()
    with counts.figures.lock:
        counts.count(None, None, 404, 0.0)
    assert counted(counts) == {("", "", "", "4xx"): 1}


def test_a_forked_child_counts_from_zero_even_if_locks_were_held() -> None:
    counts = RequestCounters()
    counts.count(None, None, 404, 0.0)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with counts.figures.lock:
            held.set()
            done.wait()

    def child() -> str:
        counts.count(None, None, 200, 0.0)
        return repr(counted(counts))

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    output = in_a_child(child)
    done.set()
    thread.join()
    assert output == "{('', '', '', '2xx'): 1}"
    assert counted(counts) == {("", "", "", "4xx"): 1}


def test_a_forked_child_shows_only_its_own_refusals() -> None:
    metrics = Metrics()
    served = CanaryWSGIMiddleware(hello, rules=StaticSource(""), observers=[metrics])
    metrics.follow(served)
    served.refusals.count(400)

    def child() -> str:
        served.refusals.count(403)
        return repr(shown(metrics.render(), "refused_requests", "status"))

    assert in_a_child(child) == "{('403',): 1.0}"


def in_a_child(function: Callable[[], str]) -> str:
    """What a function returns in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, function().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        output = pipe.read()
    os.waitpid(child, 0)
    return output
