"""States in a cluster: of two that write one wins, pods hear of each other, and an API that is away harms nobody."""

import gzip
import json
import os
import random
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from clusters import kubeconfig
from fake_apiserver import FakeApi
from state_cluster import LEASE, NAMESPACE, StateCluster, state_cluster, until

from canary_mw.control.rollouts.checkpoints import checkpoint_of
from canary_mw.control.rollouts.cluster import election as election_module
from canary_mw.control.rollouts.cluster import follower as follower_module
from canary_mw.control.rollouts.cluster import mirror as mirror_module
from canary_mw.control.rollouts.cluster import speaker as speaker_module
from canary_mw.control.rollouts.cluster import store as store_module
from canary_mw.control.rollouts.cluster import writer as writer_module
from canary_mw.control.rollouts.cluster.address import cluster_at
from canary_mw.control.rollouts.cluster.mirror import NAME, Mirror
from canary_mw.control.rollouts.cluster.names import config_map_name, identity_in, lease_name, pod_of
from canary_mw.control.rollouts.cluster.store import ClusterStore
from canary_mw.exceptions import StoreAway
from canary_mw.rollout.state import FORMAT, ReleaseState, to_json
from canary_mw.run_folder.folder import Folder

STATE = ReleaseState(name="svc-r", phase="Progressing", weights={"gray": 5.0})
NEXT = replace(STATE, step=1)


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


def knows(store: ClusterStore, state: ReleaseState | None, version: int = 1) -> Callable[[], bool]:
    """Whether a store has heard of a state."""
    wanted = {} if state is None else {state.name: (state, version)}
    return lambda: store.has_changed() and store.load().states == wanted


# One after the other.


def test_a_state_is_written_once_for_each_version(cluster: StateCluster) -> None:
    store = cluster.speaking()
    assert store.load().states == {}
    assert store.compare_and_set("svc-r", STATE, None) == 1
    assert store.compare_and_set("svc-r", STATE, None) is None
    assert store.compare_and_set("svc-r", NEXT, 1) == 2
    assert store.compare_and_set("svc-r", replace(STATE, step=7), 1) is None
    assert store.load().states["svc-r"] == (NEXT, 2)
    assert cluster.state() == NEXT
    assert not store.has_changed() or store.load().states["svc-r"] == (NEXT, 2)


def test_what_one_pod_writes_another_one_hears(cluster: StateCluster) -> None:
    one, other = cluster.speaking(), cluster.speaking()
    assert one.compare_and_set("svc-r", STATE, None) == 1
    until(knows(other, STATE))
    assert other.compare_and_set("svc-r", NEXT, 1) == 2
    # Also where the first has not heard of it yet.
    assert one.compare_and_set("svc-r", replace(STATE, step=7), 1) is None
    assert one.load().states["svc-r"] == (NEXT, 2)


def test_what_else_is_written_in_an_object_stays_and_is_no_change_of_the_state(cluster: StateCluster) -> None:
    store = cluster.speaking()
    store.compare_and_set("svc-r", STATE, None)
    item = cluster.object()
    item = {**item, "metadata": {**item["metadata"], "labels": {"team": "a"}}, "data": {**item["data"], "note": "b"}}
    # The store is not told: its write is the first that it hears.
    cluster.do(cluster.api.freeze)
    cluster.put("configmaps", config_map_name("svc-r"), item)
    assert store.compare_and_set("svc-r", NEXT, 1) == 2
    found = cluster.object()
    assert (found["metadata"]["labels"], found["data"]["note"]) == ({"team": "a"}, "b")


def test_one_pod_leads_and_leaves_the_lease_at_its_end(cluster: StateCluster) -> None:
    one, other = cluster.speaking(), cluster.speaking()
    until(lambda: one.contend(speaks=True) or other.contend(speaks=True))
    assert [one.contend(speaks=True), other.contend(speaks=True)].count(True) == 1
    leader, follower = (one, other) if one.contend(speaks=True) else (other, one)
    until(lambda: follower.heard is not None)
    assert leader.heard is None
    assert leader.controller == follower.controller == f"pod {pod_of(cluster.lease()['holderIdentity'])}"
    leader.close()
    until(lambda: follower.contend(speaks=True))


def test_a_pod_that_may_know_less_than_there_is_does_not_lead(cluster: StateCluster) -> None:
    newer = to_json(STATE).replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}')
    cluster.put("configmaps", config_map_name("svc-r"), {"metadata": {}, "data": {"state": newer, "version": "3"}})
    store = cluster.speaking()
    assert store.load().newer == {"svc-r"}
    assert store.compare_and_set("svc-r", STATE, None) is None
    until(lambda: any(path.endswith(f"leases/{LEASE}") for _, path, _ in cluster.api.requests))
    assert "holderIdentity" not in cluster.lease()
    assert not store.contend(speaks=True)
    # It is read again by the version that knows it.
    cluster.put("configmaps", config_map_name("svc-r"), {"metadata": {}, "data": {"state": to_json(STATE)}})
    until(lambda: store.contend(speaks=True))


# Objects that are not as they should be.


def test_an_object_that_is_missing_is_named_and_the_others_go_on(cluster: StateCluster) -> None:
    cluster.api.denied = {"create"}
    store = cluster.speaking(releases={"svc-r": True, "other": True, "manual": False})
    # One without steps needs none before it is aborted.
    assert list(store.load().unreadable) == ["other"]
    assert "create configmap canary-mw-release-other" in store.load().unreadable["other"]
    for name in ("other", "manual"):
        with pytest.raises(StoreAway, match=f"create configmap canary-mw-release-{name}"):
            store.compare_and_set(name, replace(STATE, name=name), None)
    assert store.compare_and_set("svc-r", STATE, None) == 1
    until(lambda: store.contend(speaks=True))


def test_an_object_that_may_be_made_is_made(cluster: StateCluster) -> None:
    store = cluster.speaking(releases={"other": True})
    assert store.load().unreadable == {}
    assert store.compare_and_set("other", replace(STATE, name="other"), None) == 1
    assert cluster.object("other")["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "canary-mw"}


def test_an_object_that_is_deleted_leaves_the_state_as_it_was_known(
    cluster: StateCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "LONGEST_DELAY", 0.05)
    cluster.api.denied = {"create"}
    store = cluster.speaking()
    store.compare_and_set("svc-r", STATE, None)
    cluster.put("configmaps", config_map_name("svc-r"), None)
    until(lambda: store.has_changed() and store.load().unreadable)
    assert store.load().states["svc-r"].state == STATE
    with pytest.raises(StoreAway, match="create configmap"):
        store.compare_and_set("svc-r", NEXT, 1)
    # An empty one in its place knows of no state.
    cluster.prepare("svc-r")
    until(lambda: store.load().unreadable == {} and store.load().states == {})


BROKEN = [
    ({"state": "{"}, "cannot be read"),
    ({"state": to_json(replace(STATE, name="other"))}, "of the release 'other'"),
]


@pytest.mark.parametrize(("data", "told"), BROKEN)
def test_a_state_that_cannot_be_read_is_left_as_it_is(cluster: StateCluster, data: Any, told: str) -> None:
    cluster.put("configmaps", config_map_name("svc-r"), {"metadata": {}, "data": data})
    store = cluster.speaking()
    assert "svc-r" not in store.load().states
    assert store.load().unreadable["svc-r"]
    assert store.compare_and_set("svc-r", STATE, None) is None
    assert cluster.object()["data"] == data


@pytest.mark.parametrize("version", ["", "many", "-1", None])
def test_a_state_without_a_number_is_the_first(cluster: StateCluster, version: str | None) -> None:
    """Somebody has written it by hand."""
    data = {"state": to_json(STATE)} | ({} if version is None else {"version": version})
    cluster.put("configmaps", config_map_name("svc-r"), {"metadata": {}, "data": data})
    store = cluster.speaking()
    assert store.load().states["svc-r"] == (STATE, 1)
    assert store.compare_and_set("svc-r", NEXT, 1) == 2


def test_a_lease_that_is_missing_is_named(cluster: StateCluster) -> None:
    cluster.api.denied = {"create"}
    cluster.put("leases.coordination.k8s.io", LEASE, None)
    store = cluster.speaking()
    until(lambda: store.problems)
    assert f"there is no Lease {LEASE} in {NAMESPACE}" in store.problems[0]
    assert not store.contend(speaks=True)
    # Lowering needs none.
    assert store.compare_and_set("svc-r", STATE, None) == 1


# A server that is away, or slow.


def test_a_server_that_does_not_answer_blocks_nobody_for_long(
    cluster: StateCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_SHORT_PATIENCE", 0.01)
    store = cluster.speaking()
    cluster.gate.clear()
    began = monotonic()
    for _ in range(10):
        with pytest.raises(StoreAway, match="does not answer"):
            store.compare_and_set("svc-r", STATE, None)
        with pytest.raises(StoreAway, match="write before"):
            store.compare_and_set("svc-r", NEXT, None)
    # Ten seconds, if each of them had waited.
    assert monotonic() - began < 8
    cluster.gate.set()
    # The write was under way all the time.
    until(lambda: cluster.object().get("data"))
    until(lambda: store.load().states)
    assert store.load().states["svc-r"] == (STATE, 1)


def test_a_write_whose_answer_was_lost_is_known_to_be_done(cluster: StateCluster) -> None:
    store = cluster.speaking()
    cluster.losing = 1
    with pytest.raises(StoreAway, match="cannot be reached"):
        store.compare_and_set("svc-r", STATE, None)
    assert cluster.state() == STATE
    assert store.compare_and_set("svc-r", STATE, None) == 1
    # And once only.
    assert store.compare_and_set("svc-r", STATE, None) is None


def test_while_the_server_is_away_what_is_known_stays_and_then_what_is_new_is_heard(cluster: StateCluster) -> None:
    one, other = cluster.speaking(), cluster.speaking()
    one.compare_and_set("svc-r", STATE, None)
    until(knows(other, STATE))
    cluster.end()
    until(lambda: other.has_changed() and other.load().unreadable)
    assert other.load().states["svc-r"].state == STATE
    with pytest.raises(StoreAway, match="cannot be reached"):
        other.compare_and_set("svc-r", NEXT, 1)
    cluster.put_aside("configmaps", config_map_name("svc-r"), NEXT, 2)
    cluster.begin()
    until(lambda: other.load().states["svc-r"] == (NEXT, 2) and not other.load().unreadable)


def test_a_server_that_is_away_at_the_start_leaves_the_state_of_the_run_folder(
    cluster: StateCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cluster.folder / "run"
    before = cluster.speaking(folder)
    before.compare_and_set("svc-r", STATE, None)
    until(lambda: b"Progressing" in (folder / NAME).read_bytes())
    before.close()
    cluster.end()
    monkeypatch.setattr(store_module, "PATIENCE", 0.1)
    store = cluster.speaking(folder)
    assert store.load().states["svc-r"] == (STATE, 1)
    assert store.load().unreadable["svc-r"]
    assert not store.contend(speaks=True)
    # A new pod has none.
    with pytest.raises(StoreAway, match="not said yet"):
        cluster.store(cluster.folder / "new").load()
    # What is known of another cluster counts for nothing.
    (folder / NAME).write_text((folder / NAME).read_text().replace(NAMESPACE, "cart"))
    with pytest.raises(StoreAway, match="not said yet"):
        cluster.store(folder).load()
    cluster.begin()


def compacted(api: FakeApi) -> None:
    api.compact()
    api.drop_watches()


def failing(api: FakeApi) -> None:
    api.fail_next(500, 2)
    api.drop_watches()


FAULTS: list[Callable[[FakeApi], None]] = [FakeApi.drop_watches, FakeApi.restart, compacted, failing]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_change_after_a_watch_was_lost_is_heard(cluster: StateCluster, fault: Callable[[FakeApi], None]) -> None:
    one, other = cluster.speaking(), cluster.speaking()
    cluster.do(lambda: fault(cluster.api))
    until(lambda: _written(one))
    until(lambda: other.load().states.get("svc-r") == (STATE, 1) and not other.load().unreadable)


def _written(store: ClusterStore) -> bool:
    try:
        return store.compare_and_set("svc-r", STATE, None) == 1
    except StoreAway:
        return False


def test_a_watch_that_says_nothing_is_left(cluster: StateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "_SECONDS", (0, 0))
    monkeypatch.setattr(follower_module, "_SILENCE", 0.1)
    store = cluster.speaking()
    cluster.do(cluster.api.freeze)
    cluster.put("configmaps", config_map_name("svc-r"), {"metadata": {}, "data": {"state": to_json(STATE)}})
    until(knows(store, STATE))


# Who asks.


def test_a_token_that_is_replaced_is_read_again(cluster: StateCluster, tmp_path: Path) -> None:
    api = FakeApi(token="admin", users={"old": "pod"})
    cluster.empty(api)
    cluster.prepare("svc-r")
    rules = [
        {"apiGroups": [group], "resources": [plural], "verbs": ["get", "update", "watch"]} for group, plural in KINDS
    ]
    cluster.do(lambda: api.grant(NAMESPACE, "pod", rules))
    (tmp_path / "token").write_text("old")
    store = cluster.speaking(tokenFile="token")
    assert store.compare_and_set("svc-r", STATE, None) == 1
    api.users = {"new": "pod"}
    with pytest.raises(StoreAway, match="credentials have expired"):
        store.compare_and_set("svc-r", NEXT, 1)
    (tmp_path / "token").write_text("new")
    until(lambda: _moved(store))
    cluster.do(lambda: api.drop_watches())
    until(lambda: not store.load().unreadable and not store.problems and store.contend(speaks=True))


KINDS = [("", "configmaps"), ("coordination.k8s.io", "leases")]


def _moved(store: ClusterStore) -> bool:
    try:
        return store.compare_and_set("svc-r", NEXT, 1) == 2
    except StoreAway:
        return False


@pytest.mark.parametrize(
    ("server", "user", "told"),
    [
        ("http://10.0.0.7:8080", {"token": "secret"}, "no TLS"),
        ("http://api.example:8080", {"token": "secret"}, "no TLS"),
        ("http://10.0.0.7:8080", {}, ""),
        ("https://10.0.0.7:6443", {"token": "secret"}, ""),
        ("http://127.0.0.1:8080", {"token": "secret"}, ""),
        ("http://[::1]:8080", {"token": "secret"}, ""),
        ("http://localhost:8080", {"token": "secret"}, ""),
        ("https://10.0.0.7:6443", {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x"}}, "run"),
    ],
)
def test_a_token_is_not_shown_to_who_listens(tmp_path: Path, server: str, user: Any, told: str) -> None:
    address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, server, **user)}"
    if told:
        with pytest.raises(StoreAway, match=told) as caught:
            cluster_at(address, LEASE)
        assert "secret" not in str(caught.value)
    else:
        assert cluster_at(address, LEASE).namespace == "shop"


def test_outside_of_a_cluster_there_are_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(StoreAway, match="no pod of a cluster"):
        cluster_at("k8s://", LEASE)


# The workers of a pod.


def test_the_other_workers_of_a_pod_ask_the_api_for_nothing_but_writes(cluster: StateCluster) -> None:
    folder = cluster.folder / "run"
    speaker, worker = cluster.speaking(folder), cluster.store(folder)
    speaker.compare_and_set("svc-r", STATE, None)
    until(lambda: worker.load().states.get("svc-r") == (STATE, 1))
    asked = len(cluster.api.requests)
    assert not worker.has_changed()
    assert worker.compare_and_set("svc-r", NEXT, 1) == 2
    assert [verb for verb, path, _ in cluster.api.requests[asked:] if "leases" not in path] == ["get", "update"]
    # It knows at once what it has written.
    assert worker.load().states["svc-r"] == (NEXT, 2)
    until(knows(speaker, NEXT, 2))
    assert worker.compare_and_set("svc-r", replace(STATE, step=9), 1) is None
    until(lambda: speaker.contend(speaks=True))
    until(lambda: worker.controller == speaker.controller != "")
    assert not worker.contend(speaks=False)


def test_another_worker_speaks_when_the_first_has_ended_and_need_not_wait_for_the_lease(cluster: StateCluster) -> None:
    folder = cluster.folder / "run"
    one, other = cluster.speaking(folder), cluster.store(folder)
    until(lambda: one.contend(speaks=True))
    # As where it was killed: it gives up nothing.
    holder = cluster.lease()["holderIdentity"]
    until(lambda: other.contend(speaks=True))
    assert cluster.lease()["holderIdentity"] == holder
    assert other.load().states == {}


def test_where_the_worker_that_speaks_was_stopped_the_others_ask_for_themselves(
    cluster: StateCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cluster.folder / "run"
    speaker, worker, elsewhere = cluster.speaking(folder), cluster.store(folder), cluster.speaking()
    speaker.compare_and_set("svc-r", STATE, None)
    until(lambda: worker.load().states.get("svc-r") == (STATE, 1))
    until(lambda: speaker.contend(speaks=True) or elsewhere.contend(speaks=True))
    holder = cluster.lease()["holderIdentity"]
    write = Mirror.write
    monkeypatch.setattr(Mirror, "write", lambda self, known: None)
    monkeypatch.setattr(mirror_module, "SILENCE", 0.1)
    elsewhere_wrote = elsewhere.compare_and_set("svc-r", NEXT, 1)
    assert elsewhere_wrote == 2
    until(lambda: not worker.contend(speaks=False) and worker.load().states.get("svc-r") == (NEXT, 2))
    until(lambda: worker.controller == elsewhere.controller)
    # When it goes on, it is believed again, and has kept the Lease.
    monkeypatch.setattr(mirror_module, "SILENCE", 10.0)
    monkeypatch.setattr(Mirror, "write", write)
    speaker.checkpoint("svc-r", checkpoint_of(NEXT, b"the evidence"))
    until(lambda: not worker.contend(speaks=False) and worker.checkpoints())
    assert worker.load().states["svc-r"] == (NEXT, 2)
    assert cluster.lease()["holderIdentity"] == holder


def test_a_process_without_the_lock_speaks_no_more(cluster: StateCluster) -> None:
    store = cluster.speaking(cluster.folder / "run")
    until(lambda: store.contend(speaks=True))
    assert not store.contend(speaks=False)
    assert cluster.lease()["holderIdentity"] == ""


def test_a_run_folder_that_is_stopped_stops_the_pod(cluster: StateCluster) -> None:
    store = cluster.speaking(cluster.folder / "run")
    store.load()
    (cluster.folder / "run" / "stop").touch()
    assert store.has_changed()
    assert store.load().stopped


def test_releases_that_come_and_go_are_followed(cluster: StateCluster) -> None:
    wanted = [{"svc-r": True}]
    store = ClusterStore(cluster_at(cluster.address(), LEASE), None, lambda: wanted[0])
    store.contend(speaks=True)
    try:
        assert store.load().states == {}
        cluster.put(
            "configmaps", config_map_name("b"), {"metadata": {}, "data": {"state": to_json(replace(STATE, name="b"))}}
        )
        wanted[0] = {"b": True}
        until(lambda: store.has_changed() and "b" in store.load().states)
        assert "svc-r" not in store.load().unreadable
    finally:
        store.close()


def test_a_release_without_steps_has_no_object_and_is_seldom_looked_for(
    cluster: StateCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "LONGEST_DELAY", 0.01)
    wanted = [{"svc-r": True, "manual": False}]
    store = ClusterStore(cluster_at(cluster.address(), LEASE), None, lambda: wanted[0])
    store.contend(speaks=True)
    try:
        assert store.load().unreadable == {}
        until(lambda: store.contend(speaks=True))
        assert cluster.object("manual") is None
        assert len([path for _, path, _ in cluster.api.requests if path.endswith("release-manual")]) == 1
        # An abort makes it, where this pod may.
        assert store.compare_and_set("manual", replace(STATE, name="manual"), None) == 1
        # With steps it is followed.
        wanted[0] = {"svc-r": True, "manual": True}
        until(lambda: store.has_changed() and store.load().states)
        until(lambda: cluster.do(lambda: cluster.api.watching) == 2)
    finally:
        store.close()


def test_the_address_may_name_the_lease(cluster: StateCluster) -> None:
    assert cluster_at(f"{cluster.address()}&lease=of-web", LEASE).lease == "of-web"
    assert cluster_at(cluster.address().replace("?", "?lease=of-web&"), LEASE).lease == "of-web"
    assert cluster_at(cluster.address(), LEASE).lease == LEASE


# What a restart goes on with.


def test_evidence_is_kept_for_the_next_leader(cluster: StateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaker_module, "KEPT_EVERY", 0.0)
    one, other = cluster.speaking(), cluster.speaking()
    one.compare_and_set("svc-r", STATE, None)
    data = checkpoint_of(replace(STATE, elapsed=12.0), b"the evidence")
    one.checkpoint("svc-r", data)
    until(lambda: other.has_changed() and other.load().states and other.checkpoints().get("svc-r") == data)
    assert other.load().states["svc-r"].version == 1
    assert gzip.decompress(b64decode(cluster.object()["binaryData"]["evidence"])) == data
    # A state that is written then keeps it.
    assert other.compare_and_set("svc-r", NEXT, 1) == 2
    assert gzip.decompress(b64decode(cluster.object()["binaryData"]["evidence"])) == data


def test_the_workers_of_a_pod_know_at_once_how_far_it_is(cluster: StateCluster) -> None:
    folder = cluster.folder / "run"
    one, worker = cluster.speaking(folder), cluster.store(folder)
    one.checkpoint("svc-r", checkpoint_of(replace(STATE, elapsed=12.0), b"the evidence"))
    until(lambda: json.loads(worker.checkpoints().get("svc-r", b"{}")).get("elapsed") == 12.0)
    assert "binaryData" not in cluster.object()


def test_evidence_that_is_kept_last_is_written_at_the_end(cluster: StateCluster) -> None:
    store = cluster.speaking()
    until(lambda: store.contend(speaks=True))
    store.checkpoint("svc-r", checkpoint_of(STATE, b"the evidence"))
    store.close()
    assert gzip.decompress(b64decode(cluster.object()["binaryData"]["evidence"])).endswith(b"the evidence")


@pytest.mark.parametrize("text", ["", "!", "aGVsbG8=", "H4sIAAAAAAAAAw=="])
def test_evidence_that_cannot_be_read_is_none(cluster: StateCluster, text: str) -> None:
    body = {"metadata": {}, "data": {"state": to_json(STATE)}, "binaryData": {"evidence": text}}
    cluster.put("configmaps", config_map_name("svc-r"), body)
    store = cluster.speaking()
    assert store.load().states["svc-r"] == (STATE, 1)
    assert store.checkpoints() == {}


def test_evidence_that_is_too_much_for_an_object_is_left_out() -> None:
    data = checkpoint_of(replace(STATE, elapsed=12.0), random.Random(1).randbytes(600_000))
    kept = gzip.decompress(b64decode(speaker_module.fitting(data)))
    assert kept == data.partition(b"\n")[0] + b"\n"
    small = checkpoint_of(STATE, random.Random(1).randbytes(380_000))
    assert gzip.decompress(b64decode(speaker_module.fitting(small))) == small


# Names.


def test_names_are_as_kubernetes_allows_them_and_all_different() -> None:
    names = ["shop", "shop.v2", "Shop", "shop_v2", "shop v2", "a" * 240, "a" * 241, "", ".", "..", "-", "é", "shop-"]
    found = [config_map_name(name) for name in names]
    assert found[:2] == ["canary-mw-release-shop", "canary-mw-release-shop.v2"]
    assert len(set(found)) == len(names)
    for name in found:
        assert len(name) <= 253
        assert all(part and part[0].isalnum() and part[-1].isalnum() for part in name.split("."))
        assert name == name.lower()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert lease_name("canary-proxy") == "canary-mw-canary-proxy"


def test_a_pod_is_one_for_all_of_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "shop-7d9f_x-2")
    one, again, other = (Folder(str(tmp_path / name)) for name in ("a", "a", "b"))
    assert identity_in(one) == identity_in(again) != identity_in(other)
    assert identity_in(None) != identity_in(None)
    assert {pod_of(identity_in(each)) for each in (one, other, None)} == {"shop-7d9f_x-2"}
    os.environ.pop("HOSTNAME")
    assert pod_of(identity_in(None))


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
