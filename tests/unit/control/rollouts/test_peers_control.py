"""What a process does by what it knows of other pods: hold, judge alone, tell all, and take nothing for granted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import log
from pathlib import Path

import pytest
from plans import RULES, Clock, Evidence

from canary_mw.control.rollouts.controller import Controller
from canary_mw.control.rollouts.inputs import Heard
from canary_mw.control.rollouts.peers.thresholds import agree
from canary_mw.control.rollouts.place import Place
from canary_mw.control.rollouts.settings import Surroundings
from canary_mw.control.rollouts.standing import standing_of
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.options import Arguments, Options, options_of
from canary_mw.middleware.peers import check_peers, has_peers
from canary_mw.middleware.settings import MiddlewareSettings
from canary_mw.rollout.commands import Command, Who
from canary_mw.rollout.evidence import ReleaseEvidence, VariantEvidence
from canary_mw.rollout.findings import Metric, MetricEvidence, StepCounts
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.statistics import Arm, Epoch, SeenKeys

ANALYSED = RULES.rstrip() + "\nanalysis: {minimum_keys: 20, metrics: [{name: error_rate}]}\n"


class Pods:
    """Other pods as a test says it.

    Attributes:
        complete, readable: whether their evidence is.
    """

    def __init__(self) -> None:
        self.pods = 3
        self.complete = self.readable = True
        self.told: list[ReleaseState] = []
        self.calls: set[str] = set()

    def weighed(self, evidence: ReleaseEvidence) -> ReleaseEvidence:
        return replace(evidence, complete=self.complete, readable=evidence.readable and self.readable)

    def watch(self) -> None:
        self.calls.add("watch")

    def pull(self) -> None:
        self.calls.add("pull")

    def heard(self) -> Heard | None:
        return Heard(2, 3, 1.0)

    def findings(self) -> Sequence[str]:
        return () if self.complete else ("other pods: the pod 10.0.0.1:8877 does not answer in time",)

    def tell_lowered(self, state: ReleaseState) -> None:
        self.told.append(state)

    def stop(self) -> None:
        self.calls.add("stop")


class Process:
    """A process of a pod, beside others."""

    def __init__(self, path: Path) -> None:
        self.clock, self.evidence, self.pods = Clock(), Evidence(), Pods()
        self.rules = RuleStore(StaticSource(ANALYSED))
        self.rules.reload()
        place = Place(str(path), lambda: None)
        self.controller = Controller(
            self.rules, place, self.evidence, Surroundings(), clock=self.clock, wall=lambda: 0.0
        )
        self.controller.peers = self.pods
        self.evidence.found = ReleaseEvidence(attempt=1)

    def run(self, seconds: float) -> "Process":
        self.controller.step()
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.controller.step()
        return self

    @property
    def state(self) -> ReleaseState:
        return self.controller.states.known["svc-r"].state

    def show(self, failures: int, keys: int, *, weight: float = 0.05) -> None:
        """So many of so many keys have failed in gray, none in stable."""
        epoch = Epoch(weight, failures, 0, keys, 20 * keys)
        step = StepCounts(Arm(failures, keys), Arm(0, 20 * keys), keys, failures, 20 * keys, 0)
        metric = MetricEvidence(Metric(name="error_rate"), [[epoch]], [step])
        shown = VariantEvidence([metric], [SeenKeys(weight, keys, round(keys / weight * (1 - weight)))], 100)
        self.evidence.found = ReleaseEvidence(attempt=1, variants={"svc-gray": shown})

    def end(self) -> None:
        self.controller.end()

    def agree(self) -> "Process":
        """Look at thresholds, a second later."""
        self.run(1)
        agree(self.controller)
        return self


Start = Callable[[], Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def begin() -> Process:
        started.append(Process(tmp_path / "state"))
        return started[-1]

    yield begin
    for each in started:
        each.end()


def test_a_pod_that_has_not_reported_for_a_moment_lets_the_next_step_wait(start: Start) -> None:
    process = start().run(2)
    process.show(0, 100_000)
    process.pods.complete = False
    process.run(100)
    assert (process.state.phase, process.state.weight) == ("Progressing", 5)
    outcome = process.controller.outcomes["svc-r"]
    assert outcome.verdict is not None
    assert outcome.verdict.reason == "some pod has not said yet what it has seen"
    standing = standing_of(process.controller, process.controller.documents[0], Surroundings())
    assert standing.findings == ("other pods: the pod 10.0.0.1:8877 does not answer in time",)
    assert standing.pods == (2, 3, 1.0)
    process.pods.complete = True
    process.run(2)
    assert process.state.weight == 50


def test_a_pod_that_is_silent_for_long_holds_until_it_reports(start: Start) -> None:
    process = start().run(2)
    process.show(0, 100_000)
    process.pods.readable = False
    process.run(100)
    assert (process.state.phase, process.state.held_by, process.state.weight) == ("Held", "evidence", 5)
    process.pods.readable = True
    process.run(3)
    assert (process.state.phase, process.state.weight) == ("Progressing", 50)


def test_gray_that_fails_is_taken_back_though_a_pod_is_silent(start: Start) -> None:
    process = start().run(2)
    process.show(30, 100)
    process.pods.readable = process.pods.complete = False
    process.run(2)
    assert process.state.phase == "RolledBack"
    assert [(each.name, each.attempt, each.phase) for each in process.pods.told] == [("svc-r", 1, "RolledBack")]


def test_an_abort_is_told_to_all_pods_and_a_pause_is_not(start: Start) -> None:
    process = start().run(2)
    for wanted in (Command(name="pause"), Command(name="abort")):
        process.controller.obey(process.controller.documents[0], wanted, None, Who("me"))
    assert [each.phase for each in process.pods.told] == ["Aborted"]


def test_only_who_controls_asks_the_pods_and_its_end_asks_nobody(start: Start) -> None:
    first, second = start().run(2), start().run(2)
    assert "pull" in first.pods.calls
    assert "pull" not in second.pods.calls
    first.end()
    assert "stop" in first.pods.calls


def test_who_controls_again_goes_on_with_what_others_have_stored_meanwhile(start: Start) -> None:
    first = start().run(7)
    second = start().run(2)
    assert first.evidence.restored == second.evidence.restored == []
    first.end()
    second.run(7)
    stored = b"evidence of 1"
    assert second.evidence.restored == [stored]
    second.end()
    first.run(2)
    assert first.evidence.restored == [stored]


@pytest.mark.parametrize(("pods", "phase"), [(1, "RolledBack"), (1000, "Progressing")])
def test_who_judges_alone_needs_more_evidence_the_more_pods_there_are(
    start: Start, tmp_path: Path, pods: int, phase: str
) -> None:
    leader, alone = start().run(2), start().run(2)
    opened = leader.controller.opened
    assert opened is not None
    # Nobody has controlled for long.
    opened.latches._cells[1] = 0
    alone.pods.pods = pods
    alone.show(12, 100, weight=0.5)
    alone.run(15)
    assert alone.state.phase == phase
    outcome = alone.controller.outcomes["svc-r"]
    assert outcome.look is not None
    assert outcome.look.findings["svc-gray"].ln_needed == pytest.approx(log(pods / 0.01))
    # It raises nothing, whatever it sees.
    if phase == "Progressing":
        alone.show(0, 1_000_000)
        assert alone.run(200).state.weight == 5


def test_while_a_controller_is_heard_nobody_judges_alone(start: Start) -> None:
    leader, other = start().run(2), start().run(2)
    other.show(30, 100)
    for _ in range(30):
        leader.run(1)
        other.run(1)
    assert other.state.phase == "Progressing"
    assert "svc-r" not in other.controller.outcomes


def test_the_thresholds_of_all_pods_are_found_once_by_who_controls_and_told_by_the_state(start: Start) -> None:
    leader, other = start().run(2).agree(), start().run(2).agree()
    assert leader.evidence.settled[-1] == {}
    other.evidence.limits = {"p95": 9.0}
    assert other.agree().state.limits == {}, "it does not control"
    leader.evidence.limits = {"p95": 0.2}
    assert leader.agree().state.limits == {"p95": 0.2}
    version = leader.controller.states.known["svc-r"].version
    leader.evidence.limits = {"p95": 0.3, "p99": 0.5}
    assert leader.agree().state.limits == {"p95": 0.2, "p99": 0.5}
    assert leader.agree().controller.states.known["svc-r"].version == (version or 0) + 1
    other.agree()
    assert other.evidence.settled[-1] == leader.evidence.settled[-1] == {"p95": 0.2, "p99": 0.5}
    # They stay for all steps, and the next attempt begins without any.
    leader.controller.obey(leader.controller.documents[0], Command(name="promote"), None, Who("me"))
    assert leader.state.limits == {"p95": 0.2, "p99": 0.5}
    leader.evidence.limits = {}
    for wanted in (Command(name="abort"), Command(name="retry")):
        leader.controller.obey(leader.controller.documents[0], wanted, None, Who("me"))
    assert (leader.state.attempt, leader.state.limits) == (2, {})


def options(**given: object) -> Options:
    settings = MiddlewareSettings(**{"state": "k8s://shop", "admin_port": 8877, "peers": "shop", **given})  # type: ignore[arg-type]
    return options_of(Arguments(*([None] * len(Arguments._fields))), settings)


def test_pods_need_an_admin_port_and_a_service_to_share_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANARY_MW_SINGLE", raising=False)
    check_peers(options())
    check_peers(options(peers=None, local=("shop", "other")))
    assert options(peers=None, local=("shop", "other")).peers == "shop"
    with pytest.raises(ConfigError, match=r"no admin port.*CANARY_MW_ADMIN_PORT"):
        check_peers(options(admin_port=0))
    with pytest.raises(ConfigError, match=r"no Service says where the others are.*CANARY_MW_PEERS"):
        check_peers(options(peers=None))
    for state in (None, "/var/lib/canary-mw"):
        check_peers(options(state=state, admin_port=0, peers=None))
        assert not has_peers(options(state=state))
    monkeypatch.setenv("CANARY_MW_SINGLE", "1")
    check_peers(options(admin_port=0, peers=None))
    assert not has_peers(options())
