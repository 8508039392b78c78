"""What a process does at SIGTERM: the middleware under uvicorn, and its signal handler."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from servers import Process, client_of, fetch, free_port, mapping, process, run
from test_websocket import Service, closed, served
from upstream import Peer, serving, until
from websockets.asyncio.client import ClientConnection, connect

from canary_mw.middleware.asgi.shutdown import on_sigterm

APP = """
from canary_mw import CanaryMiddleware

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})

app = CanaryMiddleware(app, rules="RULES")
"""


class Uvicorn(Process):
    """The middleware around an app, as its users start it."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.log = folder / "log"
        self._file = self.log.open("wb")
        (folder / "ended.py").write_text(APP.replace("RULES", str(folder / "rules.yaml")))
        command = [sys.executable, "-m", "uvicorn", "ended:app", "--app-dir", str(folder), "--port", str(port)]
        self.child = subprocess.Popen([*command, *options], stdout=self._file, stderr=subprocess.STDOUT)


@contextmanager
def uvicorn(folder: Path, rules: str, *options: str) -> Iterator[tuple[Uvicorn, int]]:
    """Run it until the block ends."""
    (folder / "rules.yaml").write_text(rules)
    port = free_port()
    running = Uvicorn(folder, port, *options)
    try:
        running.wait_for_port(port)
        yield running, port
    finally:
        running.stop()


async def opened(url: str) -> ClientConnection:
    """A websocket that has sent a message and received its echo."""
    websocket = await connect(url, proxy=None)
    await websocket.send("hello")
    assert await websocket.recv() == "hello"
    return websocket


@pytest.mark.parametrize(
    "options",
    [[], pytest.param(["--workers", "2"], marks=pytest.mark.slow), ["--ws", "wsproto"]],
    ids=["one", "two workers", "wsproto"],
)
def test_the_middleware_ends_its_tunnels_before_the_server_does(options: list[str], tmp_path: Path) -> None:
    async def main() -> None:
        service = Service()
        async with served(service) as upstream:
            rules = mapping("a", "/shop/", f"127.0.0.1:{upstream}", allow_upgrade="[websocket]")
            with uvicorn(tmp_path, rules, *options) as (server, port):
                async with await opened(f"ws://127.0.0.1:{port}/shop/") as websocket:
                    server.terminate()
                    received = await closed(websocket)
                await asyncio.to_thread(server.stop)
            await until(lambda: service.ends)
            assert received == (1001, "")
            assert service.ends[0]["code"] == 1001
            assert "Traceback" not in server.output

    run(main())


@pytest.mark.parametrize("before", [0, 1], ids=["a new connection", "a kept connection"])
def test_what_outlasts_the_grace_period_is_given_up_and_the_exit_is_clean(before: int, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(mapping("a", "/shop/", "shop", timeout_ms=0))
    port, asked = free_port(), asyncio.Event()

    async def script(peer: Peer) -> None:
        for _ in range(before):
            await peer.request()
            await peer.answer()
        await peer.request()
        asked.set()
        await peer.gone()

    async def main() -> None:
        async with serving(script) as upstream:
            arguments = ["serve", "--rules", str(tmp_path / "rules.yaml"), "--port", str(port), "--grace", "1"]
            arguments += ["--upstream", f"shop=http://127.0.0.1:{upstream.origin.port}"]
            with process(*arguments, log=tmp_path / "log", wait_for=[port]) as running:
                async with client_of(port) as client:
                    for _ in range(before):
                        assert (await client.get("GET", "/shop/")).status == 200
                    waiting = asyncio.create_task(client.get("GET", "/shop/"))
                    await asked.wait()
                    running.terminate()
                    # An answer, if only to say that there is none.
                    assert (await waiting).status >= 500
                assert await asyncio.to_thread(running.stop) == 0
                assert "Traceback" not in running.output
            await until(lambda: not upstream.scripts)

    run(main())


def test_everything_in_the_background_ends_with_the_server(tmp_path: Path) -> None:
    checks = "[{health_check: {http: {path: /}}, interval: 10ms}]"
    rules = mapping("a", "/shop/", "shop", health_checks=checks, outlier_detection="{consecutive_5xx: 3}")
    (tmp_path / "rules.yaml").write_text(rules)
    port, admin = free_port(), free_port()
    checked = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            checked.set()
            await peer.answer()

    async def main() -> None:
        async with serving(script) as upstream:
            # A name, which is looked up again and again.
            urls = f"http://localhost:{upstream.origin.port},http://127.0.0.1:1"
            arguments = ["serve", "--rules", str(tmp_path / "rules.yaml"), "--port", str(port), "--dns-interval", "1"]
            arguments += ["--admin-port", str(admin), "--upstream", f"shop={urls}"]
            with process(*arguments, log=tmp_path / "log", wait_for=[port, admin]) as running:
                assert (await fetch(port, "/shop/")).status == 200
                checked.clear()
                await checked.wait()
                assert await asyncio.to_thread(running.stop) == 0
            assert not re.search("Traceback|ERROR|destroyed|never awaited|ResourceWarning", running.output)

    run(main())


@contextmanager
def handling_sigterm() -> Iterator[list[int]]:
    """A handler is installed for SIGTERM; yields the signals that it gets."""
    received_signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received_signals.append(number))
    try:
        yield received_signals
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_previous_handler_is_called_when_the_tasks_have_ended() -> None:
    with handling_sigterm() as received_signals:

        async def main() -> None:
            go_on = asyncio.Event()
            waiting = asyncio.create_task(go_on.wait())
            remove = on_sigterm(lambda: [waiting])
            signal.raise_signal(signal.SIGTERM)
            for _ in range(20):
                await asyncio.sleep(0)
            assert received_signals == []
            go_on.set()
            await until(lambda: received_signals)
            remove()
            signal.raise_signal(signal.SIGTERM)
            assert received_signals == [signal.SIGTERM] * 2

        run(main())


def test_the_previous_handler_does_not_wait_for_ever() -> None:
    with handling_sigterm() as received_signals:

        async def main() -> None:
            endless = asyncio.create_task(asyncio.Event().wait())
            on_sigterm(lambda: [endless])
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: received_signals)
            endless.cancel()

        run(main())
        # The handler is still installed, and its loop is closed.
        signal.raise_signal(signal.SIGTERM)
        assert len(received_signals) == 2


def test_of_several_handlers_each_is_called_once() -> None:
    with handling_sigterm() as received_signals:

        async def main() -> None:
            called: list[str] = []

            def callback(name: str) -> list[asyncio.Task[Any]]:
                called.append(name)
                return []

            remove = [on_sigterm(partial(callback, name)) for name in "ab"]
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: received_signals)
            assert (sorted(called), received_signals) == (["a", "b"], [signal.SIGTERM])
            for each in remove:
                each()

        run(main())


def test_outside_of_the_main_thread_no_handler_is_installed() -> None:
    async def main() -> None:
        on_sigterm(list)()

    with handling_sigterm() as received_signals:
        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is before
        assert received_signals == []
