"""States in a cluster: of two that write one wins, pods hear of each other, and an API that is away harms nobody."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from state_cluster import StateCluster, state_cluster, until

from canary_mw.exceptions import StoreAway
from canary_mw.rollout.state import ReleaseState

STATE = ReleaseState(name="svc-r", phase="Progressing", weights={"gray": 5.0})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[StateCluster]:
    with state_cluster(tmp_path) as found:
        yield found


def test_a_state_is_written_once_for_each_version(cluster: StateCluster) -> None:
    store = cluster.speaking()
    assert store.load().states == {}
    assert store.compare_and_set("svc-r", STATE, None) == 1
    assert store.compare_and_set("svc-r", STATE, None) is None
    assert store.compare_and_set("svc-r", replace(STATE, step=1), 1) == 2
    assert store.compare_and_set("svc-r", replace(STATE, step=7), 1) is None
    assert store.load().states["svc-r"] == (replace(STATE, step=1), 2)
    assert cluster.state() == replace(STATE, step=1)


def test_what_one_pod_writes_another_one_hears(cluster: StateCluster) -> None:
    one, other = cluster.speaking(), cluster.speaking()
    assert one.compare_and_set("svc-r", STATE, None) == 1
    until(lambda: other.has_changed() and other.load().states)
    assert other.load().states["svc-r"] == (STATE, 1)
    assert other.compare_and_set("svc-r", replace(STATE, step=1), 1) == 2
    assert one.compare_and_set("svc-r", replace(STATE, step=7), 1) is None
    assert one.load().states["svc-r"] == (replace(STATE, step=1), 2)


def test_one_pod_leads(cluster: StateCluster) -> None:
    one, other = cluster.speaking(), cluster.speaking()
    until(lambda: one.contend(speaks=True) or other.contend(speaks=True))
    assert [one.contend(speaks=True), other.contend(speaks=True)].count(True) == 1
    until(lambda: one.controller and one.controller == other.controller)


def test_an_object_that_is_missing_is_named(cluster: StateCluster) -> None:
    cluster.api.denied = {"create"}
    store = cluster.speaking(releases={"svc-r": True, "other": True})
    assert "create configmap canary-mw-release-other" in store.load().unreadable["other"]
    with pytest.raises(StoreAway, match="create configmap canary-mw-release-other"):
        store.compare_and_set("other", replace(STATE, name="other"), None)
    assert store.compare_and_set("svc-r", STATE, None) == 1


def test_of_an_object_that_is_removed_the_newest_state_still_counts(cluster: StateCluster) -> None:
    """Also where this pod has written the one before a moment ago."""
    cluster.api.denied = {"create"}
    one, other = cluster.speaking(), cluster.speaking()
    assert one.compare_and_set("svc-r", STATE, None) == 1
    until(lambda: other.has_changed() and other.load().states)
    assert other.compare_and_set("svc-r", replace(STATE, step=1), 1) == 2
    until(lambda: one.load().states["svc-r"].version == 2)
    cluster.put("configmaps", "canary-mw-release-svc-r", None)
    until(lambda: "svc-r" in one.load().unreadable)
    assert one.load().states["svc-r"] == (replace(STATE, step=1), 2)
