"""What apps record in pods of one version each: who draws counts a request, and the pod whose app runs its events."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts import register
from canary_mw.observability.attempts.layout import SCALE
from canary_mw.observability.attempts.register import MIN_TIMES
from canary_mw.observability.attempts.release_evidence import release_evidence
from canary_mw.observability.figures.targets import recorded_for
from canary_mw.observability.prometheus import Metrics
from canary_mw.rollout.findings import MetricEvidence
from canary_mw.routing.decided import Decision
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
salt: s
stable: svc
gray: [svc-gray]
sticky: [{header: k}]
choice: {header: x-choose}
steps: [{setWeight: 20}, {pause: {}}, {setWeight: 50}, {pause: {}}, {setWeight: 100}]
analysis: {minimum_keys: 10, metrics: [{name: error_rate}, {name: paid, kind: event}, {name: basket, kind: value}]}
"""
FIXED = RULES.replace("kind: value}", "kind: value, threshold: 50}")


class Opened(NamedTuple):
    descriptor: int


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


class Pod:
    """A process of some services; those of one folder add up as those of pods do."""

    def __init__(self, folder: int | None, *local: str, rules: str = FIXED) -> None:
        self.metrics = Metrics((lambda: Opened(folder)) if folder is not None else lambda: None)
        self.metrics.start()
        self.store = RuleStore(StaticSource(rules), local=local, middleware=True, observers=[self.metrics])
        self.store.reload()
        self.to(20.0, 1)

    def to(self, weight: float, visit: int) -> None:
        self.visit = visit
        self.store.override({"r": Override(weights={"svc-gray": weight}, attempt=3, step=visit)})

    def take(self, head: RequestHead) -> Decision:
        decision = decide(self.store.table, head, 50.0)
        assert decision is not None
        return decision

    def end(self, decision: Decision, head: RequestHead, paid: bool, basket: float | None) -> None:
        """The app records what it does, if it runs here, and the request ends."""
        drawn = recorded_for(decision)
        if decision.local and drawn is not None:
            for name, value in (("paid", 1.0 if paid else None), ("basket", basket)):
                if value is not None:
                    self.metrics.record(drawn, name, "10.0.0.1", round(value * SCALE))
        self.metrics.count(decision, head, 200, 0.02, 0.01, 0, None)

    def found(self) -> list[MetricEvidence]:
        evidence = release_evidence(self.metrics.evidence(), self.store.table.documents.in_force[0], 3, self.visit, 0)
        return list(evidence.variants["svc-gray"].metrics)


def serve(pods: dict[str, Pod], key: str, paid: bool, basket: float | None, choice: str = "") -> None:
    """A request comes to a pod of stable, which sends it on to one of gray where it is gray."""
    headers = {"k": key, **({"x-choose": choice} if choice else {})}
    head = RequestHead("GET", "/", headers)
    decision = pods["stable"].take(head)
    if decision.mapping.name == "svc-gray" and pods["gray"] is not pods["stable"]:
        sent = RequestHead("GET", "/", {**headers, "via": "1.1 x " + decision.mapping.via_comment.decode()})
        there = pods["gray"].take(sent)
        assert there.sent
        pods["gray"].end(there, sent, paid, basket)
    pods["stable"].end(decision, head, paid, basket)


def without_exposures(pod: Pod) -> list[object]:
    return [
        (
            [[(each.weight, each.gray, each.stable) for each in series] for series in metric.series],
            [(step.gray.failures, step.stable.failures, *step[2:]) for step in metric.steps],
        )
        for metric in pod.found()
    ]


def key_of(pod: Pod, mapping: str) -> str:
    """A key of a version."""
    keys = (f"u{number}" for number in range(1000))
    return next(key for key in keys if pod.take(RequestHead("GET", "/", {"k": key})).mapping.name == mapping)


@pytest.mark.parametrize("seed", range(3))
def test_events_count_as_if_one_process_had_both_versions(folder: int, tmp_path: Path, seed: int) -> None:
    apart = {"stable": Pod(folder, "stable"), "gray": Pod(folder, "gray")}
    one = Pod(None, "stable", "gray")
    together = {"stable": one, "gray": one}
    random_ = random.Random(seed)
    for weight, visit in ((20.0, 1), (50.0, 2)):
        for pod in {*apart.values(), one}:
            pod.to(weight, visit)
        for _ in range(400):
            event = f"u{random_.randrange(60)}", random_.random() < 0.1, random_.choice((None, 10.0, 50.0, 51.0))
            chosen = "svc-gray" if random_.random() < 0.1 else ""
            for pods in (apart, together):
                serve(pods, *event, chosen)
        if visit == 1:
            assert apart["stable"].found() == one.found()
    # A key that has come to the other version since then counts there as one that nothing had happened to.
    assert without_exposures(apart["stable"]) == without_exposures(one)
    for metric in one.found()[1:]:
        assert all(step.gray.failures > 3 and step.gray.exposures > 10 for step in metric.steps)


def test_thresholds_of_values_need_both_versions(folder: int) -> None:
    pods = {"stable": Pod(folder, "stable", rules=RULES), "gray": Pod(folder, "gray", rules=RULES)}

    def limits() -> set[str]:
        for pod in pods.values():
            pod.metrics.tick()
        return {*register.read(folder)["r"].limits}

    stable, gray = (key_of(pods["stable"], name) for name in ("svc", "svc-gray"))
    for number in range(MIN_TIMES):
        serve(pods, stable, paid=False, basket=number)
    assert limits() == set()
    serve(pods, gray, paid=False, basket=7)
    assert limits() == {"value basket above p50", "value basket above p90"}


def test_what_a_process_of_one_version_sees_gives_no_threshold_and_what_comes_late_is_kept(folder: int) -> None:
    """Also where those of one side fill all that is kept."""
    both = Pod(folder, "stable", "gray", rules=RULES)
    stable, gray = (key_of(both, name) for name in ("svc", "svc-gray"))
    for number in range(MIN_TIMES + 10):
        serve({"stable": both, "gray": both}, stable, paid=False, basket=number)
    both.metrics.tick()
    assert register.read(folder)["r"].limits == {}
    for _ in range(2):
        serve({"stable": both, "gray": both}, gray, paid=False, basket=7)
    both.metrics.tick()
    assert set(register.read(folder)["r"].limits) == {"value basket above p50", "value basket above p90"}
