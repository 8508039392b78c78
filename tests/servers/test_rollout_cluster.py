"""The rules of safety of docs/progressive-delivery.md over several pods: real processes, and an API server that dies.

Each test has pods of its own: nobody gets more of gray than the state in the cluster says, and one pod raises.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest
from cluster_api import ClusterApi
from kept_rollouts import state_in
from pod_releases import by_time, is_off, judged, keys
from pods import Cluster, cluster, documents
from staged import rules, until

from canary_mw.rollout.state import FORMAT, to_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TIMED = rules("timed", steps=by_time(10, 20, 40, 60, 80, 100, seconds=3))


def raises_are_those_of_the_leader(api: ClusterApi, name: str) -> None:
    """No write was lost, and who has raised had written the Lease last."""
    writes = api.writes(name)
    assert [each.number for each in writes] == list(range(writes[0].number, writes[0].number + len(writes)))
    for before, after in pairwise(writes):
        if after.state.weight > before.state.weight:
            holder = [pod for at, pod in api.leaders if at < after.at][-1]
            assert after.by == holder, (after, holder)


def test_a_leader_that_freezes_or_dies_is_replaced_and_never_writes_over_the_next_one(tmp_path: Path) -> None:
    """Both in clusters of their own at the same time: a Lease lasts 15 seconds."""
    (tmp_path / "dies").mkdir()
    (tmp_path / "freezes").mkdir()
    with ThreadPoolExecutor() as threads:
        for each in [
            threads.submit(a_leader_dies, tmp_path / "dies"),
            threads.submit(one_freezes, tmp_path / "freezes"),
        ]:
            each.result()


@contextmanager
def timed(folder: Path) -> Iterator[Cluster]:
    """Three pods, and a release that goes on by time."""
    with cluster(folder) as found:
        found.prepare(TIMED, phases={"timed": "Progressing"})
        found.start(3)
        yield found


def follows_the_state(found: Cluster) -> None:
    """All pods give what the state says, and who has raised it led."""
    found.leader.give("timed", "pause")
    weight = found.api.state("timed").weight
    for pod in found.up:
        until(lambda: pod.rollout("timed")["phase"] == "Paused")  # noqa: B023
        assert abs(pod.share("timed", keys=300) - weight) < 12
    raises_are_those_of_the_leader(found.api, "timed")


def a_leader_dies(folder: Path) -> None:
    with timed(folder) as found:
        first, weight = found.leader, found.api.state("timed").weight
        first.kill()
        until(lambda: found.leader is not first)
        until(lambda: found.api.state("timed").weight > weight)
        follows_the_state(found)


def one_freezes(folder: Path) -> None:
    """Its next write is on its way when it freezes, and arrives when another one has written."""
    with timed(folder) as found:
        api, first = found.api, found.leader
        api.hold("update configmaps", first.name)
        until(lambda: "cannot be written" in first.output)
        first.freeze()
        until(lambda: found.leader is not first)
        weight = api.state("timed").weight
        until(lambda: api.state("timed").weight > weight)
        api.asked()
        api.release()
        until(lambda: any(each.status == 409 and each.pod == first.name for each in api.asked()))
        first.thaw()
        until(lambda: first.rollout("timed")["weights"] == api.state("timed").weights)
        follows_the_state(found)


def test_nothing_is_raised_of_what_is_newer_broken_or_missing(tmp_path: Path) -> None:
    """As long as a newer version has written a state, pods leave all that is raised to pods of that version."""
    names = "same", "newer", "broken", "missing", "foreign"
    text = rules(*names, steps=by_time(20, 100, seconds=1))
    states = {each.name: state_in(each, "Progressing") for each in documents(text)}
    with cluster(tmp_path) as found:
        found.prepare(text, states=states)
        newer = {**json.loads(to_json(states["newer"])), "format": FORMAT + 1}
        found.write_state("newer", json.dumps(newer), 3)
        found.write_state("broken", "{")
        found.write_state("foreign", to_json(replace(states["foreign"], name="other")))
        found.api.put("api/v1/configmaps", "canary-mw-release-missing", None)
        before = {name: found.api.config_map(name) for name in names}
        pods = found.start(2)
        assert all(0 < pod.share("same") < 40 for pod in pods)
        assert not any(pod.share(name) for pod in pods for name in names[1:])
        assert found.api.leaders == []
        found.write_state("newer", to_json(states["newer"]), 4)
        for name in ("same", "newer"):
            until(lambda: found.api.state(name).weight == 100)  # noqa: B023
        assert not any(pod.share(name) for pod in pods for name in names[2:])
        assert [found.api.config_map(name) for name in names[2:]] == [before[name] for name in names[2:]]
        for pod in pods:
            assert "`kubectl --namespace shop create configmap canary-mw-release-missing`" in pod.output


def test_what_was_taken_back_stays_so_whatever_becomes_of_its_object(tmp_path: Path) -> None:
    """It is emptied, or an older one is put in its place, as from a backup."""
    with judged(tmp_path) as found:
        before = found.api.config_map("judged")["data"]["state"]
        assert found.pods[0].give("judged", "abort") == 200
        until(lambda: all(each.rollout("judged")["phase"] == "Aborted" for each in found.pods))
        for text in (None, before):
            found.write_state("judged", text)
            since = monotonic()
            until(lambda: found.api.writes("judged")[-1].at > since and found.api.state("judged").phase == "Aborted")  # noqa: B023
            assert all(is_off(pod, "judged") for pod in found.pods)


def test_without_the_right_to_write_nothing_is_raised_and_all_is_lowered(tmp_path: Path) -> None:
    """The Role lacks it, and has it later."""
    with cluster(tmp_path) as found:
        found.prepare(TIMED, phases={"timed": "Progressing"})
        maps = ["canary-mw-release-timed"]
        found.grant(maps, without=["update configmaps"])
        pods = found.start(2)
        leader = found.leader
        until(lambda: "its Role lacks the rule" in leader.output)
        assert "verbs: [update]" in leader.output
        assert all(0 < pod.share("timed") < 25 for pod in pods)
        assert pods[0].give("timed", "abort") == 200
        until(lambda: all(is_off(pod, "timed") for pod in pods))
        assert len(found.api.writes("timed")) == 1
        found.grant(maps)
        until(lambda: found.api.state("timed").phase == "Aborted")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Pods for tests that leave them as they were."""
    with judged(tmp_path_factory.mktemp("calm")) as found:
        yield found


def test_a_pod_that_starts_during_a_release_is_ready_only_with_its_weights(calm: Cluster) -> None:
    before = calm.pods[0].ask("judged", *keys(50))
    assert "gray" in before
    new = calm.add()
    calm.api.hold("get configmaps", new.name)
    new.start()
    until(lambda: new.probe() == 503)
    calm.api.release()
    until(lambda: new.probe() == 200)
    assert new.ask("judged", *keys(50)) == before


def test_the_file_stop_puts_everybody_on_stable_in_its_pod_and_nothing_goes_on_from_there(calm: Cluster) -> None:
    for pod in calm.up:
        (pod.run_folder / "stop").touch()
    until(lambda: all(is_off(pod, "judged") for pod in calm.up))
    for pod in calm.up:
        (pod.run_folder / "stop").unlink()
    until(lambda: not any(is_off(pod, "judged") for pod in calm.up))
