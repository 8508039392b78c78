"""The short way to count a request says the same as the long one."""

import pytest

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.http.messages import RequestHead
from canary_mw.observability import counters
from canary_mw.observability.figures.values import Figures
from canary_mw.observability.prometheus import Metrics
from canary_mw.routing.decision import decide

RULES = """
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: svc}
spec: {prefix: /svc/, service: svc}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: gray}
spec: {prefix: /svc/, service: gray, weight: 20}
"""
ASKED = [(200, 0.0, 0), (204, 1e-5, 3), (304, 0.02, 10), (404, 1.0, 10**6), (200, 1000.0, 1)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def counted(monkeypatch: pytest.MonkeyPatch, *, at_once: bool) -> Figures:
    clock = Clock()
    monkeypatch.setattr(counters, "perf_counter", clock)
    metrics = Metrics()
    store = RuleStore(StaticSource(RULES), observers=[metrics])
    metrics.start()
    store.reload()
    for roll in (10.0, 50.0):
        head = RequestHead("GET", "/svc/a?b=c", {"host": "shop"})
        decision = decide(store.table, head, roll)
        assert decision is not None
        for status, seconds, size in ASKED:
            clock.now += 1000
            if at_once:
                since = metrics.begin_now()
                clock.now = since + seconds
                metrics.count_at_once(decision, head, status, since, size)
            else:
                metrics.begin()
                taken = clock.now + seconds - clock.now
                metrics.count(decision, head, status, taken, taken, size)
                metrics.sample.take(decision, head, status, taken, taken, None, 0.0, failed=False)
        metrics.begin_now()
    return metrics.read(1e9)


def test_all_figures_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = (counted(monkeypatch, at_once=each) for each in (True, False))
    assert short.rows == long.rows
    assert sum(row.requests for row in short.rows.values()) == 2 * len(ASKED)
    assert (short.counters, short.gauges) == (long.counters, long.gauges)
    recent = [sorted(each._replace(time=0) for each in figures.recent) for figures in (short, long)]
    assert recent[0] == recent[1]
    epochs = [list(figures.evidence["svc"].epochs.values()) for figures in (short, long)]
    assert epochs[0] == epochs[1]
    assert short.gauges == {"in_flight": 2}
