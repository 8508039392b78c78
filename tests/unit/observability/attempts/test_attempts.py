"""Evidence of releases: what drawn requests have shown, over workers, epochs and attempts."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts import writer
from canary_mw.observability.attempts.register import MIN_TIMES, limit_of
from canary_mw.observability.evidence import ArmCounts, Evidence
from canary_mw.observability.failures import REFUSED
from canary_mw.observability.figures.reader import read
from canary_mw.observability.judgement import judge
from canary_mw.observability.prometheus import Metrics
from canary_mw.routing.decision import decide

MAPPINGS = """
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: svc}
spec: {prefix: /svc/, service: svc}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: gray}
spec: {prefix: /svc/, service: gray, weight: %d}
"""
RELEASE = """
---
apiVersion: canary-mw/v1
kind: GrayRelease
metadata: {name: r}
spec: {gray: {gray: %s}, sticky: [{header: k}], choice: {query: q}, missing: %s, revision: "%s"}
"""


def release(percent: float = 20, revision: str = "1", missing: str = "roll") -> str:
    return MAPPINGS % 0 + RELEASE % (percent, missing, revision)


class Opened(NamedTuple):
    descriptor: int


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


class Worker:
    """A process that decides requests and counts them."""

    def __init__(self, folder: int | None, text: str) -> None:
        self.metrics = Metrics((lambda: Opened(folder)) if folder is not None else lambda: None)
        self.metrics.start()
        self.source = StaticSource(text)
        self.store = RuleStore(self.source, observers=[self.metrics])
        self.store.reload()

    def rules(self, text: str) -> None:
        self.source._document = StaticSource(text)._document
        assert self.store.reload()

    def ask(
        self, key: str, failure: str | None = None, first_byte: float = 0.01, *, roll: float = 50.0, query: str = ""
    ) -> None:
        headers = {"k": key} if key else {}
        decision = decide(self.store.table, RequestHead("GET", f"/svc/{query}", headers), roll)
        self.metrics.count(decision, None, 500 if failure else 200, 0.02, first_byte, 0, failure)

    def variant(self, key: str) -> str:
        return self.store.table.releases["r"].variant_of(key)

    def kill(self) -> None:
        assert self.metrics.figures.storage is not None
        self.metrics.figures.storage.close()


def evidence(folder: int, name: str = "r") -> Evidence:
    return read(folder, 1e9).evidence[name]


def by_weight(found: Evidence) -> dict[float, dict[str, ArmCounts]]:
    """Counts of the two built-in metrics."""
    return {
        json.loads(key.weights)["gray"]: {name: ArmCounts(*counts[:6]) for name, counts in arms.items()}
        for key, arms in found.epochs.items()
    }


def keys_of(worker: Worker, variant: str, count: int) -> list[str]:
    return [key for key in map(str, range(count * 50)) if worker.variant(key) == variant][:count]


def test_a_key_counts_with_its_first_failure_and_is_no_exposure_after_it(folder: int) -> None:
    worker = Worker(folder, release())
    bad, good = keys_of(worker, "gray", 2)
    (stable,) = keys_of(worker, "stable", 1)
    for _ in range(5):
        worker.ask(bad, "500")
        worker.ask(good)
        worker.ask(stable)
    worker.ask(good, "502")
    assert by_weight(evidence(folder)) == {
        20.0: {"gray": ArmCounts(11, 6, 7, (), 2, ()), "stable": ArmCounts(5, 0, 5, (), 0, ())}
    }


def test_a_key_that_fails_in_several_workers_is_one(folder: int) -> None:
    workers = [Worker(folder, release()) for _ in range(3)]
    keys = keys_of(workers[0], "gray", 10)
    for worker in workers:
        for key in keys:
            worker.ask(key, "500")
    for _ in range(2):
        counts = by_weight(evidence(folder))[20.0]["gray"]
        assert (counts.requests, counts.errors, counts.first_failures) == (30, 30, 10)
        workers[1].kill()


def test_nobody_who_asks_for_gray_by_name_is_evidence(folder: int) -> None:
    worker = Worker(folder, release())
    for _ in range(3):
        worker.ask("a", "500", query="?q=always")
    worker.ask(keys_of(worker, "gray", 1)[0])
    assert by_weight(evidence(folder)) == {20.0: {"gray": ArmCounts(1, 0, 1, (), 0, ())}}


def test_what_got_no_attempt_is_no_exposure(folder: int) -> None:
    worker = Worker(folder, release())
    (key,) = keys_of(worker, "gray", 1)
    worker.ask(key)
    worker.ask(key, REFUSED)
    assert by_weight(evidence(folder))[20.0]["gray"].requests == 1


def test_requests_without_a_key_are_keys_of_their_own(folder: int) -> None:
    worker = Worker(folder, release())
    for number in range(10):
        worker.ask("", "500" if number < 4 else None, roll=10.0)
    assert by_weight(evidence(folder)) == {20.0: {"gray": ArmCounts(10, 4, 10, (), 4, ())}}


def test_a_group_without_a_release_is_one_under_the_name_of_its_stable_mapping(folder: int) -> None:
    worker = Worker(folder, MAPPINGS % 20)
    for roll in (10.0, 10.0, 50.0):
        worker.ask("same", "500", roll=roll)
    assert by_weight(evidence(folder, "svc")) == {
        20.0: {"gray": ArmCounts(2, 2, 2, (), 2, ()), "stable": ArmCounts(1, 1, 1, (), 1, ())}
    }
    rows = read(folder, 1e9).rows
    assert {(key.release, key.variant, key.drawn) for key in rows} == {("svc", "gray", True), ("svc", "stable", True)}


def test_a_group_whose_gray_has_no_weight_yet_is_named_but_shows_nothing(folder: int) -> None:
    worker = Worker(folder, MAPPINGS % 0)
    worker.ask("a")
    found = read(folder, 1e9)
    assert [key.release for key in found.rows] == ["svc"]
    assert found.evidence == {}


def test_weights_are_epochs_of_one_attempt(folder: int) -> None:
    worker = Worker(folder, release(20))
    (key,) = keys_of(worker, "gray", 1)
    worker.ask(key, "500")
    worker.rules(release(40))
    worker.ask(key, "500")
    worker.ask(key)
    found = evidence(folder)
    assert found.attempt == 1
    assert by_weight(found) == {
        20.0: {"gray": ArmCounts(1, 1, 1, (), 1, ())},
        40.0: {"gray": ArmCounts(2, 1, 0, (), 0, ())},
    }


@pytest.mark.parametrize(
    "change", [lambda worker: worker.rules(release(0)), lambda worker: worker.rules(release(30, revision="2"))]
)
def test_an_attempt_begins_where_gray_rises_from_0_or_is_another_one(
    folder: int, change: Callable[[Worker], None]
) -> None:
    workers = [Worker(folder, release(20)) for _ in range(2)]
    (key,) = keys_of(workers[0], "gray", 1)
    for worker in workers:
        worker.ask(key, "500")
    for worker in workers:
        change(worker)
    revision = "2" if workers[0].store.table.releases["r"].document.revision == "2" else "1"
    for worker in workers:
        worker.rules(release(25, revision))
        worker.ask(key)
    found = evidence(folder)
    assert by_weight(found)[25.0] == {"gray": ArmCounts(2, 0, 2, (), 0, ())}
    assert sum(counts.errors for each in found.epochs.values() for counts in each.values()) == 0
    assert found.attempt == 2


def test_a_worker_that_starts_later_joins_the_attempt(folder: int) -> None:
    first = Worker(folder, release(0))
    first.rules(release(20))
    second = Worker(folder, release(20))
    (key,) = keys_of(first, "gray", 1)
    first.ask(key)
    second.ask(key)
    found = evidence(folder)
    assert (found.attempt, by_weight(found)[20.0]["gray"].requests) == (2, 2)


def test_thresholds_are_those_of_the_first_answers_of_both_variants_in_all_workers(folder: int) -> None:
    workers = [Worker(folder, release(50)) for _ in range(2)]
    gray, stable = keys_of(workers[0], "gray", 1)[0], keys_of(workers[0], "stable", 1)[0]
    for number in range(MIN_TIMES // 2 - 1):
        workers[0].ask(gray, first_byte=number / 1000)
        workers[1].ask(stable, first_byte=1 + number / 1000)
    for worker in workers:
        worker.metrics.tick()
    assert evidence(folder).thresholds == ()
    workers[0].ask(gray, first_byte=9.0)
    workers[1].ask(stable, first_byte=9.0)
    for worker in workers:
        worker.metrics.tick()
    limits = {each.name: each.seconds for each in evidence(folder).thresholds}
    assert limits == {"p95": pytest.approx(1.9), "p99": pytest.approx(1.98)}
    workers[0].ask(gray, first_byte=1.95)
    workers[0].ask(gray, first_byte=5.0)
    workers[1].ask(stable, first_byte=0.5)
    arms = by_weight(evidence(folder))[50.0]
    assert (arms["gray"].slow_exposures, arms["gray"].first_slow) == ((1, 2), (1, 1))
    assert (arms["stable"].slow_exposures, arms["stable"].first_slow) == ((1, 1), (0, 0))


def test_thresholds_need_enough_answers() -> None:
    assert limit_of([1.0] * (MIN_TIMES - 1), 0.95) is None
    times = [float(number) for number in range(MIN_TIMES)]
    assert (limit_of(times, 0.95), limit_of(times, 0.99)) == (1899.0, 1979.0)


def test_a_worker_that_is_killed_takes_no_evidence_along(folder: int) -> None:
    workers = [Worker(folder, release(50)) for _ in range(4)]
    keys = keys_of(workers[0], "gray", 20)
    for index, worker in enumerate(workers):
        for key in keys[index * 5 : index * 5 + 6]:
            worker.ask(key, "500", first_byte=0.5)
        for _ in range(MIN_TIMES // 4):
            worker.ask("x", first_byte=0.1)
    before = evidence(folder)
    for worker in workers[:3]:
        worker.kill()
        assert evidence(folder) == before
    assert by_weight(before)[50.0]["gray"].first_failures == 20
    workers[3].metrics.tick()
    assert len(evidence(folder).thresholds) == 2


def test_keys_are_thinned_out_alike_in_all_workers(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FAILED_CAP", 100)
    workers = [Worker(folder, release(50)) for _ in range(2)]
    for number in range(1000):
        workers[number % 2].ask(f"u{number}", "500")
    found = evidence(folder)
    counts = list(by_weight(found)[50.0].values())
    kept = sum(each.first_failures for each in counts)
    # What is left out of the keys is left out of the requests.
    assert 20 < kept <= 200
    assert 0.6 < kept / sum(each.exposures for each in counts) < 1.6
    for worker in workers:
        worker.kill()
        assert evidence(folder) == found


def test_evidence_of_one_process_needs_no_folder() -> None:
    worker = Worker(None, release())
    (key,) = keys_of(worker, "gray", 1)
    worker.ask(key, "500")
    for _ in range(MIN_TIMES):
        worker.ask("x")
    worker.metrics.tick()
    found = worker.metrics.read().evidence["r"]
    assert by_weight(found)[20.0]["gray"].first_failures == 1
    assert len(found.thresholds) == 2


def test_a_variant_that_fails_is_found(folder: int) -> None:
    workers = [Worker(folder, release(20)) for _ in range(2)]
    for number in range(2000):
        worker = workers[number % 2]
        key = f"u{number}"
        worker.ask(key, "500" if worker.variant(key) == "gray" and number % 5 == 0 else None)
    assert judge(evidence(folder), ["gray"])["gray"].worse
