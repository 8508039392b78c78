"""Rules change under servers that fork their workers: each worker follows by itself, and loses no request by it."""

import asyncio
import json
import os
import signal
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from kubelet import Volume
from load import load
from preforked import rules
from servers import client_of, fetch, run
from upstream import Peer, Upstream, serving, until
from wsgiprocess import GREENLETS, ServerProcess, served

pytestmark = pytest.mark.slow

WORKERS = {"sync": 2, "gthread": 2, "preload": 2, "waitress": 1, "gevent": 2, "gevent preload": 2, "pywsgi": 1}
# Those that leave the signal to the system.
NO_HANDLER = ("waitress", "pywsgi")
_ids = count()


async def echo(peer: Peer) -> None:
    """The gray version: it responds with the id of each request."""
    while True:
        request = await peer.request()
        ids = [line.partition(b": ")[2].decode() for line in request.headers if line.startswith(b"x-id: ")]
        await peer.answer(json.dumps({"who": "gray", "id": (*ids, None)[0]}).encode())


class Shop:
    """A server, and the volume that its rules are in."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        self.volume = Volume(folder / "rules")
        self.upstream = upstream
        self.number = 0
        self.swap()

    def swap(self) -> None:
        """Write other rules, as kubelet does."""
        self.number += 1
        self.volume.set({"shop.yaml": rules(self.number, self.upstream.origin.port)})

    async def ask(self, port: int) -> Any:
        """The response of the stable version, over a connection of its own."""
        return json.loads((await fetch(port, "/shop/")).body)

    async def following(self, port: int, workers: int) -> set[int]:
        """The workers, as soon as so many of them have the newest rules."""
        pids: set[int] = set()
        while len(pids) < workers:
            answers = await asyncio.gather(*(self.ask(port) for _ in range(4)))
            pids |= {each["pid"] for each in answers if each["mapping"] == f"shop-{self.number}"}
            # Each has the one thread that it started itself.
            assert {each["watchers"] for each in answers} == {1}
        return pids


def end(process: ServerProcess, server: str) -> None:
    """Terminate it: nothing holds it up, and nothing is said to have gone wrong."""
    assert process.stop() == (-signal.SIGTERM if server in NO_HANDLER else 0), process.output
    assert [word for word in ("Traceback", "CRITICAL", "SIGKILL", "Exception") if word in process.output] == []


async def swaps_under_load(server: str, swaps: int, folder: Path, **environ: str) -> None:
    """Change the rules again and again; every worker follows every time, and no request is lost."""
    with ExitStack() as stack:
        async with serving(echo) as upstream:
            shop = Shop(folder, upstream)
            environ["PREFORKED_RULES"] = str(shop.volume.root)
            process, port = stack.enter_context(served(server, "preforked:create_app", folder / "log", **environ))
            await shop.following(port, WORKERS[server])
            options: Any = {"clients": 3, "pause": 0.005}
            async with load(port, "/shop/", **options) as stable, load(port, "/copies/", **options) as gray:
                for _ in range(swaps):
                    shop.swap()
                    await shop.following(port, WORKERS[server])
                await stable.more(20)
                await gray.more(20)
            assert stable.lost + gray.lost == []
            end(process, server)


@pytest.mark.parametrize("server", ["sync", "preload", "waitress", *GREENLETS])
def test_every_worker_follows_the_rules_and_no_request_is_lost(server: str, tmp_path: Path) -> None:
    run(swaps_under_load(server, 3, tmp_path))


def test_ten_swaps_lose_nothing(tmp_path: Path) -> None:
    run(swaps_under_load("gthread", 10, tmp_path))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("server", WORKERS)
def test_a_hundred_swaps_lose_nothing(server: str, tmp_path: Path) -> None:
    asyncio.run(swaps_under_load(server, 100, tmp_path))


def test_rules_that_were_loaded_before_the_fork_are_followed_after_it(tmp_path: Path) -> None:
    run(swaps_under_load("preload", 3, tmp_path, PREFORKED_STARTED="1"))


def test_a_worker_that_takes_the_place_of_a_killed_one_follows_too(tmp_path: Path) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            async with serving(echo) as upstream:
                shop = Shop(tmp_path, upstream)
                environ = {"PREFORKED_RULES": str(shop.volume.root), "PREFORKED_STARTED": "1"}
                process, port = stack.enter_context(
                    served("preload", "preforked:create_app", tmp_path / "log", **environ)
                )
                first = await shop.following(port, 2)
                os.kill(min(first), signal.SIGKILL)
                shop.swap()
                # Its successor may be here already, or the other one may still be alone.
                await until(lambda: process.output.count("Booting worker") == 3)
                second = await shop.following(port, 2)
                assert second & first == {max(first)}
                assert process.stop() == 0

    run(main())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("requests", [1_000, 10_000])
def test_threads_mix_nothing_up(requests: int, tmp_path: Path) -> None:
    async def client(port: int, share: int) -> None:
        async with client_of(port) as connection:
            for number in range(share):
                who, mine = ("gray", "stable")[number % 2], str(next(_ids))
                fields = [("x-id", mine), ("gray", "true" if who == "gray" else "false")]
                answers = json.loads((await connection.get("GET", "/shop/", fields)).body)
                assert (answers["who"], answers["id"]) == (who, mine)

    async def main() -> None:
        with ExitStack() as stack:
            async with serving(echo) as upstream:
                shop = Shop(tmp_path, upstream)
                folder = str(shop.volume.root)
                process, port = stack.enter_context(
                    served("16 threads", "preforked:create_app", tmp_path / "log", PREFORKED_RULES=folder)
                )
                await asyncio.gather(*(client(port, requests // 20) for _ in range(20)))
                # A connection serves one request after the other; there were never more than threads.
                assert 1 <= upstream.accepted <= 16
                end(process, "16 threads")

    asyncio.run(main())


@pytest.mark.parametrize("how", [[], ["past Python"]])
def test_both_sides_of_a_fork_follow_the_rules_and_end(how: list[str], tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(echo) as upstream:
            shop = Shop(tmp_path, upstream)
            environ = {"PREFORKED_RULES": str(shop.volume.root)}
            process = ServerProcess(["forked", *how], Path(__file__).parents[1] / "support", tmp_path / "log", environ)
            try:
                await until(lambda: "\n" in process.output)
                shop.swap()
                status = await asyncio.to_thread(process.child.wait, 20)
            finally:
                process.stop()
            begun, *ended = process.output.splitlines()
            # No thread has come along, and no connection of the parent's is used.
            assert begun == "child begins 1 shop-1 1 gray"
            assert sorted(ended) == ["child ended 0", "child shop-2 1 gray", "parent shop-2 1 gray"]
            assert status == 0
            assert upstream.accepted == 2

    run(main())
