"""A fake API server in a thread of its own, and stores of states in it: what blocks is called as pods call it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from clusters import kubeconfig
from fake_apiserver import FakeApi
from servers import serving_app

from canary_mw.control.rollouts.cluster.address import cluster_at
from canary_mw.control.rollouts.cluster.names import config_map_name
from canary_mw.control.rollouts.cluster.store import ClusterStore
from canary_mw.rollout.state import ReleaseState, from_json, to_json
from canary_mw.run_folder.folder import Folder

T = TypeVar("T")
NAMESPACE, LEASE = "shop", "canary-mw-shop"
DEADLINE = 20.0


class StateCluster:
    """A cluster that keeps states.

    Attributes:
        api: the server; it is changed by `do` alone, in its own event loop.
    """

    def __init__(self, api: FakeApi, folder: Path) -> None:
        self.api, self.folder = api, folder
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event
        self._thread: threading.Thread
        self.port = 0
        self._stores: list[ClusterStore] = []
        # How many answers to writes get lost.
        self.losing = 0
        # Writes that wait until it is set.
        self.gate = threading.Event()
        self.gate.set()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The server, with what a network does to it."""
        is_write = scope["method"] == "PUT" and "/configmaps/" in scope["path"]
        while is_write and not self.gate.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.005)
        if not is_write or not self.losing:
            await self.api.app(scope, receive, send)
            return
        self.losing -= 1

        async def lose(message: Any) -> None:
            """Send the beginning of an answer."""
            if message["type"] == "http.response.start":
                await send({**message, "headers": [(b"content-length", b"100000")]})

        await self.api.app(scope, receive, lose)
        raise ConnectionResetError("lost by the test")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Serve, on the port of before."""
        ready = threading.Event()

        async def main() -> None:
            self._stop = asyncio.Event()
            async with serving_app(self.app, interface="asgi3", lifespan="off", port=self.port) as self.port:
                ready.set()
                await self._stop.wait()
                self.gate.set()
                self.api.thaw()
                cutting = asyncio.create_task(self._cut())
            cutting.cancel()

        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(main()))
        self._thread.start()
        assert ready.wait(DEADLINE)

    async def _cut(self) -> None:
        """Cut all connections, and those that are made meanwhile."""
        while True:
            self.api.drop_watches(hard=True)
            await asyncio.sleep(0.01)

    def end(self) -> None:
        """Serve no more."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)

    def empty(self, api: FakeApi | None = None) -> None:
        """Begin anew, with another server and without stores."""
        for each in self._stores:
            each.close()
        self._stores.clear()
        self.losing = 0
        self.gate.set()
        if not self._thread.is_alive():
            self.begin()
        before, self.api = self.api, api or FakeApi()
        self.do(lambda: before.drop_watches(hard=True))
        self.do(before.thaw)

    def close(self) -> None:
        """End everything."""
        for each in self._stores:
            each.close()
        if self._thread.is_alive():
            self.end()
        self._loop.close()

    def do(self, function: Callable[[], T]) -> T:
        """Call a function in the loop of the server."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(DEADLINE)

    def prepare(self, *releases: str, lease: bool = True) -> None:
        """Make what the manifests make."""
        for name in releases:
            self.put("configmaps", config_map_name(name), {"metadata": {}})
        if lease:
            self.put("leases.coordination.k8s.io", LEASE, {"metadata": {}, "spec": {}})

    def address(self, **user: Any) -> str:
        """That of the states, for a pod that logs in so."""
        return f"k8s://{NAMESPACE}?kubeconfig={kubeconfig(self.folder, self.url, **user)}"

    def put(self, plural: str, name: str, body: Any) -> None:
        """Write an object, or delete it with None."""
        self.do(lambda: self.api.put(plural, NAMESPACE, name, body))

    def put_aside(self, plural: str, name: str, state: ReleaseState, version: int) -> None:
        """Write a state while nobody serves."""
        body = {"metadata": {}, "data": {"state": to_json(state), "version": str(version)}}
        self.api.put(plural, NAMESPACE, name, body)

    def store(
        self, folder: Path | None = None, releases: Dict[str, bool] | None = None, lease: str = LEASE, **user: Any
    ) -> ClusterStore:
        """The store of a process of a pod."""
        names = {"svc-r": True} if releases is None else releases
        run_folder = None if folder is None else Folder(str(folder))
        found = ClusterStore(cluster_at(self.address(**user), lease), run_folder, lambda: names)
        self._stores.append(found)
        return found

    def speaking(self, folder: Path | None = None, **more: Any) -> ClusterStore:
        """The store of the process that speaks for its pod."""
        found = self.store(folder, **more)
        found.contend(speaks=True)
        found.load()
        return found

    def object(self, release: str = "svc-r") -> Any:
        """The ConfigMap of a release."""
        return self.api.objects.get(("configmaps", NAMESPACE, config_map_name(release)))

    def state(self, release: str = "svc-r") -> ReleaseState:
        """What it says."""
        return from_json(self.object(release)["data"]["state"])

    def lease(self) -> Any:
        """The Lease."""
        return self.api.objects["leases.coordination.k8s.io", NAMESPACE, LEASE]["spec"]


@contextlib.contextmanager
def state_cluster(folder: Path, api: FakeApi | None = None, *, made: bool = True) -> Iterator[StateCluster]:
    """A cluster, by default with an empty object for the release `svc-r`, and a Lease."""
    found = StateCluster(api or FakeApi(), folder)
    found.begin()
    try:
        if made:
            found.prepare("svc-r")
        yield found
    finally:
        found.close()


def until(condition: Callable[[], Any]) -> None:
    """Wait for what another thread does."""
    limit = monotonic() + DEADLINE
    while not condition():
        assert monotonic() < limit
        threading.Event().wait(0.005)
