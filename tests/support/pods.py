"""Pods of a Deployment as real processes, on addresses of their own of this host, and the cluster that they are in.

A pod is `canary-mw serve`, or a FastAPI app with the middleware under gunicorn with two workers. It has a name, an
address, a run folder (its emptyDir), a token for the API server, and a file with the token of its peers.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dict
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal

import yaml
from api_process import POD, token_of
from cluster_api import LEASE, NAMESPACE, PREFIX, ClusterApi, cluster_api
from kept_rollouts import state_in
from servers import Process
from staged import DEADLINE, Upstreams, until, upstreams

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.rollout.state import Phase, ReleaseState, to_json
from canary_mw.rules.release import GrayRelease

Kind = Literal["proxy", "app"]
SERVICE = "shop"
OPERATE, PEER = "operate-token-0123456789abcdef", "peer-token-0123456789abcdef"
NOTHING: Dict[str, str] = {}
_SUPPORT = Path(__file__).parent
_ACCESS = _SUPPORT.parents[1] / "k8s" / "components" / "rollout" / "access.yaml"
_LABELS = {"app.kubernetes.io/managed-by": "canary-mw"}


def _own_environ() -> dict[str, str]:
    """The environment of the tests without what is a setting of the pods."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CANARY_MW_")}


class _Group(Process):
    """A process that leads a group of its own, with all that it starts."""

    def __init__(self, command: Sequence[str], log: Path, environ: Dict[str, str]) -> None:
        self.log = log
        self._file = log.open("ab")
        self.child = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**_own_environ(), "PYTHONPATH": str(_SUPPORT), **environ},
            start_new_session=True,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)

    def end(self) -> None:
        """Kill all of them."""
        self.signal(signal.SIGKILL)
        self.child.wait()
        self._file.close()


class Pod:
    """A pod. `start` begins its life, `kill` ends it; it may be started again, as another one of the same name.

    Attributes:
        name: of the pod, and of its token.
        host: its address; the ports are those of all pods.
        environ: variables besides.
        lives: how often it was started.
    """

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.name, self.host = f"shop-{number}", f"127.0.0.{10 + number}"
        self.environ: dict[str, str] = {}
        self.lives = 0
        self._cluster = cluster
        self.folder = cluster.folder / self.name
        self.folder.mkdir()
        self._folders = 0
        self._process: _Group | None = None
        self.empty()
        self.believe(PEER)
        self.show(PEER)

    @property
    def run_folder(self) -> Path:
        """Its emptyDir."""
        return self.folder / f"empty-{self._folders}"

    def empty(self) -> None:
        """A new emptyDir, as a new pod has."""
        self._folders += 1
        self.run_folder.mkdir(mode=0o700)

    def believe(self, peer: str) -> None:
        """The token that it takes from peers."""
        (self.folder / "tokens").write_text(f"operate {OPERATE} alice\npeer {peer} pods\n")

    def show(self, peer: str) -> None:
        """The token that it shows to peers."""
        (self.folder / "peer").write_text(peer)

    @property
    def is_up(self) -> bool:
        return self._process is not None

    @property
    def output(self) -> str:
        """All that it has written in all its lives."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def start(self, **environ: str) -> None:
        """Start its processes, and do not wait for them."""
        assert self._process is None
        settings = {**self._settings(), **self.environ, **environ}
        self.lives += 1
        self._process = _Group(self._command(), self.folder / "log", settings)

    def _settings(self) -> dict[str, str]:
        found = {
            "admin_host": self.host,
            "admin_port": str(self._cluster.admin_port),
            "admin_token_file": str(self.folder / "tokens"),
            "id": SERVICE,
            "peer_token_file": str(self.folder / "peer"),
            "peers": SERVICE,
            "rules": str(self._cluster.rules),
            "run_dir": str(self.run_folder),
            "state": f"k8s://{NAMESPACE}?kubeconfig={self._kubeconfig()}",
            "upstream": ",".join(self._cluster.upstreams.options[1::2]),
            **({"local": "stable"} if self._cluster.kind == "app" else {}),
        }
        api = self._cluster.api
        pod = {"HOSTNAME": self.name, "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)}
        return pod | {f"CANARY_MW_{name.upper()}": value for name, value in found.items()}

    def _kubeconfig(self) -> Path:
        path = self.folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
            "clusters": [{"name": "c", "cluster": {"server": self._cluster.api.url}}],
            "users": [{"name": "u", "user": {"token": token_of(self.name)}}],
        }
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    def _command(self) -> list[str]:
        port = self._cluster.port
        if self._cluster.kind == "proxy":
            options = ["--host", self.host, "--port", str(port), "--workers", str(self._cluster.workers)]
            return ["canary_mw", "serve", *options]
        workers = ["--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker"]
        # By default it closes idle connections after two seconds, and those of users may be idle for longer.
        where = ["--bind", f"{self.host}:{port}", "--graceful-timeout", "5", "--keep-alive", "60"]
        return ["gunicorn", "--no-control-socket", *workers, *where, "pod_app:create_app()"]

    def wait_until_ready(self) -> None:
        """Until its port answers, and it says that it is ready."""
        until(lambda: self.probe() == 200, f"{self.name} is not ready:\n{self.output}")

    def probe(self) -> int:
        """The status of its readiness; 0 where nobody answers. It has not ended by itself."""
        assert self._process is not None
        assert self._process.child.poll() is None, f"{self.name} has ended:\n{self.output}"
        try:
            ready = self.admin("GET", "/readyz")[0]
            with socket.create_connection((self.host, self._cluster.port), DEADLINE):
                return ready
        except OSError:
            return 0

    def kill(self) -> None:
        """End it as a node does that dies."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def freeze(self) -> None:
        """Stop all its processes."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        assert self._process is not None
        self._process.signal(signal.SIGCONT)

    def admin(self, method: str, path: str, token: str = "", body: Any = None) -> tuple[int, Any]:
        """Status and value of an answer of its admin port."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        text = None if body is None else json.dumps(body)
        with contextlib.closing(HTTPConnection(self.host, self._cluster.admin_port, timeout=DEADLINE)) as connection:
            connection.request(method, path, text, headers)
            response = connection.getresponse()
            found = response.read()
        return response.status, json.loads(found) if found[:1] in (b"{", b"[") else found

    def give(self, release: str, command: str) -> int:
        """Give a command; the status of the answer. `command` may end with a query."""
        return self.admin("POST", f"/api/v1/releases/{release}/{command}", OPERATE)[0]

    def rollout(self, release: str) -> Any:
        """How far a release is for it."""
        listed = self.admin("GET", "/api/v1/releases")[1]["releases"]
        return next(each["rollout"] for each in listed if each["name"] == release)

    def ask(self, release: str, *keys: str, **headers: str) -> list[str]:
        """Who answers each of some keys."""
        found = []
        with contextlib.closing(HTTPConnection(self.host, self._cluster.port, timeout=DEADLINE)) as connection:
            for key in keys:
                connection.request("GET", f"/{release}/", headers={"x-user": key, **headers})
                found.append(connection.getresponse().read().decode())
        return found

    def share(self, release: str, *, keys: int = 100) -> float:
        """The percent of some keys that gets gray."""
        return 100 * self.ask(release, *(f"user-{key}" for key in range(keys))).count("gray") / keys


class Cluster:
    """A namespace with an API server and pods.

    Attributes:
        folder: of all its files.
        rules: the file of the rules of all pods.
        port: of all pods, for users.
    """

    def __init__(self, folder: Path, api: ClusterApi, found: Upstreams, kind: Kind, workers: int) -> None:
        self.folder, self.api, self.upstreams = folder, api, found
        self.kind, self.workers = kind, workers
        self.rules = folder / "rules.yaml"
        self.port, self.admin_port = _free_ports()
        self.pods: list[Pod] = []

    @property
    def up(self) -> list[Pod]:
        """The pods that run."""
        return [each for each in self.pods if each.is_up]

    @property
    def leader(self) -> Pod:
        """The pod that has the Lease, as soon as one has it that runs."""
        found: Pod = until(lambda: next((each for each in self.up if each.name == self.api.leader), None), "no leader")
        return found

    def followers(self) -> list[Pod]:
        """The others that run."""
        leader = self.leader
        return [each for each in self.up if each is not leader]

    def prepare(self, text: str, *, phases: Dict[str, Phase] = {}, states: Dict[str, ReleaseState] = {}) -> None:
        """Write rules, and the objects of their releases; one without a phase and a state has an empty object.

        Args:
            phases, states: by release.
        """
        self.rules.write_text(text, encoding="utf-8")
        names = []
        for document in documents(text, self.kind):
            names.append(PREFIX + document.name)
            state = states.get(document.name)
            if document.name in phases:
                state = state_in(document, phases[document.name])
            self.write_state(document.name, None if state is None else to_json(state))
        self.api.put("apis/coordination.k8s.io/v1/leases", LEASE, {"spec": {}})
        self.grant(names)

    def write_state(self, release: str, text: str | None, version: int = 1) -> None:
        """Write the object of a release, without a state for None."""
        data = {} if text is None else {"data": {"state": text, "version": str(version)}}
        self.api.put("api/v1/configmaps", PREFIX + release, {"metadata": {"labels": _LABELS}, **data})

    def grant(self, names: Sequence[str], *, without: Sequence[str] = ()) -> None:
        """Give the pods the rights of the manifests on these ConfigMaps, without some, as `update configmaps`."""
        role = next(yaml.safe_load_all(_ACCESS.read_text(encoding="utf-8")))
        rules = [_rule(each, {"configmaps": names, "leases": [LEASE]}, without) for each in role["rules"]]
        rbac = "apis/rbac.authorization.k8s.io/v1"
        subject = {"kind": "ServiceAccount", "name": POD.rpartition(":")[2], "namespace": NAMESPACE}
        self.api.put(f"{rbac}/roles", "canary", {"rules": rules})
        binding = {"roleRef": {"kind": "Role", "name": "canary"}, "subjects": [subject]}
        self.api.put(f"{rbac}/rolebindings", "canary", binding)

    def publish(self, *, admin_port: int = 0) -> None:
        """Write the endpoints of the pods that run.

        Args:
            admin_port: another one than theirs.
        """
        endpoints = [
            {
                "addresses": [each.host],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "name": each.name, "namespace": NAMESPACE},
            }
            for each in self.up
        ]
        ports = [
            {"name": "http", "port": self.port, "protocol": "TCP"},
            {"name": "admin", "port": admin_port or self.admin_port, "protocol": "TCP"},
        ]
        metadata = {"labels": {"kubernetes.io/service-name": SERVICE}}
        body = {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
        self.api.put("apis/discovery.k8s.io/v1/endpointslices", f"{SERVICE}-1", body)

    def add(self) -> Pod:
        """One more pod, which does not run yet."""
        self.pods.append(Pod(self, len(self.pods)))
        return self.pods[-1]

    def start(self, count: int = 3, **environ: str) -> list[Pod]:
        """Start new pods, and wait until they are ready; returns them."""
        begun = [self.add() for _ in range(count)]
        for each in begun:
            each.start(**environ)
        self.publish()
        for each in begun:
            each.wait_until_ready()
        return begun


def documents(text: str, kind: Kind = "proxy") -> Sequence[GrayRelease]:
    """The releases of some rules, as pods read them."""
    store = RuleStore(StaticSource(text), local=("stable",) if kind == "app" else ())
    store.reload()
    assert store.error is None, store.error
    return store.table.documents.in_force


@contextlib.contextmanager
def cluster(folder: Path, *, kind: Kind = "proxy", workers: int = 1) -> Iterator[Cluster]:
    """A cluster without pods; what runs in it ends with the block, and its output is shown where that fails."""
    with upstreams() as found, cluster_api(folder / "api") as api:
        made = Cluster(folder, api, found, kind, workers)
        try:
            yield made
        except BaseException:
            for each in made.pods:
                print(f"--- {each.name}\n{each.output}")
            raise
        finally:
            for each in made.pods:
                each.kill()


def _rule(rule: Any, names: Dict[str, Sequence[str]], without: Sequence[str]) -> Any:
    """A rule of the manifests for other names."""
    (plural,) = rule["resources"]
    verbs = [verb for verb in rule["verbs"] if f"{verb} {plural}" not in without]
    return {**rule, "verbs": verbs, **({"resourceNames": list(names[plural])} if plural in names else {})}


def _free_ports() -> list[int]:
    """Two ports that nobody uses at any address of this host at the moment."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("", 0))
        return [each.getsockname()[1] for each in (one, other)]
