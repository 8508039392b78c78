"""Workers of real servers read one cluster: one of them watches, and another one takes over when it is killed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_box import Version
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi
from preforked import rules
from servers import fetch, fetch_admin, free_port, process, serving_app
from upstream import serving
from wsgiprocess import ServerProcess

WORKERS = 4
GUNICORN = ("gunicorn", "--no-control-socket", "--workers", str(WORKERS), "--graceful-timeout", "5")
HOW = {"sync": (), "gevent": ("--worker-class", "gevent"), "preload": ("--preload",)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Watched:
    """An API that is served, and how many watches there are of it."""

    def __init__(self, api: FakeApi, address: str, upstream: int) -> None:
        self.api, self.address = api, address
        self.upstream = upstream
        self.number = 0
        self.change()

    def change(self) -> None:
        self.number += 1
        self.api.annotate("shop", "shop", rules(self.number, self.upstream))

    @property
    def watches(self) -> int:
        return sum(verb == "watch" for verb, _, _ in self.api.requests)

    async def following(self, port: int) -> set[int]:
        """The workers, as soon as all of them have the newest rules."""
        pids: set[int] = set()
        async with asyncio.timeout(40):
            while len(pids) < WORKERS:
                found = await asyncio.gather(*(fetch(port, "/shop/") for _ in range(8)))
                answers: list[Any] = [json.loads(each.body) for each in found]
                pids |= {each["pid"] for each in answers if each["mapping"] == f"shop-{self.number}"}
        return pids


@asynccontextmanager
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    api = FakeApi()
    async with serving(Version(b"gray")) as upstream, serving_app(api.app, lifespan="off") as port:
        path = kubeconfig(tmp_path, f"http://127.0.0.1:{port}")
        yield Watched(api, f"k8s://shop?kubeconfig={path}", upstream.origin.port)
        api.drop_watches(hard=True)


def holders(folder: Path) -> set[int]:
    """The processes that hold a lock below a folder."""
    locks = {each.stat().st_ino for each in folder.rglob("kubernetes-*.lock")}
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(line[4]) for line in lines if line[1] == "FLOCK" and int(line[5].rpartition(":")[2]) in locks}


@pytest.mark.parametrize("how", HOW)
@in_loop
async def test_one_worker_of_gunicorn_watches_and_another_takes_over(how: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    async with watched(tmp_path) as cluster:
        port = free_port()
        arguments = [*GUNICORN, *HOW[how], "--bind", f"127.0.0.1:{port}", "preforked:create_app()"]
        environ = {"PREFORKED_RULES": cluster.address, "XDG_RUNTIME_DIR": str(run_dir), "CANARY_MW_RUN_DIR": ""}
        support = Path(__file__).parents[1] / "support"
        running = ServerProcess(arguments, support, tmp_path / "log", environ)
        try:
            running.wait_for_port(port)
            first = await cluster.following(port)
            cluster.change()
            await cluster.following(port)
            assert cluster.watches == 2
            (holder,) = holders(run_dir)
            os.kill(holder, signal.SIGKILL)
            # Its successor is the fourth one again.
            for _ in range(2):
                cluster.change()
                second = await cluster.following(port)
            assert len(first & second) == WORKERS - 1
            assert holders(run_dir) <= second
            assert cluster.watches == 4
        finally:
            await asyncio.to_thread(running.stop)
        assert [word for word in ("Traceback", "CRITICAL", "Warning") if word in running.output] == [], running.output
        assert len(list(run_dir.iterdir())) == 1


@in_loop
async def test_one_worker_of_the_proxy_watches_for_all(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    async with watched(tmp_path) as cluster:
        port, admin = free_port(), free_port()
        ports = ["--port", str(port), "--admin-port", str(admin), "--workers", str(WORKERS)]
        environ = {"XDG_RUNTIME_DIR": str(run_dir), "CANARY_MW_RUN_DIR": ""}
        with process("serve", "--rules", cluster.address, *ports, log=tmp_path / "log", wait_for=[port], **environ):
            await ready(admin, cluster)
            (holder,) = holders(run_dir)
            assert cluster.watches == 2
            os.kill(holder, signal.SIGKILL)
            cluster.change()
            await ready(admin, cluster)
            assert holders(run_dir) != {holder}
        assert list(run_dir.iterdir()) == []


async def ready(admin: int, cluster: Watched) -> None:
    """Wait until a row of answers shows the newest rules; each worker gets some of the connections."""
    row = 0
    async with asyncio.timeout(40):
        while row < 40:
            try:
                found = await fetch_admin(admin, "/rules")
            except (ConnectionError, AssertionError):
                # Of the killed worker: without an answer.
                continue
            row = row + 1 if f'"shop-{cluster.number}"'.encode() in found.body else 0
