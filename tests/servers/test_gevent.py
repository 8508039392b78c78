"""Servers whose threads are greenlets: nothing that waits in this package stops the other requests of a worker.

Rules that change under load are in `test_prefork.py`.
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from load import eventually
from servers import client_of, fetch, mapping, run
from upstream import Peer, Upstream, serving
from wsgiprocess import GREENLETS, ServerProcess, served

pytestmark = pytest.mark.slow

Body = Callable[["Shop"], Coroutine[Any, Any, None]]
GRAY = [("gray", "true")]


class Shop:
    """A server of `greenlets`, and the upstream that is all of its services.

    Attributes:
        seen: how often each path was asked for at the upstream.
        uploading: bytes of a body have come.
        go: set for answers under /slow/.
    """

    def __init__(self, folder: Path) -> None:
        self.seen: Counter[str] = Counter()
        self.uploading = asyncio.Event()
        self.go = asyncio.Event()
        self.release = folder / "release"
        self.process: ServerProcess
        self.port = 0

    async def upstream(self, peer: Peer) -> None:
        """It says who it is, and how many bytes it got."""
        while True:
            head = await peer.head()
            path = head.line.decode().split()[1]
            self.seen[path] += 1
            length = next((int(line[16:]) for line in head.headers if line.startswith(b"content-length: ")), 0)
            got = b""
            while len(got) < length:
                got += await peer.read_some()
                self.uploading.set()
            if path == "/slow/":
                await self.go.wait()
            await peer.answer(json.dumps({"who": "gray", "bytes": len(got)}).encode())

    async def ask(self, path: str, headers: Any = (), **more: Any) -> Any:
        """Who answers."""
        answer = await fetch(self.port, path, headers=headers, **more)
        assert answer.status == 200, answer
        return json.loads(answer.body)


def rules(upstream: Upstream) -> str:
    """A stable and a gray version, a shadow, a service with health checks, one by its name, and one that is busy."""
    there = f"127.0.0.1:{upstream.origin.port}"
    check = "[{health_check: {http: {path: /health/}}, interval: 1s}]"
    return (
        mapping("stable", "/shop/", "shop-stable")
        + mapping("gray", "/shop/", there, rewrite='""', headers="{gray: 'true'}")
        + mapping("copied", "/copied/", "shop-stable", rewrite='""')
        + mapping("copies", "/copied/", there, rewrite='""', shadow="true")
        + mapping("checked", "/checked/", there, rewrite='""', health_checks=check)
        + mapping("named", "/named/", f"shop.test:{upstream.origin.port}", rewrite='""')
        + mapping("slow", "/slow/", there, rewrite='""', circuit_breakers="[{max_connections: 1}]")
    )


def shop(server: str, folder: Path, body: Body) -> None:
    """Run a test against a server of greenlets."""

    async def main() -> None:
        made = Shop(folder)
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(serving(made.upstream))
            (folder / "rules.yaml").write_text(rules(upstream))
            environ = {"GREENLETS_RULES": str(folder / "rules.yaml"), "GREENLETS_RELEASE": str(made.release)}
            started = served(server, "greenlets:create_app", folder / "log", **environ)
            made.process, made.port = stack.enter_context(started)
            await body(made)
            assert [word for word in ("Traceback", "SIGKILL", "Exception") if word in made.process.output] == []

    run(main())


@pytest.mark.parametrize("server", GREENLETS)
def test_every_way_of_a_request_is_served(server: str, tmp_path: Path) -> None:
    async def body(there: Shop) -> None:
        for _ in range(5):
            assert await there.ask("/shop/") == {"who": "stable", "bytes": 0}
            assert await there.ask("/shop/", GRAY) == {"who": "gray", "bytes": 0}
        large = bytes(300_000)
        assert await there.ask("/shop/", method="POST", body=large) == {"who": "stable", "bytes": 300_000}
        assert await there.ask("/shop/", GRAY, method="POST", body=large) == {"who": "gray", "bytes": 300_000}
        assert await there.ask("/copied/") == {"who": "stable", "bytes": 0}
        await eventually(lambda: there.seen["/copied/"] > 0)
        assert await there.ask("/checked/") == {"who": "gray", "bytes": 0}
        await eventually(lambda: there.seen["/health/"] > 1)

    shop(server, tmp_path, body)


@pytest.mark.parametrize("server", GREENLETS)
def test_a_look_up_that_blocks_stops_nobody_else(server: str, tmp_path: Path) -> None:
    async def body(there: Shop) -> None:
        async with asyncio.TaskGroup() as group:
            named = [group.create_task(there.ask("/named/")) for _ in range(4)]
            # So many that every worker that looks the name up answers some.
            await asyncio.gather(*(there.ask("/shop/", GRAY) for _ in range(20)))
            there.release.touch()
        assert [each.result()["who"] for each in named] == ["gray"] * 4

    shop(server, tmp_path, body)


@pytest.mark.parametrize("server", GREENLETS)
def test_requests_that_wait_for_a_connection_stop_nobody_else(server: str, tmp_path: Path) -> None:
    async def body(there: Shop) -> None:
        async with asyncio.TaskGroup() as group:
            # Each of two workers has one connection, so that some of these wait for one.
            slow = [group.create_task(there.ask("/slow/")) for _ in range(5)]
            await eventually(lambda: there.seen["/slow/"] > 0)
            await asyncio.gather(*(there.ask("/shop/") for _ in range(20)))
            there.go.set()
        assert [each.result()["who"] for each in slow] == ["gray"] * 5

    shop(server, tmp_path, body)


@pytest.mark.parametrize("server", ["gevent", "gevent preload"])
def test_an_upload_that_is_under_way_at_the_end_of_a_server_is_answered(server: str, tmp_path: Path) -> None:
    async def body(there: Shop) -> None:
        async with client_of(there.port) as client:
            head = f"POST /shop/ HTTP/1.1\r\nhost: a\r\ngray: true\r\ncontent-length: {1 << 20}\r\n\r\n"
            await client.put(head.encode() + bytes(1 << 19))
            await there.uploading.wait()
            there.process.child.send_signal(signal.SIGTERM)
            await eventually(lambda: "Handling signal: term" in there.process.output)
            await client.ask("GET", "/unused/")
            await client.put(bytes(1 << 19))
            answer = await client.answer()
            assert (answer.status, json.loads(answer.body)) == (200, {"who": "gray", "bytes": 1 << 20})
        assert await asyncio.to_thread(there.process.child.wait, 20) == 0

    shop(server, tmp_path, body)
