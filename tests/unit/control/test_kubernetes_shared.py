"""One of several workers watches a cluster, the others follow it, and another one takes over when it ends.

Two stores of one process stand for two workers: a lock in a folder is not shared by them.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi
from servers import serving_app

from canary_mw.control.sources import kubernetes, kubernetes_shared
from canary_mw.control.sources.named import source_of
from canary_mw.control.store import RuleStore
from canary_mw.run_folder import opened
from canary_mw.run_folder.folder import Folder, remove_folder
from canary_mw.run_folder.lock import FolderLock
from canary_mw.run_folder.opened import run_folder

KINDS = 3


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kubernetes, "START_JITTER", 0.0)
    yield
    opened._after_fork()


def rule(weight: int) -> str:
    lines = ["---", "apiVersion: getambassador.io/v2", "kind: Mapping", "name: gray", "prefix: /shop/", "service: gray"]
    return "\n".join([*lines, f"weight: {weight}", ""])


class Pod:
    """Stores that stand for the workers of one server, and the API that they read."""

    def __init__(self, server: FakeApi, address: str, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.stores: list[RuleStore] = []
        self._address = address

    async def worker(self) -> RuleStore:
        """Start one more."""
        source = source_of([self._address], folder=partial(run_folder, str(self.folder)))
        store = RuleStore(source)
        self.stores.append(store)
        await asyncio.to_thread(store.start)
        return store

    async def end(self, store: RuleStore) -> None:
        self.stores.remove(store)
        await asyncio.to_thread(store.stop)

    def weigh(self, weight: int) -> None:
        self.server.annotate("shop", "gray", rule(weight))

    async def all_show(self, weight: int) -> None:
        for store in self.stores:
            await until(lambda store=store: [each.weight for each in store.table.mappings] == [weight])  # type: ignore[misc]

    @property
    def watches(self) -> int:
        """How many were opened."""
        return sum(verb == "watch" for verb, _, _ in self.server.requests)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a thread makes it true
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def pod(tmp_path: Path, folder: str = "run") -> AsyncIterator[Pod]:
    server = FakeApi()
    async with serving_app(server.app, lifespan="off") as port:
        path = kubeconfig(tmp_path, f"http://127.0.0.1:{port}", token="admin")
        made = Pod(server, f"k8s://shop?kubeconfig={path}", tmp_path / folder)
        made.weigh(10)
        try:
            yield made
        finally:
            # Those that follow end first: else each would begin to watch.
            for store in reversed(made.stores[:]):
                await made.end(store)
            server.drop_watches(hard=True)
            for _ in range(5):
                await asyncio.sleep(0)


async def shared(made: Pod, workers: int) -> list[RuleStore]:
    """Start workers, of which the first one watches."""
    stores = [await made.worker() for _ in range(workers)]
    await made.all_show(10)
    await until(lambda: made.watches == 2)
    return stores


@in_loop
async def test_one_worker_watches_for_all(tmp_path: Path) -> None:
    async with pod(tmp_path) as made:
        stores = await shared(made, 3)
        for weight in (20, 30, 40):
            made.weigh(weight)
            await made.all_show(weight)
        # Services and Ingresses; the kind Mapping is not installed.
        assert made.watches == 2
        statuses = [[(each.kind, each.objects) for each in store.source_status()] for store in stores]
        await until(lambda: {str(store.source_status()[0].synced) for store in stores} == {"True"})
        assert statuses[0] == statuses[1] == statuses[2]
        assert len(statuses[0]) == KINDS


@in_loop
async def test_another_worker_takes_over_and_keeps_what_was_known(tmp_path: Path) -> None:
    async with pod(tmp_path) as made:
        first, *others = await shared(made, 3)
        made.weigh(20)
        await made.all_show(20)
        # Nobody can list while the lock changes hands.
        made.server.freeze()
        generations = [each.generation for each in others]
        await made.end(first)
        await until(lambda: any(isinstance(each.source._view, kubernetes.ClusterView) for each in others))  # type: ignore[attr-defined]
        assert [each.generation for each in others] == generations
        made.weigh(30)
        made.server.thaw()
        await made.all_show(30)
        assert made.watches == 4
        await made.worker()
        await made.all_show(30)
        assert made.watches == 4


@in_loop
async def test_a_deletion_of_everything_reaches_those_that_follow(tmp_path: Path) -> None:
    async with pod(tmp_path) as made:
        stores = await shared(made, 2)
        made.server.put("services", "shop", "gray", None)
        for store in stores:
            await until(lambda store=store: not store.table.mappings)  # type: ignore[misc]
            assert store.error is None


@in_loop
async def test_why_nothing_is_known_is_said_by_each_worker(tmp_path: Path) -> None:
    async with pod(tmp_path) as made:
        made.server.fail_next(500, 1000)
        stores = [await made.worker() for _ in range(2)]
        for store in stores:
            await until(lambda store=store: "status 500" in str(store.error))  # type: ignore[misc]


@pytest.mark.parametrize("what", ["files", "folder"])
@in_loop
async def test_a_folder_that_is_wiped_changes_nothing(what: str, tmp_path: Path) -> None:
    async with pod(tmp_path) as made:
        await shared(made, 3)
        if what == "folder":
            remove_folder(str(made.folder))
        else:
            for each in made.folder.iterdir():
                each.unlink()
        made.weigh(20)
        await made.all_show(20)
        await made.worker()
        await made.all_show(20)


@in_loop
async def test_where_the_folder_is_full_each_worker_watches_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with pod(tmp_path) as made:
        await shared(made, 2)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Folder, "replace", full)
        await until(lambda: made.watches == 4)
        made.weigh(20)
        await made.all_show(20)
        assert sum("No space left" in each.getMessage() for each in caplog.records) == 1


@in_loop
async def test_a_worker_that_holds_the_lock_and_is_silent_does_not_keep_the_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pod(tmp_path) as made:
        holder = FolderLock(partial(run_folder, str(made.folder)), lock_name(made))
        assert holder.acquire()
        monkeypatch.setattr(kubernetes_shared, "MAX_SILENCE", 0.0)
        await made.worker()
        await made.all_show(10)
        made.weigh(20)
        await made.all_show(20)
        # The one that is silent ends: the lock is taken, and the watches go on.
        watches = made.watches
        holder.release()
        await until(lambda: any(made.folder.glob("*.json")))
        assert made.watches == watches


def lock_name(made: Pod) -> str:
    """The name of the lock of the address."""
    source: Any = source_of([made._address], folder=partial(run_folder, str(made.folder)))
    return str(source._files.lock._name)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"documents": [{}], "problem": ""}', b"null"])
@in_loop
async def test_a_snapshot_that_cannot_be_read_is_left(text: bytes, tmp_path: Path) -> None:
    async with pod(tmp_path) as made:
        _, follower = await shared(made, 2)
        await until(lambda: list(made.folder.glob("*.json")))
        (file,) = made.folder.glob("*.json")
        Folder(str(made.folder)).replace(file.name, text)
        made.weigh(20)
        await made.all_show(20)
        assert follower.error is None


@in_loop
async def test_a_half_written_snapshot_of_a_killed_worker_is_removed(tmp_path: Path) -> None:
    async with pod(tmp_path) as made:
        first = await made.worker()
        await made.all_show(10)
        await until(lambda: list(made.folder.glob("*.json")))
        (file,) = made.folder.glob("*.json")
        made.folder.joinpath(f".{file.name}.1").write_text("{")
        await made.end(first)
        await made.worker()
        await made.all_show(10)
        assert [each.name for each in made.folder.iterdir() if each.name.endswith(".1")] == []


@in_loop
async def test_missing_rights_are_told_at_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pod(tmp_path) as made:
        made.server.denied = {"watch services"}
        await made.worker()
        rule_text = 'Role in shop: {apiGroups: [""], resources: [services], verbs: [watch]}'
        await until(lambda: any(rule_text in each.getMessage() for each in caplog.records))
