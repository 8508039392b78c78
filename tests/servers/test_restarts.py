"""Servers that are replaced while requests run, behind us and ourselves: no idempotent request is lost."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import uvicorn
from load import Load, eventually, load
from servers import Process, client_of, fetch, free_port, hello, mapping, process, run, serving_app
from upstream import Peer, Upstream, until
from uvicorn.server import ServerState
from workers import workers

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.types import Receive, Scope, Send

RULES = mapping("shop", "/shop/", "shop")


# One server, stopped and started again on its port.


@contextlib.asynccontextmanager
async def listening(port: int, name: bytes, end: Callable[[Peer], None]) -> AsyncIterator[Upstream]:
    """A server that answers with its name, and ends all its connections when it stops."""
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        while True:
            await peer.request()
            await peer.answer(name)

    upstream = Upstream(script)
    server = await asyncio.start_server(upstream.handle, "127.0.0.1", port)
    try:
        yield upstream
    finally:
        server.close()
        for peer in peers:
            end(peer)
        await asyncio.gather(*upstream.scripts, return_exceptions=True)
        await server.wait_closed()


@pytest.mark.parametrize("end", [Peer.finish, Peer.reset])
def test_connections_that_a_restart_has_ended_never_show(end: Callable[[Peer], None]) -> None:
    port = free_port()

    async def main() -> None:
        upstreams = {"shop": f"http://127.0.0.1:{port}"}
        middleware = CanaryMiddleware(hello, rules=StaticSource(RULES), upstreams=upstreams)
        async with serving_app(middleware) as entry:
            for name in (b"first", b"second", b"third"):
                async with listening(port, name, end) as upstream:
                    answers = await asyncio.gather(*(fetch(entry, "/shop/") for _ in range(16)))
                    assert {(answer.status, answer.body) for answer in answers} == {(200, name)}
                    assert upstream.accepted > 1
            assert (await fetch(entry, "/shop/")).status == 503
        await middleware.aclose()

    run(main())


def test_a_request_in_flight_at_a_restart_is_replayed_where_none_of_it_came() -> None:
    """The upstream ends a kept connection just when it has been given the next request."""
    port = free_port()

    async def main() -> None:
        taken = 0

        async def script(peer: Peer) -> None:
            nonlocal taken
            await peer.request()
            await peer.answer(b"%d" % peer.number)
            await peer.request()
            taken += 1

        upstream = Upstream(script)
        server = await asyncio.start_server(upstream.handle, "127.0.0.1", port)
        upstreams = {"shop": f"http://127.0.0.1:{port}"}
        middleware = CanaryMiddleware(hello, rules=StaticSource(RULES), upstreams=upstreams)
        async with server, serving_app(middleware) as entry:
            assert [(await fetch(entry, "/shop/")).body for _ in range(4)] == [b"1", b"2", b"3", b"4"]
        await middleware.aclose()
        await until(lambda: not upstream.scripts)
        assert taken == 3

    run(main())


# Real servers, restarted under load.

APP = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


class Shop:
    """A server of its own on a listening socket, which survives it: so do systemd and most supervisors."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        (folder / "restarted.py").write_text(APP)
        where = ["--app-dir", str(folder), "--fd", str(listener.fileno())]
        self.child = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "restarted:app", *where, "--lifespan", "off", "--no-access-log"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
        self.name = str(self.child.pid).encode()

    async def stop(self) -> None:
        """Terminate it as an orchestrator does."""
        self.child.terminate()
        await asyncio.to_thread(self.child.wait, 20)

    def __enter__(self) -> "Shop":
        return self

    def __exit__(self, *exc: object) -> None:
        self.child.kill()
        self.child.wait()


def listening_socket(port: int = 0) -> socket.socket:
    """Takes connections before anybody serves them."""
    return socket.create_server(("127.0.0.1", port), backlog=128)


def url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def proxy(folder: Path, *arguments: str) -> Iterator[tuple[int, Process]]:
    """`canary-mw serve` with one Mapping; its port and process."""
    rules, port = folder / "rules.yaml", free_port()
    rules.write_text(RULES)
    command = ["serve", "--rules", str(rules), "--port", str(port), *arguments]
    with process(*command, log=folder / "log", wait_for=[port]) as running:
        yield port, running


@pytest.mark.slow
def test_an_upstream_that_hands_its_socket_on_loses_no_read(tmp_path: Path) -> None:
    async def main(port: int, listener: socket.socket) -> Load:
        with contextlib.ExitStack() as shops:
            old = shops.enter_context(Shop(tmp_path, listener))
            async with load(port) as counted:
                for _ in range(2):
                    new = shops.enter_context(Shop(tmp_path, listener))
                    # New connections only: those of the proxy are all with the old one.
                    while (await fetch(listener.getsockname()[1], "/")).body != new.name:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                    await old.stop()
                    await counted.more()
                    old = new
            return counted

    with listening_socket() as listener, proxy(tmp_path, "--upstream", f"shop={url(listener)}") as (port, _):
        assert run(main(port, listener)).lost == []


@pytest.mark.slow
def test_endpoints_that_are_restarted_one_after_the_other_lose_no_read(tmp_path: Path) -> None:
    async def restart(shops: contextlib.ExitStack, old: Shop, port: int, counted: Load) -> None:
        """With a time in which nobody listens."""
        await old.stop()
        await counted.more()
        new = shops.enter_context(Shop(tmp_path, shops.enter_context(listening_socket(port))))
        await eventually(lambda: counted.bodies[new.name] > 20)

    async def main(port: int, ports: list[int], shops: contextlib.ExitStack) -> Load:
        old = []
        for each in ports:
            with listening_socket(each) as listener:
                old.append(shops.enter_context(Shop(tmp_path, listener)))
        async with load(port) as counted:
            for shop, each in zip(old, ports, strict=True):
                await eventually(lambda it=shop: counted.bodies[it.name] > 20)  # type: ignore[misc]
                await restart(shops, shop, each, counted)
        return counted

    ports = [free_port(), free_port()]
    urls = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    with proxy(tmp_path, "--upstream", f"shop={urls}") as (port, _), contextlib.ExitStack() as shops:
        assert run(main(port, ports, shops)).lost == []


# Ourselves.


@contextlib.asynccontextmanager
async def ending(server: AbstractAsyncContextManager[int]) -> AsyncIterator[tuple[int, Callable[[], Awaitable[None]]]]:
    """A server's port, and what begins its end."""
    over = asyncio.Event()

    async def serve(started: "asyncio.Future[int]") -> None:
        async with server as port:
            started.set_result(port)
            await over.wait()

    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(started))
    port = await started

    async def end() -> None:
        over.set()
        await until(lambda: refused(port))

    yield port, end
    over.set()
    await task


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_client_whose_answer_had_begun_is_closed_by_the_next_one() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"b"})

    async def main() -> None:
        async with (
            ending(serving_app(app, http=GuardedProtocol, lifespan="off")) as (port, end),
            client_of(port) as client,
        ):
            first = asyncio.create_task(client.get("GET", "/"))
            await begun.wait()
            await end()
            go_on.set()
            assert (await first).header("connection") is None
            second = await client.get("GET", "/")
            assert (second.body, second.whole, second.header("connection")) == (b"ab", True, "close")

    run(main())


def test_a_client_that_connects_at_the_last_moment_is_told_to_close() -> None:
    """The system has accepted it, and the server gets it after it has closed all others."""

    async def main() -> None:
        config = uvicorn.Config(hello, http=GuardedProtocol, lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: GuardedProtocol(config, state, {}), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, client_of(port) as early:
            assert (await early.get("GET", "/")).header("connection") is None
            for connection in tuple(state.connections):
                connection.shutdown()
            assert (await fetch(port, "/")).header("connection") == "close"
            assert (await early.get("GET", "/")).header("connection") == "close"
            await until(lambda: not state.connections and not state.tasks)

    run(main())


# Longer than what uvicorn waits for: a worker that it gives up on shows in the log, and not as a timeout here.
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_rolling_restart_of_the_workers_loses_no_request(tmp_path: Path) -> None:
    async def main(port: int, running: Process) -> Load:
        before = workers(running.child.pid)
        assert len(before) == 2
        async with load(port, pause=0.005) as counted:
            await counted.more()
            running.child.send_signal(signal.SIGHUP)
            await eventually(lambda: not before & workers(running.child.pid))
            await counted.more()
        assert len(workers(running.child.pid)) == 2
        return counted

    with listening_socket() as listener, Shop(tmp_path, listener):
        with proxy(tmp_path, "--workers", "2", "--upstream", f"shop={url(listener)}") as (port, running):
            counted = run(main(port, running), seconds=150)
            assert running.stop() == 0
        assert counted.lost == []
        for unwanted in ("Traceback", "was not ready in time", "graceful shutdown exceeded"):
            assert unwanted not in running.output
