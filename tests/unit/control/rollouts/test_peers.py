"""The other pods over real sockets: who is asked, what is believed, where the token goes, and who is told."""

import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from clusters import kubeconfig
from fake_pods import Answering, answer, fake_pods, sends
from seen_pods import SeenPod, folders
from staged import until
from state_cluster import NAMESPACE, StateCluster, state_cluster

from canary_mw.control.rollouts.inputs import Heard
from canary_mw.control.rollouts.peers import client, known, session
from canary_mw.control.rollouts.peers.addresses import Pod, may_hear_token, pods_of
from canary_mw.control.rollouts.peers.known import KnownPods, Noted, noted_in
from canary_mw.control.rollouts.peers.peers import UNKNOWN, Peers
from canary_mw.control.rollouts.peers.session import Place
from canary_mw.control.rollouts.peers.token import PeerToken
from canary_mw.exceptions import ConfigError
from canary_mw.kubernetes.kubeconfig import from_kubeconfig
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.state import ReleaseState
from canary_mw.upstreams.discovery.endpoint_slices import slice_of

TOKEN = "peer-token-0123456789abcdef"
EVIDENCE = ReleaseEvidence(attempt=3)
_NUMBERS = count()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for seconds."""
    monkeypatch.setattr(session, "INTERVAL", 0.02)
    monkeypatch.setattr(session, "_LOOK", 0.005)
    monkeypatch.setattr(session, "PAUSES", (0.01,) * 200)
    monkeypatch.setattr(client, "TIMEOUT", 0.3)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateCluster]:
    """An API server for all tests."""
    with state_cluster(tmp_path_factory.mktemp("api"), made=False) as found:
        yield found


class Cluster:
    """A Service of the API server, and a folder for the token of its pods."""

    def __init__(self, server: StateCluster, folder: Path, service: str) -> None:
        self.server, self.folder, self.service = server, folder, service

    def publish(self, *slices: Any) -> None:
        """Write the slices of the Service."""

        def write() -> None:
            for number, each in enumerate(slices):
                self.server.api.slice(NAMESPACE, self.service, f"{self.service}-{number}", each)

        self.server.do(write)


@pytest.fixture
def cluster(served: StateCluster, tmp_path: Path) -> Cluster:
    return Cluster(served, tmp_path, f"shop-{next(_NUMBERS)}")


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Sequence[SeenPod]]:
    with folders(tmp_path, 3) as found:
        yield [SeenPod(each) for each in found]


def gives(pod: SeenPod) -> Answering:
    """It answers as the admin port of a pod."""

    def answering(connection: socket.socket, request: bytes) -> None:
        target = request.split(b" ")[1].decode()
        if not target.startswith("/api/v1/evidence?since="):
            connection.sendall(answer("200 OK", b"{}"))
            return
        given = pod.evidence.give(["r"], target.partition("since=")[2])
        status = "304 Not Modified" if given.data is None else "200 OK"
        connection.sendall(answer(status, given.data or b"", x_canary_mw_cursor=given.cursor))

    return answering


@contextlib.contextmanager
def asking(cluster: Cluster, pod: SeenPod, token: str = TOKEN) -> Iterator[Peers]:
    """The pod that controls, and asks."""
    assert pod.evidence.pods is not None
    path = cluster.folder / "peer-token"
    path.write_text(token)

    def connect() -> Any:
        return from_kubeconfig(str(kubeconfig(cluster.folder, cluster.server.url))), NAMESPACE

    kept = pod.evidence.pods
    found = Peers(Place(connect, cluster.service, 1), PeerToken(path).read, pod.evidence.take, kept.note, kept.noted)
    try:
        yield found
    finally:
        found.stop()


def heard(found: Peers) -> Heard | None:
    """Asks on, and says how many report."""
    found.pull()
    return found.heard()


def report(found: Peers, *numbers: int) -> bool:
    now = heard(found)
    return now is not None and now[:2] == numbers


def failed(pod: SeenPod) -> int:
    pod.evidence.forget()
    series = pod.found().variants["svc-gray"].metrics[0].series[0]
    return sum(each.gray + each.stable for each in series)


def test_all_pods_are_asked_again_and_again_for_what_is_new(cluster: Cluster, pods: Sequence[SeenPod]) -> None:
    for number in range(30):
        pods[number % 3].ask(f"u{number}", failed=True)
    with fake_pods(*map(gives, pods)) as served, asking(cluster, pods[0]) as found:
        cluster.publish(*(each.slice() for each in served))
        assert found.pods == UNKNOWN
        until(lambda: report(found, 3, 3))
        assert failed(pods[0]) == 30
        assert found.weighed(EVIDENCE) == EVIDENCE
        assert found.pods == 3
        assert found.findings() == []
        pods[2].ask("new", failed=True)
        until(lambda: (heard(found), failed(pods[0]))[1] == 31)
        # Who has said it is not asked for it again; this pod has heard itself once.
        assert all(f"authorization: Bearer {TOKEN}".encode() in each for pod in served for each in pod.requests)
        until(
            lambda: (
                (heard(found), b"since=" + pods[1].evidence.give(["r"], "").cursor.encode())[1]
                in served[1].requests[-1]
            )
        )
        assert len(served[0].requests) == 1
        # The other workers of this pod know the same, and so do later ones of it.
        assert pods[0].evidence.pods is not None
        noted = noted_in(pods[0].evidence.pods.noted())
        assert noted is not None
        assert (noted.pods, noted.reporting) == (3, 3)
        served[1].answering = lambda connection, _: connection.close()
        until(lambda: any("; what it has seen until " in each for each in (heard(found), found.findings())[1]))
        assert failed(pods[0]) == 31, "what it has seen counts on"


def test_nobody_is_asked_by_who_does_not_control(cluster: Cluster, pods: Sequence[SeenPod]) -> None:
    with fake_pods(gives(pods[1]), gives(pods[2])) as served, asking(cluster, pods[0]) as found:
        cluster.publish(*(each.slice() for each in served))
        found.watch()
        until(lambda: found.pods == 2)
        assert found.heard() is None
        assert served[0].requests == []


def drips(connection: socket.socket, _: bytes) -> None:
    """A byte at a time, without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        threading.Event().wait(0.02)


def floods(connection: socket.socket, _: bytes) -> None:
    """More than anybody wants."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 20))


def is_silent(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)


HOSTILE: dict[str, tuple[Answering, str]] = {
    "slow": (drips, "does not answer in time"),
    "silent": (is_silent, "does not answer in time"),
    "endless": (floods, "answers with more than 1 MiB"),
    "no HTTP": (sends(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "does not answer by HTTP/1.1"),
    "cut": (lambda connection, _: connection.close(), "pod 127.0.0.1"),
    "garbage": (sends(answer("200 OK", b"<html>it works</html>")), "it is no evidence"),
    "a bomb": (sends(answer("200 OK", gzip.compress(bytes(64 << 20)))), "more than 16 MiB when it is unpacked"),
    "nothing": (sends(answer("200 OK")), "it is no evidence"),
    "another token": (sends(answer("401 Unauthorized")), "refuses the token"),
    "no scope": (sends(answer("403 Forbidden")), "no line peer TOKEN"),
    "an old version": (sends(answer("404 Not Found")), "it runs a version without it"),
    "a redirect": (sends(answer("302 Found", location="http://127.0.0.1:1/")), "answers with status 302"),
    "a failure": (sends(answer("500 Oops", b"\x1b[31mred")), "answers with status 500"),
    "unchanged since nothing": (sends(answer("304 Not Modified")), "answers with status 304"),
}


def test_pods_that_answer_anything_else_are_findings_and_hold(
    cluster: Cluster, pods: Sequence[SeenPod], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(known, "_MOST_SHOWN", 100)
    pods[1].ask("u1", failed=True)
    answerings, findings = zip(*HOSTILE.values(), strict=True)
    with fake_pods(gives(pods[1]), *answerings) as served, asking(cluster, pods[0]) as found:
        cluster.publish(*(each.slice() for each in served))

        def is_said(port: int, finding: str) -> bool:
            found.pull()
            start = f"other pods: the pod 127.0.0.1:{port} "
            return any(each.startswith(start) and finding in each for each in found.findings())

        for each, finding in zip(served[1:], findings, strict=True):
            until(partial(is_said, each.port, finding), finding)
        # Each is asked again, and the one that answers counts.
        until(lambda: (heard(found), all(len(each.requests) > 1 for each in served[1:]))[1])
        assert failed(pods[0]) == 1
        assert found.heard() is not None
        assert report(found, 2, len(served) + 1)
        assert not found.weighed(EVIDENCE).complete
        monkeypatch.setattr(known, "LOST_AFTER", 0.0)
        assert not found.weighed(EVIDENCE).readable
    texts = [*caplog.messages, *found.findings()]
    assert texts
    assert not any(TOKEN in each or "\x1b" in each for each in texts)


def test_a_pod_that_gets_no_requests_is_not_waited_for(cluster: Cluster, pods: Sequence[SeenPod]) -> None:
    with fake_pods(gives(pods[1]), is_silent) as served, asking(cluster, pods[0]) as found:
        cluster.publish(served[0].slice(), served[1].slice(ready=False))
        until(lambda: report(found, 2, 3))
        assert found.weighed(EVIDENCE) == EVIDENCE


def test_a_token_that_is_changed_counts_at_the_next_question(cluster: Cluster, pods: Sequence[SeenPod]) -> None:
    with fake_pods(gives(pods[1])) as served, asking(cluster, pods[0], "") as found:
        cluster.publish(served[0].slice())
        until(lambda: any("there is no token of peers" in each for each in (heard(found), found.findings())[1]))
        assert served[0].requests == [], "nobody is asked without a token"
        (cluster.folder / "peer-token").write_text(f"operate {'o' * 32}\npeer {TOKEN} pods\n")
        until(lambda: report(found, 2, 2))
        assert TOKEN.encode() in served[0].requests[0]


def test_the_token_goes_to_no_address_of_the_internet(cluster: Cluster, pods: Sequence[SeenPod]) -> None:
    endpoint = {"addresses": ["192.0.2.7"], "conditions": {"ready": True}}
    with asking(cluster, pods[0]) as found:
        cluster.publish({"endpoints": [endpoint], "ports": [{"name": "admin", "port": 80}]})
        until(
            lambda: any(
                "192.0.2.7:80 is no address of a private" in each for each in (heard(found), found.findings())[1]
            )
        )
        assert not found.weighed(EVIDENCE).complete


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("127.0.0.1", True),
        ("10.255.0.1", True),
        ("172.16.0.1", True),
        ("172.31.255.255", True),
        ("192.168.1.1", True),
        ("100.64.0.1", True),
        ("100.127.255.255", True),
        ("fd12::1", True),
        ("::1", True),
        ("::ffff:10.0.0.1", True),
        ("8.8.8.8", False),
        ("172.32.0.1", False),
        ("100.128.0.1", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("240.0.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1", False),
        ("::", False),
        ("2001:db8::1", False),
        ("2002:a00:1::", False),
        ("64:ff9b::a00:1", False),
        ("fd00:ec2::254", False),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_only_private_addresses_hear_the_token(address: str, *, may: bool) -> None:
    assert may_hear_token(address) is may


def test_who_takes_a_release_back_tells_all_others_until_they_have_heard_it(
    cluster: Cluster, pods: Sequence[SeenPod], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[bytes] = []

    def busy_at_first(connection: socket.socket, request: bytes) -> None:
        told.append(request)
        connection.sendall(answer("200 OK" if len(told) > 2 else "503 Busy", b"{}"))

    with fake_pods(gives(pods[1]), busy_at_first) as served, asking(cluster, pods[0]) as found:
        cluster.publish(*(each.slice() for each in served))
        # Nobody has been asked before: it is told as soon as it is known where they are.
        found.tell_lowered(ReleaseState(name="a/b", attempt=3, phase="Aborted", reason="enough"))
        until(lambda: len(told) == 3)
        until(lambda: served[0].requests)
    for request in (*told, *served[0].requests):
        assert request.startswith(b"POST /api/v1/releases/a%2Fb/rolled-back HTTP/1.1\r\n")
        assert f"authorization: Bearer {TOKEN}".encode() in request
        assert json.loads(request.partition(b"\r\n\r\n")[2]) == {"attempt": 3, "phase": "Aborted", "reason": "enough"}
    assert len(served[0].requests) == 1, "who has heard it is not told again"


def test_who_cannot_be_told_is_named(
    cluster: Cluster,
    pods: Sequence[SeenPod],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(session, "PAUSES", (0.0,))
    with fake_pods(sends(answer("401 Unauthorized"))) as served, asking(cluster, pods[0]) as found:
        cluster.publish(served[0].slice())
        found.tell_lowered(ReleaseState(name="r", attempt=3, phase="RolledBack"))
        until(lambda: f"the pod 127.0.0.1:{served[0].port} was not told" in caplog.text)
    assert TOKEN not in caplog.text


def test_where_pods_cannot_be_found_there_is_a_finding(cluster: Cluster, pods: Sequence[SeenPod]) -> None:
    denied = cluster.server.api.denied
    cluster.server.do(lambda: denied.add("list endpointslices"))
    try:
        with asking(cluster, pods[0]) as found:
            until(lambda: any("EndpointSlices cannot be read" in each for each in (heard(found), found.findings())[1]))
            assert not found.weighed(EVIDENCE).complete
            assert found.pods == UNKNOWN
    finally:
        cluster.server.do(denied.clear)


@pytest.mark.parametrize("right", ["list endpointslices", "watch endpointslices"])
def test_where_pods_cannot_be_followed_any_more_there_is_a_finding(
    cluster: Cluster, pods: Sequence[SeenPod], right: str
) -> None:
    """Those that are known report, and there may be others."""
    api = cluster.server.api
    with fake_pods(*map(gives, pods)) as served, asking(cluster, pods[0]) as found:
        cluster.publish(*(each.slice() for each in served))
        until(lambda: report(found, 3, 3))
        try:
            cluster.server.do(lambda: api.denied.add(right))
            cluster.server.do(api.compact)
            cluster.server.do(api.drop_watches)
            until(lambda: any("EndpointSlices cannot be read" in each for each in (heard(found), found.findings())[1]))
            assert found._known.denied_since is not None
        finally:
            cluster.server.do(api.denied.clear)
        until(lambda: (heard(found), found.findings())[1] == [])
        assert found._known.denied_since is None


def test_a_service_without_pods_is_a_finding(cluster: Cluster, pods: Sequence[SeenPod]) -> None:
    with asking(cluster, pods[0]) as found:
        until(
            lambda: any(
                f"Service {cluster.service} has no pods" in each for each in (heard(found), found.findings())[1]
            )
        )


def sliced(*addresses: str, ready: bool = True, family: str = "IPv4", port: str = "admin", **conditions: bool) -> Any:
    endpoints = [{"addresses": [each], "conditions": {"ready": ready, **conditions}} for each in addresses]
    metadata = {"labels": {"kubernetes.io/service-name": "shop"}}
    ports = [{"name": "http", "port": 80}, {"name": port, "port": 9000}]
    return slice_of({"metadata": metadata, "addressType": family, "endpoints": endpoints, "ports": ports})


def test_pods_are_those_of_the_slices_once_ready_or_not() -> None:
    found = pods_of([sliced("10.0.0.2", "10.0.0.1"), sliced("10.0.0.2", ready=False)], 8877)
    assert found == (Pod(("10.0.0.1", 9000), ready=True), Pod(("10.0.0.2", 9000), ready=True))
    ends = pods_of([sliced("10.0.0.1", terminating=True), sliced("10.0.0.3", ready=False)], 8877)
    assert [each.ready for each in ends] == [False, False]
    # A Service that publishes pods that are not ready calls all of them ready.
    assert not pods_of([sliced("10.0.0.1", serving=False)], 8877)[0].ready
    assert pods_of([sliced("10.0.0.1", port="other")], 8877)[0].address == ("10.0.0.1", 8877)
    both = [sliced("10.0.0.1"), sliced("fd00::1", family="IPv6")]
    assert [each.address[0] for each in pods_of(both, 1)] == ["10.0.0.1"]
    assert [each.address[0] for each in pods_of(both[1:], 1)] == ["fd00::1"]


def test_evidence_is_complete_for_a_moment_and_lost_after_10_seconds() -> None:
    found = KnownPods(100.0)
    assert (found.is_fresh(105.0), found.is_lost(105.0), found.is_lost(111.0)) == (False, False, True)
    one, other = ("10.0.0.1", 1), ("10.0.0.2", 1)
    found.adopt([Pod(one, ready=True), Pod(other, ready=False)], 111.0)
    assert (found.is_fresh(111.0), found.is_lost(120.0), found.is_lost(122.0)) == (False, False, True)
    found.pods[one].heard_at = 112.0
    assert (found.is_fresh(118.0), found.is_fresh(119.0), found.is_lost(122.0), found.is_lost(123.0)) == (
        True,
        False,
        False,
        True,
    )
    # Who controls anew asks first.
    found.asked_since = 130.0
    assert (found.is_fresh(131.0), found.is_lost(140.0), found.is_lost(141.0)) == (False, False, True)
    # This pod is one more as long as it has not heard itself.
    assert found.heard(113.0) == (2, 3, 1.0)
    found.pods[other].is_own = True
    assert found.heard(113.0) == (2, 2, 1.0)
    # A pod that is replaced at its address is another one only to who asks it.
    found.adopt([Pod(other, ready=True)], 114.0)
    assert found.is_fresh(114.0)
    assert found.heard(114.0) == (1, 1, None)


def test_evidence_is_missing_where_the_pods_may_not_be_listed_any_more() -> None:
    """New pods are not known, and those that are report."""
    found = KnownPods(100.0)
    found.adopt([Pod(("10.0.0.1", 1), ready=True)], 100.0)
    found.pods["10.0.0.1", 1].heard_at = 100.0
    for now in (200.0, 202.0, 211.0):
        found.note_right(now, denied=True)
        found.pods["10.0.0.1", 1].heard_at = now
    assert (found.is_fresh(206.0), found.is_fresh(207.0), found.is_lost(210.0), found.is_lost(211.0)) == (
        True,
        False,
        False,
        True,
    )
    found.note_right(212.0, denied=False)
    assert (found.is_fresh(212.0), found.is_lost(212.0)) == (True, False)


def test_evidence_is_missing_where_the_service_has_no_pod_not_even_this_one() -> None:
    """Its name or its selector is wrong: the pods that there are report to nobody."""
    found = KnownPods(100.0)
    found.adopt([], 101.0)
    assert (found.is_fresh(101.0), found.is_lost(109.0), found.is_lost(111.0)) == (False, False, True)
    found.adopt([Pod(("10.0.0.1", 1), ready=True)], 112.0)
    found.pods["10.0.0.1", 1].is_own = True
    assert (found.is_fresh(112.0), found.is_lost(130.0)) == (True, False)
    found.adopt([], 130.0)
    assert (found.is_fresh(130.0), found.is_lost(139.0), found.is_lost(141.0)) == (False, False, True)


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", "null", '["x"]', "[3, 1, 2, 0.0, null, 7]", "[[]]"])
def test_a_status_that_cannot_be_read_says_nothing(text: str) -> None:
    assert noted_in(text.encode()) is None


def test_a_status_is_of_now_or_says_nothing() -> None:
    noted = Noted(3, 2, 3, 100.0, 99.0)
    assert noted.is_fresh(105.0)
    assert noted.heard(105.0) == (2, 3, 6.0)
    assert not noted.is_fresh(111.0)
    assert not noted.is_fresh(5.0), "the host has begun anew"
    assert not Noted(3).is_fresh(1.0)


@pytest.mark.parametrize(
    ("text", "token"),
    [
        (TOKEN, TOKEN),
        (f"\n# ours\n{TOKEN}\n", TOKEN),
        (f"operate secret-secret-secret\npeer {TOKEN} all pods\n", TOKEN),
    ],
)
def test_the_token_is_alone_in_its_file_or_in_a_line_of_it(tmp_path: Path, text: str, token: str) -> None:
    (tmp_path / "token").write_text(text)
    assert PeerToken(tmp_path / "token").read() == token


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "operate secret-secret-secret x\n", "peer\ntoken two\n", "t\xf6ken\n"]
)
def test_a_file_without_a_token_is_an_error_that_shows_nothing_of_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        PeerToken(tmp_path / "token").read()
    assert "secret" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        PeerToken(tmp_path / "none").read()
    with pytest.raises(ConfigError, match="--peer-token-file"):
        PeerToken(None).read()
