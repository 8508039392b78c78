"""Pods that count requests of one release, for tests of the evidence that they give to each other."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from canary_mw.control.rollouts.evidence import FiguresEvidence
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts.layout import SCALE
from canary_mw.observability.prometheus import Metrics
from canary_mw.rollout.evidence import ReleaseEvidence
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
salt: s
stable: svc
gray: [svc-gray]
sticky: [{header: k}]
steps: [{setWeight: 20}, {pause: {}}, {setWeight: 50}, {pause: {}}, {setWeight: 100}]
analysis: {minimum_keys: 10, metrics: [{name: error_rate}, {name: latency, threshold: 100ms}]}
"""
VALUES = RULES.replace("{name: latency, threshold: 100ms}", "{name: basket, kind: value}")
QUANTILES = RULES.replace("threshold: 100ms", "quantiles: [p90]")


class Opened(NamedTuple):
    descriptor: int


class SeenPod:
    """A process that counts, and can control; processes of the same folder are workers of one pod.

    Args:
        folder: the descriptor of its run folder.
        shared: whether there are other pods.
    """

    def __init__(self, folder: int | None, *, shared: bool = True, rules: str = RULES, attempt: int = 3) -> None:
        self.metrics = Metrics((lambda: Opened(folder)) if folder is not None else lambda: None)
        self.metrics.start()
        self.store = RuleStore(StaticSource(rules), observers=[self.metrics])
        self.store.reload()
        assert self.store.error is None
        self.evidence = FiguresEvidence(lambda: self.metrics, shared=shared)
        self.attempt = attempt
        self.to(20.0)

    def to(self, weight: float, *, visit: int = 1, attempt: int | None = None) -> None:
        """Another weight is in force."""
        self.attempt = attempt or self.attempt
        self.visit = visit
        self.store.override({"r": Override(weights={"svc-gray": weight}, attempt=self.attempt, step=visit)})

    def ask(self, key: str, *, failed: bool = False, first_byte: float = 0.01, basket: float | None = None) -> str:
        """A request, whose app may record a value; which variant it got."""
        head = RequestHead("GET", "/", {"k": key})
        head.client = f"10.{len(key)}.{sum(key.encode()) % 250}.1"
        failure = "500" if failed else None
        decision = decide(self.store.table, head, 50.0)
        assert decision is not None
        assert decision.release is not None
        if basket is not None:
            self.metrics.record(decision.release, "basket", head.client, round(basket * SCALE))
        self.metrics.count(decision, head, 500 if failure else 200, 0.02, first_byte, 0, failure)
        return decision.release.variant or "stable"

    def give(self, cursor: str = "") -> bytes:
        """What it gives to others."""
        data = self.evidence.give(["r"], cursor).data
        assert data is not None
        return data

    def hear(self, *others: "SeenPod") -> None:
        """Take over what others have seen."""
        for each in others:
            assert not self.evidence.take(each.give())

    def found(self) -> ReleaseEvidence:
        """The evidence as it controls by it."""
        state = ReleaseState(name="r", attempt=self.attempt, phase="Progressing", visit=self.visit)
        self.evidence.forget()
        found = self.evidence.of(self.store.table.documents.in_force[0], state)
        assert found is not None
        return found


@contextlib.contextmanager
def folders(path: Path, count: int) -> Iterator[Sequence[int]]:
    """Run folders."""
    found = []
    for number in range(count):
        (path / f"run-{number}").mkdir(exist_ok=True)
        found.append(os.open(path / f"run-{number}", os.O_RDONLY | os.O_DIRECTORY))
    try:
        yield found
    finally:
        for each in found:
            os.close(each)
