"""The API server of the tests as a process: it is killed, stopped and started again, and what it did can be read."""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from api_process import ADMIN
from servers import free_port
from wsgiprocess import ServerProcess

from canary_mw.exceptions import NewerFormat, StateError
from canary_mw.rollout.state import ReleaseState, from_json

NAMESPACE = "shop"
LEASE, PREFIX = "canary-mw-shop", "canary-mw-release-"
_LEASES, _MAPS, _SLICES = "leases.coordination.k8s.io", "configmaps", "endpointslices.discovery.k8s.io"
_PATIENCE = 10.0


class Written(NamedTuple):
    """A state that was written.

    Attributes:
        at: seconds of the monotonic clock.
        by: the pod, "" for the test.
        number: the counter in the object.
    """

    at: float
    by: str
    number: int
    state: ReleaseState


class Asked(NamedTuple):
    """A request that was answered.

    Attributes:
        at: seconds of the monotonic clock when it came.
        pod: who asked, "" for the test.
    """

    at: float
    pod: str
    verb: str
    plural: str
    name: str
    status: int


class ClusterApi:
    """The server and what it holds.

    Args:
        folder: of its journals and its logs.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: ServerProcess | None = None
        self._starts = 0
        self._objects, self._requests = (_Followed(folder / name) for name in ("objects", "requests"))
        self._now: dict[tuple[str, str], Any] = {}
        self._leases: list[tuple[float, str]] = []
        self._states: dict[str, list[Written]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, with what it held before, on the same port."""
        assert self._process is None
        self._starts += 1
        support = Path(__file__).parent
        command = [str(support / "api_process.py"), str(self._folder), str(self.port)]
        log = self._folder / f"api-{self._starts}.log"
        self._process = ServerProcess(command, support, log, {}, program=[sys.executable])
        self._process.wait_for_port(self.port)

    def kill(self) -> None:
        """End it without a word: connections are reset, new ones are refused."""
        process, self._process = self._process, None
        if process is not None:
            process.child.kill()
            process.stop()

    def freeze(self) -> None:
        """Stop it: connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.child.send_signal(number)

    def hold(self, what: str, pod: str = "") -> None:
        """Let requests wait, as `update configmaps`; of one pod, or of all."""
        self._control("hold", what=what, pod=pod)

    def release(self) -> None:
        """Let them go on."""
        self._control("release")

    def compact(self) -> None:
        """Forget the history: watches from any earlier version get 410."""
        self._control("compact")
        self._control("drop")

    def _control(self, do: str, **query: str) -> None:
        self._ask("POST", f"/control/{do}?{urlencode(query)}")

    def put(self, kind: str, name: str, body: dict[str, Any] | None) -> None:
        """Write an object, whatever it was before, or delete it with None; `kind` is as `api/v1/configmaps`."""
        root, _, plural = kind.rpartition("/")
        place = f"/{root}/namespaces/{NAMESPACE}/{plural}"
        if body is None:
            self._ask("DELETE", f"{place}/{name}")
            return
        named = {**body, "metadata": {**body.get("metadata", {}), "name": name}}
        if self._ask("PUT", f"{place}/{name}", named) == 404:
            assert self._ask("POST", place, named) == 201

    def _ask(self, method: str, path: str, body: Any = None) -> int:
        text = None if body is None else json.dumps(body)
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)) as connection:
            connection.request(method, path, text, {"authorization": f"Bearer {ADMIN}"})
            response = connection.getresponse()
            response.read()
            return response.status

    # What it holds, also while it is away.

    def state(self, name: str) -> ReleaseState:
        """That of a release."""
        return self.writes(name)[-1].state

    def writes(self, name: str) -> Sequence[Written]:
        """The states of a release, in their order."""
        self._read()
        return self._states.get(name, [])

    def config_map(self, name: str) -> Any:
        """That of a release; None where there is none."""
        self._read()
        return self._now.get((_MAPS, PREFIX + name))

    @property
    def lease(self) -> Any:
        """The Lease's spec; None where there is no Lease."""
        self._read()
        return (self._now[_LEASES, LEASE] or {}).get("spec")

    @property
    def leader(self) -> str:
        """The pod that has written the Lease last with a name in it, "" for none."""
        self._read()
        held = self._leases and self.lease is not None and self.lease.get("holderIdentity")
        return self._leases[-1][1] if held else ""

    @property
    def leaders(self) -> Sequence[tuple[float, str]]:
        """When which pod has written the Lease."""
        self._read()
        return self._leases

    def asked(self) -> list[Asked]:
        """The requests that were answered since this was asked last."""
        return [
            Asked(line["began"], line["pod"], line["verb"], line["place"][0], line["place"][1], line["status"])
            for line in self._requests.news()
        ]

    def _read(self) -> None:
        for line in self._objects.news():
            plural, _, name = line["place"]
            body = self._now[plural, name] = line["body"]
            if plural == _LEASES and line["by"]:
                self._leases.append((line["at"], line["by"]))
            if plural == _MAPS and body is not None:
                self._note(name.removeprefix(PREFIX), line, body.get("data") or {})

    def _note(self, name: str, line: Any, data: dict[str, str]) -> None:
        known = self._states.setdefault(name, [])
        try:
            written = Written(line["at"], line["by"], int(data["version"]), from_json(data["state"]))
        except (KeyError, NewerFormat, StateError):
            return
        # A checkpoint writes the object too, and no other state.
        if not known or (written.number, written.state) != (known[-1].number, known[-1].state):
            known.append(written)


class _Followed:
    """The lines that a file gets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._offset = 0

    def news(self) -> Iterator[Any]:
        """Those since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            found = file.read()
        self._offset += len(found)
        *lines, self._rest = (self._rest + found).split(b"\n")
        yield from map(json.loads, lines)


@contextmanager
def cluster_api(folder: Path) -> Iterator[ClusterApi]:
    """A server that runs, with an empty namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    api = ClusterApi(folder)
    api.start()
    try:
        yield api
    finally:
        api.kill()
