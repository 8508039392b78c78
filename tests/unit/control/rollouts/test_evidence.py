"""The evidence of a release over restarts: with a folder that the workers share, and in the memory of one process."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from canary_mw.control.rollouts.evidence import FiguresEvidence
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts.register import MIN_TIMES
from canary_mw.observability.figures.reader import read
from canary_mw.observability.prometheus import Metrics
from canary_mw.rollout.evidence import VariantEvidence
from canary_mw.rollout.state import ReleaseState
from canary_mw.routing.decision import decide
from canary_mw.routing.releases.override import Override

RULES = """
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: svc}
spec: {hostname: '*', prefix: /, service: stable}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: svc-gray}
spec: {hostname: '*', prefix: /, service: gray}
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
stable: svc
gray: [svc-gray]
sticky: [{header: k}]
steps: [{setWeight: 50}, {pause: {}}]
analysis: {metrics: [{name: error_rate}, {name: latency, quantiles: [p90]}]}
"""
STATE = ReleaseState(name="r", attempt=3, phase="Progressing", step=0)


class Opened(NamedTuple):
    descriptor: int


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[list[int]]:
    """Two run folders, of before and after a restart."""
    found = []
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        found.append(os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY))
    yield found
    for each in found:
        os.close(each)


class Worker:
    """A process that counts, and can control."""

    def __init__(self, folder: int | None, attempt: int = 3) -> None:
        self.metrics = Metrics((lambda: Opened(folder)) if folder is not None else lambda: None)
        self.metrics.start()
        self.store = RuleStore(StaticSource(RULES), observers=[self.metrics])
        self.store.reload()
        assert self.store.error is None
        self.evidence = FiguresEvidence(lambda: self.metrics)
        self.to(attempt)

    def to(self, attempt: int) -> None:
        self.store.override({"r": Override(weights={"svc-gray": 50.0}, attempt=attempt)})

    def ask(self, key: str, first_byte: float = 0.01, *, failed: bool = False) -> None:
        head = RequestHead("GET", "/", {"k": key})
        head.client = f"10.0.{len(key)}.{key[-2:].strip('u') or 1}"
        failure = "500" if failed else None
        self.metrics.count(decide(self.store.table, head, 0.0), head, 200, 0.02, first_byte, 0, failure)

    def asked(self) -> None:
        for number in range(40):
            self.ask(f"u{number}", failed=number % 7 == 0)

    def exported(self) -> bytes:
        return self.evidence.exported("r", 3)

    def look(self) -> VariantEvidence:
        self.evidence._read = None
        found = self.evidence.of(self.store.table.documents.in_force[0], replace(STATE))
        assert found is not None
        return found.variants.get("svc-gray", VariantEvidence())


@pytest.mark.parametrize("private", [False, True])
def test_a_restart_goes_on_with_the_evidence_of_before(folders: list[int], *, private: bool) -> None:
    before = Worker(None if private else folders[0])
    for _ in range(2):
        before.asked()
    expected = before.look()
    assert expected.metrics[0].steps[0].gray.failures > 0
    after = Worker(None if private else folders[1])
    others = [] if private else [Worker(folders[1])]
    # A second controller, and a second time, add nothing.
    for each in (after, *others, after):
        assert each.evidence.restore(before.exported())
        assert after.look() == expected
    after.asked()
    # A key that had failed before fails for the first time no more.
    assert after.look().metrics[0].steps[0].gray.failures == expected.metrics[0].steps[0].gray.failures
    third = Worker(None)
    third.evidence.restore(after.exported())
    assert third.look() == after.look()
    assert third.metrics.read().evidence["r"].stored


def test_where_the_figures_are_still_there_nothing_is_restored(folders: list[int]) -> None:
    first, second = Worker(folders[0]), Worker(folders[0])
    first.asked()
    expected, kept = first.look(), first.exported()
    assert first.metrics.figures.storage is not None
    first.metrics.figures.storage.close()
    assert second.evidence.restore(kept)
    assert second.look() == expected


@pytest.mark.parametrize("private", [False, True])
def test_evidence_of_another_attempt_is_not_restored(folders: list[int], *, private: bool) -> None:
    before = Worker(None if private else folders[0])
    before.asked()
    assert before.evidence.exported("r", 2) == b""
    after = Worker(None if private else folders[1], attempt=2)
    assert not after.evidence.restore(before.exported())
    after.to(4)
    assert not after.evidence.restore(before.exported())
    assert after.metrics.evidence().releases == {}
    assert (after.evidence.newest_attempt("r"), after.evidence.newest_attempt("s")) == (4, 0)


@pytest.mark.parametrize("private", [False, True])
def test_thresholds_are_restored_with_what_was_judged_by_them(folders: list[int], *, private: bool) -> None:
    before = Worker(None if private else folders[0])
    for number in range(MIN_TIMES):
        before.ask(f"u{number % 50}", number / 1000)
    before.metrics.tick()
    before.ask("u1", 1.9)
    after = Worker(None if private else folders[1])
    after.evidence.restore(before.exported())
    after.metrics.tick()
    for number in range(50):
        after.ask(f"u{number}", 1.9)
    (counts,) = after.look().metrics[1].steps
    assert (counts.gray_requests + counts.stable_requests, counts.gray_bad + counts.stable_bad) == (51, 51)


def test_what_is_restored_is_no_worker_that_has_ended(folders: list[int]) -> None:
    before, after = Worker(folders[0]), Worker(folders[1])
    before.asked()
    other = Worker(folders[1])
    other.ask("u1")
    assert other.metrics.figures.storage is not None
    other.metrics.figures.storage.close()
    assert len(read(folders[1], 1e9).ended) == 1
    after.evidence.restore(before.exported())
    assert len(read(folders[1], 1e9).ended) == 1


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("data", [b"", b"{}", b'{"format": 1}\nabc', b"[]\n", b"\xff\n\xff"])
def test_what_is_no_evidence_is_not_restored(folders: list[int], data: bytes, *, private: bool) -> None:
    worker = Worker(None if private else folders[0])
    assert worker.evidence.restore(data)
    assert worker.metrics.evidence().releases == {}


def test_where_nothing_is_counted_there_is_no_evidence() -> None:
    nobody, document = FiguresEvidence(lambda: None), Worker(None).store.table.documents.in_force[0]
    assert nobody.of(document, STATE) is None
    assert (nobody.exported("r", 3), nobody.newest_attempt("r"), nobody.restore(b"")) == (b"", 0, True)
