"""The evidence that pods give to each other: their union, what is kept of pods that are gone, and what is refused."""

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from seen_pods import QUANTILES, VALUES, SeenPod, folders

from canary_mw.exceptions import EvidenceRefused
from canary_mw.observability.attempts import keys, register
from canary_mw.observability.attempts.register import MIN_TIMES
from canary_mw.observability.figures.layout import FORMAT
from canary_mw.observability.peers import kept, wire
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.findings import MetricEvidence
from canary_mw.rollout.state import ReleaseState


class Clock:
    """The second at which a key is kept; another one for each request."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(keys, "time", found)
    return found


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Sequence[int]]:
    """Run folders of pods."""
    with folders(tmp_path, 4) as found:
        yield found


def metric(pod: SeenPod, name: str = "error_rate") -> MetricEvidence:
    return next(each for each in pod.found().variants["svc-gray"].metrics if each.metric.name == name)


def firsts(pod: SeenPod, name: str = "error_rate") -> tuple[int, int]:
    """Keys that have failed, in gray and in stable."""
    (series,) = metric(pod, name).series
    return sum(each.gray for each in series), sum(each.stable for each in series)


def without_exposures(found: ReleaseEvidence) -> Any:
    """What does not depend on which pod has seen a key after it had failed."""
    variant = found.variants["svc-gray"]
    metrics = [
        (
            each.metric.name,
            [[(epoch.weight, epoch.gray, epoch.stable) for epoch in series] for series in each.series],
            [(step.gray.failures, step.stable.failures, *step[2:]) for step in each.steps],
        )
        for each in variant.metrics
    ]
    # Each worker keeps as many keys of gray as the step waits for.
    return found.attempt, metrics, variant.seen, min(variant.gray_keys, 10)


def exposures(pod: SeenPod) -> Any:
    metrics = pod.found().variants["svc-gray"].metrics
    return [(each.series, [(step.gray, step.stable) for step in each.steps]) for each in metrics]


@pytest.mark.parametrize("sticky", [True, False], ids=["each key at one pod", "keys at all pods"])
@pytest.mark.parametrize("seed", range(2))
def test_the_union_of_pods_is_one_process(runs: Sequence[int], clock: Clock, seed: int, *, sticky: bool) -> None:
    random_ = random.Random(seed)
    # Two workers of one pod, a pod with one, and one without a run folder.
    pods = [SeenPod(runs[0]), SeenPod(runs[0]), SeenPod(runs[1]), SeenPod(None)]
    one = SeenPod(runs[2], shared=False)
    weights = [(20.0, 1), (50.0, 2), (35.0, 3)]
    for weight, visit in weights:
        for each in (*pods, one):
            each.to(weight, visit=visit)
        for _ in range(100):
            clock.now += 1
            number = random_.randrange(80)
            place = number % 4 if sticky else random_.randrange(4)
            failed, slow = random_.random() < 0.1, random_.random() < 0.1
            for each in (pods[place], one):
                each.ask(f"u{number}", failed=failed, first_byte=0.2 if slow else 0.01)
        if random_.random() < 0.7:
            # Whoever controls hears of it again and again, and each time of all.
            pods[0].hear(pods[2], pods[3])
    pods[0].hear(pods[2], pods[3])
    assert without_exposures(pods[0].found()) == without_exposures(one.found())
    assert firsts(one)[0] > 3
    if sticky:
        assert exposures(pods[0]) == exposures(one)
    # All workers of the pod that controls show the same.
    assert pods[1].found() == pods[0].found()


def test_values_count_over_all_pods_and_the_first_ones_go_along(runs: Sequence[int]) -> None:
    pods = [SeenPod(run, rules=VALUES) for run in runs[:2]]
    for pod in pods:
        for number in range(MIN_TIMES):
            pod.ask(f"first-{number}", basket=number)
    # Before it has found thresholds a pod gives its first values.
    pods[0].hear(pods[1])
    for pod in pods:
        pod.metrics.tick()
        for number in range(40):
            pod.ask(f"u{number}", basket=1e6)
    pods[0].hear(pods[1])
    # Each of the 40 counts once, for both thresholds.
    assert [sum(each.gray + each.stable for each in series) for series in metric(pods[0], "basket").series] == [40, 40]


def test_a_key_that_fails_at_two_pods_counts_once_where_it_failed_first(runs: Sequence[int], clock: Clock) -> None:
    pods = [SeenPod(run) for run in runs[:2]]
    key = next(name for name in (f"u{number}" for number in range(10**6)) if pods[0].ask(name) == "svc-gray")
    for each, weight, second in ((pods[0], 20.0, 7), (pods[1], 50.0, 5)):
        each.to(weight)
        clock.now = 1_000_000.0 + second
        assert each.ask(key, failed=True) == "svc-gray"
    pods[0].hear(pods[1])
    (series,) = metric(pods[0]).series
    assert {round(each.weight, 2): each.gray for each in series} == {0.2: 0, 0.5: 1}


def test_who_knows_the_evidence_gets_none_until_there_is_more(runs: Sequence[int]) -> None:
    pod = SeenPod(runs[0])
    empty = pod.evidence.give(["r"], "")
    assert empty.data is not None
    pod.ask("u1")
    given = pod.evidence.give(["r"], empty.cursor)
    assert given.data is not None
    assert given.cursor != empty.cursor
    assert pod.evidence.give(["r"], given.cursor) == (given.cursor, None)
    # What another worker of the pod counts is that of the pod.
    SeenPod(runs[0]).ask("u2")
    assert pod.evidence.give(["r"], given.cursor).data is not None
    # Nobody asks about releases that are not in force.
    assert wire.unpacked(pod.evidence.give([], "").data or b"")[1] == []


def test_an_attempt_counts_by_its_number_in_the_state_and_not_by_that_of_a_pod(runs: Sequence[int]) -> None:
    pods = [SeenPod(run) for run in runs[:2]]
    pods[1].to(20.0, attempt=4)
    pods[1].to(20.0, attempt=5)
    pods[0].to(20.0, attempt=5)
    for number in range(200):
        pods[number % 2].ask(f"u{number}", failed=True)
    pods[0].hear(pods[1])
    assert sum(firsts(pods[0])) == 200


def test_evidence_of_another_attempt_is_none_of_this_one(runs: Sequence[int]) -> None:
    pods = [SeenPod(run) for run in runs[:3]]
    for number in range(50):
        pods[1].ask(f"u{number}", failed=True)
    old = pods[1].give()
    pods[0].to(20.0, attempt=4)
    pods[0].ask("v1", failed=True)
    pods[0].evidence.take(old)
    assert sum(firsts(pods[0])) == 1
    pods[1].to(20.0, attempt=4)
    pods[1].ask("v2", failed=True)
    pods[0].hear(pods[1])
    # It comes late: a pod never goes back.
    pods[0].evidence.take(old)
    assert sum(firsts(pods[0])) == 2


def test_the_evidence_of_a_pod_that_is_gone_counts_for_the_next_worker_too(runs: Sequence[int], tmp_path: Path) -> None:
    pods = [SeenPod(run) for run in runs[:2]]
    for number in range(20):
        pods[1].ask(f"u{number}", failed=True)
    pods[0].hear(pods[1])
    assert list(tmp_path.glob("run-0/peer-*.evidence"))
    assert sum(firsts(SeenPod(runs[0]))) == 20
    # With the next attempt it is forgotten, and its file too.
    pods[0].to(20.0, attempt=4)
    pods[0].found()
    assert not list(tmp_path.glob("run-0/peer-*.evidence"))


@pytest.mark.parametrize("knows", [True, False], ids=["hears of pods", "hears of none"])
def test_who_takes_over_counts_nobody_twice(runs: Sequence[int], *, knows: bool) -> None:
    pods = [SeenPod(run) for run in runs[:3]]
    for number in range(30):
        pods[number % 3].ask(f"u{number}", failed=True)
    pods[0].hear(*pods[1:])
    stored = pods[0].evidence.exported("r", 3)
    # The next one, which has seen requests itself since.
    pods[1].ask("new", failed=True)
    pods[2].ask("newer", failed=True)
    if knows:
        pods[1].hear(pods[2])
    assert pods[1].evidence.restore(stored)
    assert sum(firsts(pods[1])) == (32 if knows else 31)
    requests = metric(pods[1]).steps[0]
    assert requests.gray_requests + requests.stable_requests == (32 if knows else 31)


def test_what_was_stored_by_one_process_alone_is_no_evidence_of_pods(runs: Sequence[int]) -> None:
    alone, pod = SeenPod(runs[0], shared=False), SeenPod(runs[1])
    alone.ask("u1", failed=True)
    assert pod.evidence.restore(alone.evidence.exported("r", 3))
    pod.ask("u2", failed=True)
    assert sum(firsts(pod)) == 1


def test_what_is_too_much_is_thinned_out_alike_in_all_pods(runs: Sequence[int]) -> None:
    pods = [SeenPod(run) for run in runs[:2]]
    for number in range(1200):
        pods[number % 2].ask(f"u{number}", failed=True)
    whole = pods[1].give()
    _, exports = wire.unpacked(whole)
    small = wire.packed("abc", [each._replace(pod="abc") for each in exports], len(whole) // 3)
    assert len(small) <= len(whole) // 3
    pods[0].evidence.take(small)
    gray, stable = firsts(pods[0])
    # About a fourth of 1,200 keys, of whom a fifth was in gray.
    assert 200 < gray + stable < 400
    assert 0.1 < gray / (gray + stable) < 0.3


def test_there_is_an_end_to_what_is_kept(runs: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_PODS", 2)
    pods = [SeenPod(run) for run in runs]
    for number, each in enumerate(pods):
        each.ask(f"u{number}", failed=True)
    pods[0].hear(*pods[1:3])
    with pytest.raises(EvidenceRefused, match="no room for it beside that of 2 pods"):
        pods[0].hear(pods[3])
    assert sum(firsts(pods[0])) == 3


def test_a_pod_knows_itself_and_gives_nothing_of_others(runs: Sequence[int]) -> None:
    pods = [SeenPod(run) for run in runs[:2]]
    pods[1].ask("u1", failed=True)
    pods[0].hear(pods[1])
    assert pods[0].evidence.take(pods[0].give())
    assert pods[0].evidence.take(SeenPod(runs[0]).give())
    _, exports = wire.unpacked(pods[0].give())
    _, others = wire.unpacked(pods[1].give())
    with pytest.raises(EvidenceRefused, match="that of another pod"):
        pods[0].evidence.take(wire.packed("somebody", [*exports, *others]))
    assert sum(firsts(pods[0])) == 1


def packed(head: Any, *lines: tuple[Any, bytes]) -> bytes:
    """An answer as a peer may make it up."""
    found = json.dumps(head).encode() + b"\n"
    return gzip.compress(found + b"".join(json.dumps(line).encode() + b"\n" + content for line, content in lines))


HEAD = {"format": FORMAT, "pod": "abc", "attempts": 1}
LINE = {"pod": "abc", "name": "r", "attempt": [1, "", True, 1.0, {}, 3], "bytes": 0}
HOSTILE = {
    "nothing": b"",
    "no gzip": b"<html>it works</html>",
    "cut short": gzip.compress(b"x" * 1000)[:-9],
    "more behind it": packed({**HEAD, "attempts": 0}) + b"more",
    "too long": random.Random(1).randbytes((1 << 20) + 1),
    "a bomb": gzip.compress(bytes(32 << 20)),
    "no JSON": gzip.compress(b"x\n"),
    "no line": gzip.compress(b"1" * 100_000),
    "deep JSON": gzip.compress(b"[" * 60_000 + b"\n"),
    "a list": packed([]),
    "another format": packed({**HEAD, "format": FORMAT + 1}),
    "fewer attempts than it says": packed({**HEAD, "attempts": 1 << 60}),
    "a path as pod": packed({**HEAD, "pod": "../x", "attempts": 0}),
    "no pod": packed({**HEAD, "pod": "", "attempts": 0}),
    "an empty file": packed(HEAD, (LINE, b"")),
    "a negative size": packed(HEAD, ({**LINE, "bytes": -4096}, bytes(4096))),
    "a file of zeros": packed(HEAD, ({**LINE, "bytes": 4096}, bytes(4096))),
    "attempt 0": packed(HEAD, ({**LINE, "attempt": [1, "", True, 1.0, {}, 0]}, b"")),
}


def test_what_is_no_evidence_is_refused_and_harms_nothing(runs: Sequence[int]) -> None:
    pod = SeenPod(runs[0])
    pod.ask("u1", failed=True)
    for name, data in HOSTILE.items():
        with pytest.raises(EvidenceRefused) as refused:
            pod.evidence.take(data)
        assert len(str(refused.value)) < 100, name
        # The same where it was stored.
        assert pod.evidence.restore(data), name
    assert sum(firsts(pod)) == 1


def test_evidence_that_was_damaged_is_refused_or_can_be_read(runs: Sequence[int]) -> None:
    random_ = random.Random(7)
    pods = [SeenPod(runs[0]), SeenPod(runs[1])]
    for number in range(30):
        pods[1].ask(f"u{number}", failed=number % 3 == 0)
    plain = gzip.decompress(pods[1].give())
    refused = 0
    for _ in range(60):
        damaged = bytearray(plain)
        for _ in range(random_.choice((1, 1, 8))):
            # Most of a file of figures is its first page.
            damaged[random_.choice((random_.randrange(len(plain)), random_.randrange(4200, len(plain))))] = (
                random_.choice((0, 0xFF, 0x80, random_.randrange(256)))
            )
        try:
            pods[0].evidence.take(gzip.compress(bytes(damaged), 1))
        except EvidenceRefused:
            refused += 1
        pods[0].found()
        pods[0].evidence.exported("r", 3)
    assert refused > 5


def slow(pod: SeenPod) -> int:
    return sum(each.gray + each.stable for series in metric(pod, "latency").series for each in series)


@pytest.mark.parametrize("private", [False, True], ids=["run folder", "memory"])
def test_thresholds_are_those_of_the_first_answers_of_all_pods(
    runs: Sequence[int], monkeypatch: pytest.MonkeyPatch, *, private: bool
) -> None:
    monkeypatch.setattr(register, "MIN_TIMES", 40)
    pods = [SeenPod(None if private else run, rules=QUANTILES) for run in runs[:2]]
    document = pods[0].store.table.documents.in_force[0]
    state = ReleaseState(name="r", attempt=3, phase="Progressing", visit=1)
    for number in range(60):
        pods[number % 2].ask(f"u{number}", first_byte=(number + 1) / 100)
    for each in pods:
        each.evidence.tick(each.store)
        each.metrics.tick()
    # Each has seen 30; alone they find nothing, and together what one process would find.
    assert pods[0].evidence.thresholds(document, state) == {}
    pods[0].hear(pods[1])
    found = pods[0].evidence.thresholds(document, state)
    assert found == {"p90 less 0.01s 0": 0.54}
    for number in range(60):
        pods[0].ask(f"more{number}", first_byte=9.0)
    pods[0].evidence.tick(pods[0].store)
    pods[0].metrics.tick()
    assert slow(pods[0]) == 0, "who has enough answers of its own takes no threshold of its own"
    state = replace(state, limits=found)
    assert pods[0].evidence.thresholds(document, state) == {}
    for each in pods:
        # The second look sees that it is settled.
        each.evidence.settle(state)
        each.evidence.settle(state)
        each.metrics.tick()
    for number, each in enumerate(pods):
        each.ask(f"slow{number}", first_byte=0.56)
        each.ask(f"fast{number}", first_byte=0.53)
    pods[0].hear(pods[1])
    assert slow(pods[0]) == 2
    # A release that another attempt is of by now is judged by nothing of this one.
    pods[1].to(20.0, attempt=4)
    pods[1].evidence.settle(state)
    pods[1].metrics.tick()
    assert pods[1].evidence.thresholds(document, replace(state, attempt=4, limits={})) == {}
