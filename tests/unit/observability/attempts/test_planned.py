"""Evidence of releases with a plan: steps, keys that were seen, thresholds of the document, events, networks."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from struct import Struct
from typing import Any, NamedTuple

import pytest

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts import checkpoint, keys, register, writer
from canary_mw.observability.attempts.keys import network_of
from canary_mw.observability.attempts.layout import SCALE
from canary_mw.observability.attempts.register import MIN_TIMES
from canary_mw.observability.attempts.release_evidence import release_evidence
from canary_mw.observability.events import Reloaded
from canary_mw.observability.figures import layout
from canary_mw.observability.figures.layout import FORMAT, Header, Kind
from canary_mw.observability.figures.reader import read
from canary_mw.observability.figures.storage import Storage
from canary_mw.observability.prometheus import Metrics
from canary_mw.rollout.engine import Now, tick
from canary_mw.rollout.evidence import ReleaseEvidence, VariantEvidence
from canary_mw.rollout.findings import StepCounts
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.statistics import Arm, SeenKeys
from canary_mw.routing.assignment import CompiledRelease
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.person import NOBODY
from canary_mw.routing.releases.override import Override
from canary_mw.rules.epoch import subject_of
from canary_mw.rules.plan import Allowance, Analysis, MetricRule, Plan, Stage, plan_digest
from canary_mw.rules.release import GrayRelease

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
spec: {prefix: /svc/, service: gray, weight: 0}
---
apiVersion: canary-mw/v1
kind: GrayRelease
metadata: {name: r}
spec: {gray: {gray: 0}, sticky: [{header: k}], missing: roll}
"""
STORE = RuleStore(StaticSource(RULES))
STORE.reload()
WRITTEN = STORE.table.documents.in_force[0]
ANSWER = decide(STORE.table, RequestHead("GET", "/svc/", {}), 50.0)
assert ANSWER is not None
ERRORS = MetricRule("error_rate", "error_rate")
P95 = MetricRule("latency", "latency", quantiles=(0.95,))
SLOW = MetricRule("latency", "latency", threshold=0.1)
WEIGHTS = (1.0, 20.0, 50.0, 90.0)


def planned(*metrics: MetricRule, minimum_keys: int = 20, weights: Sequence[float] = WEIGHTS) -> GrayRelease:
    analysis = Analysis(metrics, minimum_keys=minimum_keys) if metrics else None
    stages = tuple(Stage({"gray": weight}, analysis=analysis) for weight in weights)
    return replace(WRITTEN, plan=Plan(stages=stages, items=len(stages), shares=(("gray", 1.0),)))


class Opened(NamedTuple):
    descriptor: int


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


class Clock:
    """The seconds at which keys are kept."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(keys, "time", found)
    return found


class Worker:
    """A process that draws requests of a release with a plan, and counts them."""

    def __init__(self, folder: int | None, document: GrayRelease, step: int = 0, attempt: int = 1) -> None:
        self.metrics = Metrics((lambda: Opened(folder)) if folder is not None else lambda: None)
        self.metrics.start()
        self.document = document
        self.to(step, attempt)

    def to(self, step: int, attempt: int = 1, weight: float | None = None) -> None:
        assert self.document.plan is not None
        weights = self.document.plan.stages[step].weights if weight is None else {"gray": weight}
        self.release = CompiledRelease(self.document, Override(weights=weights, attempt=attempt, step=step))
        self.metrics.reloaded(Reloaded(generation=1, epochs={"r": self.release.epoch}))

    def drawn(self, key: str, roll: float = 50.0) -> tuple[Decision, RequestHead]:
        head = RequestHead("GET", "/svc/", {"k": key} if key else {})
        assert ANSWER is not None
        return ANSWER.with_release(self.release.assign(head, NOBODY, roll)), head

    def ask(
        self,
        key: str,
        failure: str | None = None,
        first_byte: float = 0.01,
        *,
        client: str = "127.0.0.1",
        roll: float = 50.0,
        events: Sequence[str] = (),
        value: float = 1,
    ) -> str:
        decision, head = self.drawn(key, roll)
        head.client = client
        assert decision.release is not None
        for each in events:
            self.metrics.record(decision.release, each, client, round(value * SCALE))
        self.metrics.count(decision, head, 500 if failure else 200, 0.02, first_byte, 0, failure)
        return decision.release.variant or "stable"

    def keys(self, variant: str, count: int, start: int = 0) -> list[str]:
        names = (f"u{number}" for number in range(start, 10**9))
        found: list[str] = []
        while len(found) < count:
            key = next(names)
            if self.release.variant_of(key) == variant:
                found.append(key)
        return found

    def kill(self) -> None:
        assert self.metrics.figures.storage is not None
        self.metrics.figures.storage.close()

    def evidence(self, step: int = 0, attempt: int = 1) -> ReleaseEvidence:
        return release_evidence(self.metrics.evidence(), self.document, attempt, step, step)

    def gray(self, step: int = 0) -> VariantEvidence:
        return self.evidence(step).variants["gray"]


def counts(found: VariantEvidence, metric: str = "error_rate") -> StepCounts:
    return next(each for each in found.metrics if each.metric.name == metric).steps[0]


def test_a_step_counts_first_failures_and_exposures_of_its_own(folder: int) -> None:
    worker = Worker(folder, planned(ERRORS), step=1)
    (bad,) = worker.keys("gray", 1)
    (stable,) = worker.keys("stable", 1)
    for _ in range(3):
        worker.ask(bad, "500")
        worker.ask(stable)
    assert counts(worker.gray(1)) == StepCounts(Arm(1, 1), Arm(0, 3), 3, 3, 3, 0)
    worker.to(2)
    worker.ask(bad)
    worker.ask(bad, "502")
    worker.ask(bad)
    assert counts(worker.gray(2)) == StepCounts(Arm(1, 2), Arm(0, 0), 3, 1, 0, 0)
    # The attempt knows it as one failed key, in the step where it failed first.
    assert [each.gray for each in worker.gray(2).metrics[0].series[0]] == [1, 0]
    assert [each.gray_exposures for each in worker.gray(2).metrics[0].series[0]] == [1, 0]
    # Where the weight falls again, what the first time has shown of this step still counts.
    worker.to(1)
    worker.ask(bad, "500")
    assert counts(worker.gray(1)) == StepCounts(Arm(1, 1), Arm(0, 3), 4, 4, 3, 0)


def test_another_weight_within_a_step_is_another_epoch_of_the_same_step(folder: int) -> None:
    worker = Worker(folder, planned(ERRORS), step=1)
    (key,) = worker.keys("gray", 1)
    worker.ask(key, "500")
    worker.to(1, weight=30.0)
    worker.ask(key, "500")
    worker.ask(key)
    found = worker.gray(1)
    assert [(each.weight, each.gray) for each in found.metrics[0].series[0]] == [(0.2, 1), (0.3, 0)]
    assert counts(found) == StepCounts(Arm(1, 1), Arm(0, 0), 3, 2, 0, 0)


def test_keys_count_as_seen_where_they_came_first(folder: int) -> None:
    worker = Worker(folder, planned(ERRORS), step=1)
    early = [f"u{number}" for number in range(200)]
    for key in early * 2:
        worker.ask(key)
    first = worker.gray(1).seen
    assert first[0].gray + first[0].stable == 200
    worker.to(2)
    for number in range(300):
        worker.ask(f"u{number}")
    seen = worker.gray(2).seen
    assert seen[0] == first[0]
    assert seen[1].gray + seen[1].stable == 100
    for number in range(40):
        worker.ask("", roll=number * 2.5)
    seen = worker.gray(2).seen
    assert seen[1].gray + seen[1].stable == 140


def test_keys_that_were_seen_are_thinned_out_in_both_variants(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SEEN_CAP", 100)
    workers = [Worker(folder, planned(ERRORS), step=2) for _ in range(2)]
    for number in range(2000):
        workers[number % 2].ask(f"u{number}")
    (seen,) = workers[0].gray(2).seen
    assert 40 < seen.gray + seen.stable <= 200
    assert abs(seen.gray - seen.stable) < 50
    for worker in workers:
        worker.kill()
        assert workers[0].gray(2).seen == [seen]


def test_keys_of_gray_are_counted_up_to_the_number_that_the_step_waits_for(folder: int) -> None:
    workers = [Worker(folder, planned(ERRORS, minimum_keys=5), step=1) for _ in range(3)]
    gray = workers[0].keys("gray", 4)
    for worker in workers:
        for key in gray * 2:
            worker.ask(key)
        worker.ask(worker.keys("stable", 1)[0])
    assert workers[0].gray(1).gray_keys == 4
    workers[2].kill()
    for key in workers[0].keys("gray", 9):
        workers[0].ask(key)
    assert workers[0].gray(1).gray_keys >= 5
    for worker in workers[:2]:
        worker.to(2)
    assert workers[0].gray(2).gray_keys == 0
    workers[1].ask(gray[0])
    workers[1].ask("", roll=0.0)
    assert workers[0].gray(2).gray_keys == 2


def test_a_threshold_of_the_document_counts_from_the_first_request(folder: int) -> None:
    worker = Worker(folder, planned(SLOW._replace(allow=Allowance(0.01, 0.5))), step=2)
    (gray,), (stable,) = worker.keys("gray", 1), worker.keys("stable", 1)
    # Of gray 10 ms and a half of what is left are taken off.
    for seconds in (0.1, 0.159, 0.161, 0.5):
        worker.ask(gray, first_byte=seconds)
    for seconds in (0.099, 0.101):
        worker.ask(stable, first_byte=seconds)
    assert counts(worker.gray(2), "latency") == StepCounts(Arm(1, 3), Arm(1, 2), 4, 2, 2, 1)


def test_quantiles_of_the_document_are_taken_of_the_first_answers_less_what_gray_is_allowed(folder: int) -> None:
    rule = MetricRule("latency", "latency", quantiles=(0.5, 0.9), allow=Allowance(1.0))
    workers = [Worker(folder, planned(rule), step=2) for _ in range(2)]
    gray, stable = workers[0].keys("gray", 1)[0], workers[0].keys("stable", 1)[0]
    for number in range(MIN_TIMES // 2):
        workers[0].ask(gray, first_byte=2 + number / 1000)
        workers[1].ask(stable, first_byte=number / 1000)
    assert workers[0].gray(2).metrics[0].steps[0].gray == Arm(0, 0)
    for worker in workers:
        worker.metrics.tick()
    limits = {each.name: each.seconds for each in read(folder, 1e9).evidence["r"].thresholds}
    assert list(limits.values()) == [pytest.approx(0.999, abs=0.002), pytest.approx(1.799)]
    workers[0].ask(gray, first_byte=2.79)
    workers[0].ask(gray, first_byte=2.81)
    workers[1].ask(stable, first_byte=1.81)
    half, tenth = workers[0].gray(2).metrics[0].steps
    assert (half.gray, half.stable) == (Arm(1, 1), Arm(1, 1))
    assert (tenth.gray, tenth.stable, tenth.gray_requests) == (Arm(1, 2), Arm(1, 1), 2)


def test_what_is_measured_anew_has_shown_nothing_of_the_time_before(folder: int) -> None:
    worker = Worker(folder, planned(ERRORS), step=2)
    (key,) = worker.keys("gray", 1)
    for _ in range(10):
        worker.ask(key)
    worker.document = planned(ERRORS, SLOW)
    worker.to(2)
    worker.ask(key)
    found = worker.gray(2)
    assert (counts(found).gray, counts(found, "latency").gray) == (Arm(0, 11), Arm(0, 1))


@pytest.mark.parametrize("direction", ["increase", "decrease"])
def test_events_are_evidence_by_key(folder: int, direction: str) -> None:
    rule = MetricRule("bought", "event", direction)  # type: ignore[arg-type]
    worker = Worker(folder, planned(rule), step=2)
    one, other = worker.keys("gray", 2)
    worker.ask(one, events=["bought", "bought", "left"])
    worker.ask(one)
    worker.ask(one, events=["bought"])
    worker.ask(other, events=["left"])
    # Two in one request are two events of one key.
    assert counts(worker.gray(2), "bought") == StepCounts(Arm(1, 2), Arm(0, 0), 4, 3, 0, 0)
    worker.to(3)
    worker.ask(one, events=["bought"])
    worker.ask(one)
    assert counts(worker.gray(3), "bought") == StepCounts(Arm(1, 1), Arm(0, 0), 2, 1, 0, 0)
    assert [(each.gray, each.gray_exposures) for each in worker.gray(3).metrics[0].series[0]] == [(1, 2), (0, 0)]


@pytest.mark.parametrize(("direction", "counted"), [("increase", [50.001, 1e12]), ("decrease", [50.0, 50.001, 1e12])])
def test_values_count_above_a_threshold_of_the_document_and_where_less_is_worse_at_it_too(
    folder: int, direction: Any, counted: list[float]
) -> None:
    rule = MetricRule("basket", "value", direction, threshold=50.0)
    worker = Worker(folder, planned(rule), step=2)
    values = [0.0, 49.999, 50.0, 50.001, 1e12]
    for key, value in zip(worker.keys("gray", len(values)), values, strict=True):
        worker.ask(key, events=["basket"], value=value)
        worker.ask(key, events=["other"], value=1e6)
        worker.ask(key)
    found = counts(worker.gray(2), "basket")
    # A request that brings a first value is an exposure, and those of its key after it are none.
    assert found == StepCounts(
        Arm(len(counted), 3 * (len(values) - len(counted)) + len(counted)), Arm(0, 0), 15, len(counted), 0, 0
    )


def test_thresholds_of_values_are_quantiles_of_the_first_ones_of_both_variants_in_all_workers(folder: int) -> None:
    rule = MetricRule("basket", "value", quantiles=(0.5, 0.9))
    workers = [Worker(folder, planned(rule), step=2) for _ in range(2)]
    gray, stable = workers[0].keys("gray", 1)[0], workers[0].keys("stable", 1)[0]
    for number in range(MIN_TIMES - 1):
        workers[number % 2].ask((gray, stable)[number // 2 % 2], events=["basket"], value=number / 8)
    for worker in workers:
        worker.metrics.tick()
    # Before there is a threshold nothing is judged.
    assert counts(workers[0].gray(2), "basket") == StepCounts(Arm(0, 0), Arm(0, 0), 0, 0, 0, 0)
    workers[1].ask(stable, events=["basket"], value=(MIN_TIMES - 1) / 8)
    for worker in reversed(workers):
        worker.metrics.tick()
    half, most = (MIN_TIMES // 2 - 1) / 8, (MIN_TIMES * 9 // 10 - 1) / 8
    limits = {"value basket above p50": half, "value basket above p90": most}
    assert register.read(folder)["r"].limits == limits
    one, other, third = workers[0].keys("gray", 4)[1:]
    workers[0].ask(one, events=["basket"], value=half)
    workers[0].ask(other, events=["basket"], value=half + 0.001)
    workers[1].ask(third, events=["basket"], value=most + 0.001)
    metric = workers[0].gray(2).metrics[0]
    assert [each.gray for each in metric.steps] == [Arm(2, 3), Arm(1, 3)]
    # They are no thresholds of answers.
    assert read(folder, 1e9).evidence["r"].thresholds == ()
    # An ended worker takes none of this along.
    workers[1].kill()
    assert workers[0].gray(2).metrics[0] == metric


def test_first_values_outlive_their_workers_and_their_folder(folder: int, tmp_path: Path) -> None:
    rule = MetricRule("basket", "value", "decrease", quantiles=(0.5,))
    ended = Worker(folder, planned(rule), step=2)
    for key in ended.keys("stable", 1200):
        ended.ask(key, events=["basket"], value=1e12)
    ended.kill()
    data = checkpoint.exported(folder, "r", 1)
    place = tmp_path / "next"
    place.mkdir()
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    worker = Worker(descriptor, planned(rule), step=2)
    assert checkpoint.restore(descriptor, data)
    for key in worker.keys("gray", 800):
        worker.ask(key, events=["basket"], value=7)
    worker.metrics.tick()
    assert register.read(descriptor)["r"].limits == {"value basket from p50": 1e12}
    os.close(descriptor)


@pytest.mark.parametrize(
    ("direction", "gray", "worse"),
    [("increase", 9, True), ("decrease", 9, False), ("increase", 1, False), ("decrease", 1, True)],
)
def test_values_take_gray_back_where_they_are_worse(folder: int, direction: Any, gray: float, worse: bool) -> None:
    document = planned(MetricRule("basket", "value", direction, threshold=5.0))
    assert document.plan is not None
    worker = Worker(folder, document, step=2)
    for variant, value in (("gray", gray), ("stable", 5.0 if direction == "decrease" else 1.0)):
        for key in worker.keys(variant, 30):
            worker.ask(key, events=["basket"], value=value)
    digest, subject = plan_digest(document.plan, 2), subject_of(document)
    at = {"gray": 50.0}
    state = ReleaseState(name="r", attempt=1, phase="Progressing", weights=at, step=2, plan=digest, subject=subject)
    outcome = tick(document, state, worker.evidence(2), Now(controller=True))
    assert outcome.verdict is not None
    assert outcome.verdict.kind == ("roll_back" if worse else "wait")
    if worse:
        assert outcome.state is not None
        assert (
            outcome.state.reason
            == {
                "increase": "the values of gray are larger (gray, basket): 30 keys were above the threshold in gray",
                "decrease": "the values of gray are smaller (gray, basket): 30 keys of stable reached the threshold",
            }[direction]
        )


def test_requests_without_a_key_are_keys_of_their_own_and_each_counts(folder: int) -> None:
    worker = Worker(folder, planned(ERRORS), step=2)
    for number in range(6):
        worker.ask("", "500" if number < 4 else None, roll=10.0)
    assert counts(worker.gray(2)) == StepCounts(Arm(4, 6), Arm(0, 0), 6, 4, 0, 0)


def test_few_failures_of_one_network_a_minute_count_towards_a_rollback_and_all_towards_the_bound(
    folder: int, clock: Clock
) -> None:
    workers = [Worker(folder, planned(ERRORS), step=2) for _ in range(2)]
    gray = workers[0].keys("gray", 400)
    for number in range(100):
        workers[number % 2].ask(gray[number], "500", client=f"10.1.2.{number}")
    for number in range(100, 130):
        workers[number % 2].ask(gray[number], "500", client=f"10.1.3.{number}")
    for number in range(130, 200):
        workers[number % 2].ask("", "500", client="2001:db8::1", roll=1.0)

    def failed() -> tuple[int, int]:
        found = workers[0].gray(2)
        return sum(each.gray for each in found.metrics[0].series[0]), counts(found).gray.failures

    assert failed() == (50 + 30 + 50, 200)
    clock.now += 60
    workers[0].ask(gray[300], "500", client="10.1.2.200")
    assert failed() == (131, 201)
    for worker in workers:
        worker.kill()
        assert failed() == (131, 201)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.254", True),
        ("10.0.0.1", "10.0.1.1", False),
        ("10.0.0.1", "::ffff:10.0.0.9", True),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::1", "0.0.0.1", False),
        (None, "no address", True),
        (None, "10.0.0.1", False),
    ],
)
def test_a_network_is_a_24_or_a_64(one: str | None, other: str | None, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_an_older_attempt_is_dropped(folder: int) -> None:
    old, new = Worker(folder, planned(ERRORS), step=2), Worker(folder, planned(ERRORS), step=2)
    (key,) = old.keys("gray", 1)
    old.ask(key, "500")
    new.to(1, attempt=2)
    old.ask(key, "500")
    new.ask(new.keys("gray", 1)[0])
    assert new.evidence(1, 2).attempt == 2
    assert counts(new.evidence(1, 2).variants["gray"]).gray == Arm(0, 1)
    assert new.evidence(2, 1) == ReleaseEvidence(attempt=2)
    # A worker that has not heard of it begins nothing anew when it reads its rules again.
    old.to(2, attempt=1)
    old.ask(key, "500")
    (series,) = new.evidence(1, 2).variants["gray"].metrics[0].series
    assert [(each.gray, each.gray_exposures) for each in series] == [(0, 1)]


def test_workers_that_start_one_after_the_other_count_for_one_attempt(folder: int) -> None:
    """Each reads its rules, in which a release with steps has no weight yet, before it reads the state."""
    workers = []
    for _ in range(4):
        workers.append(Worker(folder, planned(ERRORS)))
        workers[-1].to(0, attempt=0, weight=0.0)
        workers[-1].to(2, attempt=1)
    for number, worker in enumerate(workers):
        worker.ask(worker.keys("gray", 1, 100 * number)[0], "500")
    assert counts(workers[0].evidence(2).variants["gray"]).gray.failures == 4


def test_attempts_of_the_figures_and_those_of_a_state_are_not_mixed_up(folder: int) -> None:
    worker = Worker(folder, planned(ERRORS), step=2)
    (key,) = worker.keys("gray", 1)
    numbers = []
    for attempt in (0, 1, 0, 1):
        worker.to(2, attempt=attempt)
        worker.ask(key, "500")
        found = worker.metrics.evidence().releases["r"]
        numbers.append((found.stored, sum(arms["gray"].errors for arms in found.epochs.values())))
    assert numbers == [(False, 1), (True, 1), (False, 1), (True, 1)]


def test_a_release_without_analysis_keeps_what_every_release_shows_and_no_more(folder: int) -> None:
    worker = Worker(folder, planned(), step=2)
    (key,) = worker.keys("gray", 1)
    worker.ask(key, "500", events=["bought"])
    (arms,) = worker.metrics.evidence().releases["r"].epochs.values()
    assert (arms["gray"].errors, arms["gray"].seen, list(arms["gray"].measures)) == (1, 0, ["error_rate", "p95", "p99"])
    assert worker.gray(2) == VariantEvidence([], [SeenKeys(0.5, 0, 0)], 0)


def test_evidence_of_another_format_is_not_read_and_said(folder: int) -> None:
    workers = [Worker(folder, planned(ERRORS), step=2) for _ in range(2)]
    for worker in workers:
        worker.ask(worker.keys("gray", 1)[0])
    assert workers[0].evidence(2).readable
    workers[1].metrics.figures.header(Header.FORMAT, FORMAT + 1)
    found = workers[0].evidence(2)
    assert not found.readable
    assert counts(found.variants["gray"]).gray_requests == 1


def test_rows_of_workers_of_the_format_before_still_count(folder: int) -> None:
    workers = [Worker(folder, planned(ERRORS), step=2) for _ in range(2)]
    for worker in workers:
        worker.ask("u1")
    workers[1].metrics.figures.header(Header.FORMAT, FORMAT - 1)
    for _ in range(2):
        assert sum(row.requests for row in read(folder, 1e9).rows.values()) == 2
        workers[1].kill()


def test_a_release_without_evidence_has_none_yet(folder: int) -> None:
    worker = Worker(folder, planned(ERRORS), step=2)
    assert worker.evidence(2, 7) == ReleaseEvidence(attempt=7)


def test_evidence_of_one_process_needs_no_folder() -> None:
    worker = Worker(None, planned(ERRORS), step=2)
    worker.ask(worker.keys("gray", 1)[0], "500")
    assert counts(worker.gray(2)) == StepCounts(Arm(1, 1), Arm(0, 0), 1, 1, 0, 0)


def test_a_process_that_is_killed_while_it_thins_out_loses_no_key(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FAILED_CAP", 64)
    worker = Worker(folder, planned(ERRORS), step=2)
    for number in range(64):
        worker.ask(f"u{number}", "500", client=f"10.0.{number}.1")
    before = {each.gray + each.stable for each in worker.gray(2).metrics[0].series[0]}
    assert before == {64}
    looks: list[int] = []
    write = keys.KeyLog._write

    def looked(self: keys.KeyLog, new: Sequence[tuple[int, ...]]) -> bool:
        found = write(self, new)
        looks.append(sum(each.gray + each.stable for each in worker.gray(2).metrics[0].series[0]))
        return found

    monkeypatch.setattr(keys.KeyLog, "_write", looked)
    worker.ask("u64", "500")
    assert min(looks) >= 20
    assert looks[-1] == sum(each.gray + each.stable for each in worker.gray(2).metrics[0].series[0])
    monkeypatch.undo()


class Model:
    """What evidence is, in plain words: one process that forgets nothing."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[float, str]] = {}
        self.failed: dict[str, tuple[float, str]] = {}
        self.failed_in: dict[tuple[int, str], tuple[float, str]] = {}
        self.exposures: dict[tuple[float, str], int] = {}
        self.steps: dict[tuple[int, str], list[int]] = {}
        self.gray: dict[int, set[str]] = {}

    def ask(self, step: int, weight: float, key: str, variant: str, *, failed: bool) -> None:
        arm = weight, variant
        exposures, requests, bad = self.steps.setdefault((step, variant), [0, 0, 0])
        self.steps[step, variant] = [exposures + ((step, key) not in self.failed_in), requests + 1, bad + failed]
        self.exposures[arm] = self.exposures.get(arm, 0) + (key not in self.failed)
        self.seen.setdefault(key, arm)
        if failed:
            self.failed.setdefault(key, arm)
            self.failed_in.setdefault((step, key), arm)
        if variant == "gray":
            self.gray.setdefault(step, set()).add(key)

    def firsts(self, weight: float, variant: str) -> tuple[int, int, int]:
        arm = weight, variant
        return list(self.seen.values()).count(arm), list(self.failed.values()).count(arm), self.exposures.get(arm, 0)

    def in_step(self, step: int, variant: str) -> tuple[int, int, int, int]:
        failed = sum(1 for (at, _), arm in self.failed_in.items() if at == step and arm[1] == variant)
        exposures, requests, bad = self.steps.get((step, variant), (0, 0, 0))
        return failed, exposures, requests, bad


def stream(seed: int) -> Iterator[tuple[int, float, str, bool]]:
    """Steps, weights, keys and failures."""
    random = Random(seed)
    for step, weight in ((0, 1.0), (1, 20.0), (1, 35.0), (2, 50.0), (1, 20.0), (3, 90.0)):
        for _ in range(100):
            yield step, weight, f"u{random.randrange(120)}", random.random() < 0.2


@pytest.mark.parametrize(("seed", "workers"), [(0, 1), (1, 3), (2, 3)])
def test_evidence_is_that_of_a_plain_model(folder: int, clock: Clock, seed: int, workers: int) -> None:
    """Each key stays with its worker, as with connections that are kept: then exposures are exact, too."""
    random, model = Random(seed), Model()
    running = [Worker(folder, planned(ERRORS, minimum_keys=1000)) for _ in range(workers)]
    at = None
    for step, weight, key, failed in stream(seed):
        if at != (step, weight):
            at = step, weight
            for each in running:
                each.to(step, weight=weight)
        # The networks are many, so that all failures count.
        variant = running[hash(key) % workers].ask(
            key, "500" if failed else None, client=f"10.0.{random.randrange(200)}.1"
        )
        model.ask(step, weight, key, variant, failed=failed)
        clock.now += 1
    for each in running[1:]:
        each.kill()
    for step in range(4):
        found = running[0].gray(step)
        told = counts(found)
        assert (*told.gray, told.gray_requests, told.gray_bad) == model.in_step(step, "gray")
        assert (*told.stable, told.stable_requests, told.stable_bad) == model.in_step(step, "stable")
        assert found.gray_keys == len(model.gray.get(step, ()))
    by_weight: dict[float, list[tuple[int, ...]]] = {}
    for epoch, seen in zip(found.metrics[0].series[0], found.seen, strict=True):
        gray, stable = by_weight.setdefault(epoch.weight, [(0, 0, 0), (0, 0, 0)])
        by_weight[epoch.weight] = [
            tuple(map(sum, zip(gray, (seen.gray, epoch.gray, epoch.gray_exposures), strict=True))),
            tuple(map(sum, zip(stable, (seen.stable, epoch.stable, epoch.stable_exposures), strict=True))),
        ]
    assert by_weight == {
        weight / 100: [model.firsts(weight, "gray"), model.firsts(weight, "stable")]
        for weight in (1.0, 20.0, 35.0, 50.0, 90.0)
    }


@pytest.mark.parametrize("seed", range(3))
def test_the_union_of_workers_is_one_process(tmp_path: Path, clock: Clock, seed: int) -> None:
    """Keys go to workers as it comes, workers are killed, and files are read in any order."""
    random = Random(seed)
    folders = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)]
    (tmp_path / "alone").mkdir()
    folders.append(os.open(tmp_path / "alone", os.O_RDONLY | os.O_DIRECTORY))
    alone = Worker(folders[1], planned(ERRORS, SLOW))
    running = [Worker(folders[0], planned(ERRORS, SLOW)) for _ in range(4)]
    at = None
    for step, weight, key, failed in stream(seed):
        if at != (step, weight):
            at = step, weight
            for each in (alone, *running):
                each.to(step, weight=weight)
        asked = key, "500" if failed else None, random.choice((0.01, 0.2))
        client = f"10.0.{random.randrange(2)}.1"
        alone.ask(*asked, client=client)
        random.choice(running).ask(*asked, client=client)
        clock.now += 0.3

    def told(worker: Worker, step: int) -> list[object]:
        found = worker.gray(step)
        series = [[(each.gray, each.stable) for each in one] for metric in found.metrics for one in metric.series]
        steps = [
            (each.gray.failures, each.stable.failures, *each[2:]) for metric in found.metrics for each in metric.steps
        ]
        return [series, steps, found.seen, min(found.gray_keys, 20)]

    expected = [told(alone, step) for step in range(4)]
    random.shuffle(running)
    for worker in running:
        assert [told(worker, step) for step in range(4)] == expected
        worker.kill()
    assert [told(running[0], step) for step in range(4)] == expected
    for opened in folders:
        os.close(opened)


def test_attempts_that_are_over_leave_their_memory_to_later_ones(folder: int) -> None:
    worker, other = Worker(folder, planned(ERRORS)), Worker(folder, planned(ERRORS))
    sizes = []
    for attempt in range(1, 12):
        worker.to(2, attempt)
        other.to(2, attempt)
        for number in range(400):
            worker.ask(f"u{number}", "500" if number % 2 else None, client=f"10.{number}.0.1")
        other.ask("u1")
        found = worker.evidence(2, attempt).variants["gray"]
        told = counts(found)
        assert told.gray_requests + told.stable_requests == 401
        assert sum(each.gray + each.stable for each in found.seen) == 400
        assert told.gray.failures + told.stable.failures == 200
        assert worker.metrics.figures.storage is not None
        sizes.append(worker.metrics.figures.storage.header[Header.USED])
    # Two attempts at most lie beside each other, and the numbers of later ones are longer.
    assert sizes[-1] < 1.1 * sizes[1]
    # Rows are not evidence: they stay.
    assert sum(row.requests for row in read(folder, 1e9).rows.values()) == 11 * 401
    worker.kill()
    assert counts(other.evidence(2, 11).variants["gray"]) == told


def test_a_record_in_the_place_of_another_is_whole_at_every_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, looks = Storage(), []
    before = storage.allocate(Kind.KEYS, ("a" * 50, "1"), 400)
    last = storage.allocate(Kind.ARM, ("z",), 32)
    assert before is not None
    assert last is not None
    before[:] = bytes([255]) * 400
    storage.release(Kind.KEYS, ("a" * 50, "1"))
    pack, kind = layout._RECORD, layout._KIND

    class Looking:
        """Looks at the records after each write."""

        def __init__(self, packer: Struct) -> None:
            self.size, self._packer, self.unpack_from = packer.size, packer, packer.unpack_from

        def pack_into(self, target: memoryview, offset: int, *values: int) -> None:
            self._packer.pack_into(target, offset, *values)
            looks.append([(each.kind, each.key, bytes(each.cells)) for each in layout.records(storage.content())])

    monkeypatch.setattr(layout, "_RECORD", Looking(pack))
    monkeypatch.setattr(layout, "_KIND", Looking(kind))
    for name, size in (("b", 40), ("c", 8)):
        cells = storage.allocate(Kind.ARM, (name, "2"), size)
        assert cells is not None
        assert bytes(cells) == bytes(size)
    known = [(Kind.ARM, ("b", "2"), bytes(40)), (Kind.ARM, ("c", "2"), bytes(8)), (Kind.ARM, ("z",), bytes(32))]
    for each in looks:
        assert each in ([known[2]], [known[0], known[2]], known)
    assert looks[-1] == known


def test_arms_are_bounded_and_their_numbers_are_used_again(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MAX_ARMS", 6)
    worker = Worker(folder, planned(ERRORS))
    gray, stable = "u1", "u2"
    for attempt in range(1, 9):
        for weight in (10.0, 20.0, 30.0, 40.0):
            worker.to(2, attempt, weight)
            gray, stable = worker.keys("gray", 1)[0], worker.keys("stable", 1)[0]
            worker.ask(gray, "500")
            worker.ask(stable)
        found = worker.evidence(2, attempt).variants["gray"]
        # What is beyond the bound is not counted, and no key counts in the arm of another.
        assert counts(found).gray_requests + counts(found).stable_requests == 6
        first = found.metrics[0].series[0][0]
        assert (first.weight, first.gray) == (0.1, 1)


def test_counters_never_lie_in_the_place_of_evidence(folder: int) -> None:
    worker = Worker(folder, planned(ERRORS))
    worker.to(2, 1)
    for number in range(200):
        worker.ask(f"u{number}", "500")
    worker.metrics.tally("events", "first")
    worker.to(2, 2)
    names = [f"n{number}" for number in range(20)]
    for name in names:
        worker.metrics.tally("events", name)
    assert worker.metrics.figures.storage is not None
    kept = layout.records(worker.metrics.figures.storage.content())
    found = [each.key for each in kept if each.kind == Kind.COUNTER and each.key[0] == "events"]
    assert found == [("events", name) for name in ["first", *names]]


def test_an_unused_record_is_given_to_one_alone() -> None:
    storage, names = Storage(), ("a", "b", "c")
    for name in names:
        storage.allocate(Kind.KEYS, (name, "1"), 64)
    for name in names:
        storage.release(Kind.KEYS, (name, "1"))
    found = [storage.allocate(Kind.KEYS, ("z", str(number)), 64) for number in range(4)]
    for number, cells in enumerate(found):
        assert cells is not None
        cells[:] = bytes([number]) * 64
    assert [bytes(each.cells) for each in layout.records(storage.content()) if each.key[0] == "z"] == [
        bytes([number]) * 64 for number in (0, 1, 2, 3)
    ]
