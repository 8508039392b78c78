"""Pods that share the states of a cluster: one raises, all follow, and what is lowered stays so without the API."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_apiserver import FakeApi
from plans import RULES, Evidence
from state_cluster import StateCluster, state_cluster, until

from canary_mw.control.rollouts import keeper as keeper_module
from canary_mw.control.rollouts.cluster import election as election_module
from canary_mw.control.rollouts.controller import Controller
from canary_mw.control.rollouts.place import Opened, Place
from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.rollouts.settings import Surroundings, surroundings
from canary_mw.control.rollouts.standing import standing_of
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import StoreAway
from canary_mw.forking import running_threads
from canary_mw.rollout.commands import Command, Who
from canary_mw.rollout.state import Phase, ReleaseState
from canary_mw.run_folder.folder import Folder

IN_CLUSTER = surroundings({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "k8s://")
STEPS = RULES.replace("30s", "1h")


class Pod:
    """A pod with one process, whose looks the test takes.

    Args:
        folder: its run folder, None for none.
    """

    def __init__(self, cluster: StateCluster, folder: Path | None = None, *, text: str = STEPS, **user: Any) -> None:
        self.rules = RuleStore(StaticSource(text))
        self.rules.reload()
        run_folder = None if folder is None else Folder(str(folder))
        place = Place(cluster.address(**user), lambda: run_folder, self._wanted, "shop")
        self._names = {each.name: each.plan is not None for each in self.rules.table.documents.in_force}
        self.controller = Controller(self.rules, place, Evidence(), Surroundings())

    def _wanted(self) -> dict[str, bool]:
        return self._names

    def look(self, until_true: Callable[[], Any] = lambda: True) -> None:
        """Look again and again, until something is so."""

        def step() -> Any:
            self.controller.step()
            return until_true()

        until(step)

    @property
    def state(self) -> ReleaseState:
        return self.controller.states.known["svc-r"].state

    @property
    def phase(self) -> Phase | None:
        known = self.controller.states.known.get("svc-r")
        return None if known is None else known.state.phase

    @property
    def weight(self) -> float:
        """The percent of users that gets gray."""
        return self.rules.table.releases["svc-r"].effective_shares()["svc-gray"]

    def order(self, name: Any, **more: Any) -> None:
        """Give a command."""
        self.controller.obey(self.controller.documents[0], Command(name=name, **more), None, Who("me"))

    @property
    def opened(self) -> Opened:
        assert self.controller.opened is not None
        return self.controller.opened

    @property
    def findings(self) -> tuple[str, ...]:
        return standing_of(self.controller, self.controller.documents[0], Surroundings()).findings


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateCluster]:
    with state_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def cluster(served: StateCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateCluster]:
    """One that is empty but for the objects of a release, and in a hurry."""
    monkeypatch.setattr(election_module, "RETRY", 0.05)
    served.folder = tmp_path
    served.prepare("svc-r")
    yield served
    served.empty()


@pytest.fixture
def pods(cluster: StateCluster) -> Iterator[list[Pod]]:
    """A pod that leads, and another one."""
    found = [Pod(cluster), Pod(cluster)]
    found[0].look(lambda: found[0].controller.leads and found[0].phase == "Progressing")
    yield found
    for each in found:
        each.controller.end()


def test_what_one_pod_raises_all_follow(cluster: StateCluster, pods: list[Pod]) -> None:
    leader, follower = pods
    follower.look(lambda: follower.weight == 5)
    assert (leader.weight, cluster.state().weights) == (5, {"svc-gray": 5.0})
    assert not follower.controller.leads
    leader.order("promote")
    assert leader.weight == 50
    follower.look(lambda: follower.weight == 50)
    # A command is obeyed by whichever pod gets it.
    follower.order("pause")
    leader.look(lambda: leader.phase == "Paused")
    shown = [standing_of(each.controller, each.controller.documents[0], Surroundings()) for each in pods]
    assert [each.is_controller for each in shown] == [True, False]
    assert shown[0].controller == shown[1].controller == leader.opened.store.controller != ""
    assert shown[0].place == "ConfigMaps in the namespace shop"
    assert shown[0].findings == shown[1].findings == ()


def test_what_a_follower_takes_back_is_off_everywhere(cluster: StateCluster, pods: list[Pod]) -> None:
    leader, follower = pods
    follower.look(lambda: follower.weight == 5)
    follower.order("abort")
    assert follower.weight == 0
    assert cluster.state().phase == "Aborted"
    leader.look(lambda: leader.weight == 0)


def test_without_the_api_weights_stay_and_what_is_lowered_stays_and_is_written_later(
    cluster: StateCluster, pods: list[Pod]
) -> None:
    leader, follower = pods
    follower.look(lambda: follower.weight == 5)
    cluster.end()
    follower.look(lambda: follower.findings)
    assert (leader.weight, follower.weight) == (5, 5)
    with pytest.raises(StoreAway):
        leader.order("promote")
    assert leader.weight == 5
    follower.order("abort")
    assert follower.weight == 0
    assert cluster.state().phase == "Progressing"
    cluster.begin()
    follower.look(lambda: cluster.state().phase == "Aborted")
    leader.look(lambda: leader.weight == 0)
    follower.look(lambda: not follower.controller.troubles)


def test_a_leader_that_was_stopped_writes_over_nothing(cluster: StateCluster, pods: list[Pod]) -> None:
    """It holds what it knew when it was stopped, and believes to lead."""
    leader, other = pods
    other.look(lambda: other.weight == 5)
    cluster.do(lambda: cluster.api.freeze())
    other.order("pause")
    version = cluster.object()["data"]["version"]
    document, known = leader.controller.documents[0], leader.state
    assert known.phase == "Progressing"
    assert not leader.controller.write(document.name, known, ())
    assert cluster.object()["data"]["version"] == version
    assert leader.phase == "Paused"


def test_a_release_waits_for_its_object_at_weight_0_and_says_what_to_make(cluster: StateCluster) -> None:
    cluster.put("configmaps", "canary-mw-release-svc-r", None)
    cluster.api.denied = {"create"}
    pod = Pod(cluster)
    pod.look(lambda: any("create configmap canary-mw-release-svc-r" in each for each in pod.findings))
    override = pod.rules.table.releases["svc-r"].override
    # Also who is on a list gets stable: the release may have been taken back.
    assert override is not None
    assert override.off
    assert pod.weight == 0
    pod.controller.end()


def test_a_missing_right_is_named_by_who_shows_the_release(cluster: StateCluster) -> None:
    cluster.empty(FakeApi(token="admin", users={"mine": "pod"}))
    cluster.prepare("svc-r")
    pod = Pod(cluster, token="mine")
    pod.look(lambda: len(pod.findings) == 2)
    told = " ".join(pod.findings)
    assert "resources: [configmaps], resourceNames: [canary-mw-release-svc-r], verbs: [get]" in told
    assert "resources: [leases], resourceNames: [canary-mw-shop], verbs: [get]" in told
    assert pod.weight == 0
    pod.controller.end()


def test_a_leader_is_heard_by_the_workers_of_other_pods(cluster: StateCluster, pods: list[Pod]) -> None:
    leader, follower = pods
    follower.look(lambda: follower.opened.store.heard is not None)
    follower.look(follower.opened.latches.is_beaten)
    assert leader.opened.latches.controller == os.getpid()
    # It is no process of this pod.
    assert follower.opened.latches.controller == 0


def test_a_place_in_a_cluster_is_shared_by_its_pods() -> None:
    assert not IN_CLUSTER.unshared
    assert IN_CLUSTER.in_cluster
    assert surroundings({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "/var/state").unshared


def test_a_process_is_ready_when_the_api_has_answered(cluster: StateCluster, tmp_path: Path) -> None:
    rules = RuleStore(StaticSource(STEPS))
    rules.reload()
    folder = Folder(str(tmp_path / "run"))
    rollouts = Rollouts(rules, cluster.address(), lambda: folder, Evidence, Surroundings(), deployment="shop")
    threads = len(running_threads())
    rollouts.start()
    try:
        assert rollouts.ready
        until(lambda: rollouts.is_controlled and rollouts.versions().get("svc-r", 0) == 2)
        standing = rollouts.command("svc-r", Command(name="promote"), None, Who("me"))
        assert standing.weights == {"svc-gray": 50.0}
    finally:
        rollouts.stop()
    until(lambda: len(running_threads()) == threads)
    assert cluster.lease()["holderIdentity"] == ""


@pytest.mark.slow
def test_a_store_that_knows_nothing_waits_in_a_cluster(cluster: StateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_YOUNG", 0.5)
    pod = Pod(cluster)
    pod.controller._surroundings = IN_CLUSTER
    began = time.monotonic()
    pod.look(lambda: pod.phase == "Progressing")
    assert time.monotonic() - began > 0.4
    pod.controller.end()
