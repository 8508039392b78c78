"""States in a cluster, under servers that fork, also where threads are greenlets: one worker asks the API for all."""

import os
import signal
from pathlib import Path

import pytest
from staged import gray_share, rules, until
from state_cluster import StateCluster, state_cluster
from wsgiprocess import served

pytestmark = pytest.mark.slow

STEPS = [{"setWeight": 100}]


def watches(cluster: StateCluster) -> int:
    return cluster.do(lambda: cluster.api.watching)


@pytest.mark.parametrize(("server", "started"), [("sync", False), ("preload", True), ("gevent preload", False)])
def test_one_worker_of_a_server_speaks_for_all(tmp_path: Path, server: str, started: bool) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(rules("timed", steps=STEPS))
    with state_cluster(tmp_path, made=False) as cluster:
        cluster.prepare("timed")
        environ = {
            "STEPPED_RULES": str(path),
            "CANARY_MW_STATE": cluster.address(),
            "CANARY_MW_ID": "shop",
            # There are no others to ask.
            "CANARY_MW_SINGLE": "1",
            "HOSTNAME": "pod-1",
        }
        if started:
            environ["STEPPED_STARTED"] = "1"
        with served(server, "stepped:create_app", tmp_path / "log", **environ) as (running, port):
            until(lambda: gray_share(port, "timed", keys=5) == 100)
            assert cluster.state("timed").weights == {"timed-gray": 100.0}
            before = cluster.lease()
            assert before["holderIdentity"].startswith("pod-1_")
            # A master that has read the rules asks, too.
            until(lambda: watches(cluster) == 1 + started)
            if not started:
                os.kill(speaker_of(running.child.pid, cluster.port), signal.SIGKILL)
                until(lambda: cluster.lease()["renewTime"] > before["renewTime"])
                assert cluster.lease()["holderIdentity"] == before["holderIdentity"]
                until(lambda: watches(cluster) == 1)
            assert running.stop() == 0
            assert "Traceback" not in running.output, running.output
        assert cluster.lease()["holderIdentity"] == ""


def speaker_of(server: int, port: int) -> int:
    """The worker that is connected to the API."""
    for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split():
        inodes = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[2] == f"0100007F:{port:04X}" and f"socket:[{fields[9]}]" in inodes:
                return int(pid)
    raise AssertionError("no worker is connected to the API")
