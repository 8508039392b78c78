"""`canary-mw serve` for long and with everything at once: all kinds of traffic, new rules, restarts behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from statistics import median

import pytest
import traffic as ways
from echo import echo
from load import eventually
from servers import Process, free_port, mapping, process, run
from traffic import Traffic, Way, traffic
from upstream import Peer, Upstream, until
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from workers import resident, workers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc"),
]

SECONDS = 100
# What a worker still takes for itself at first: buffers, connections, caches of names.
WARM_UP = 25
# Growth of a worker between the first and the last third of the rest, some 50 seconds and 50 changes of rules. Without
# a leak it is 5 MiB or less, in either direction; garbage that changes leave behind was 40, in a straight line.
GROWTH = 12 << 20

TRAFFIC: dict[Way, float] = {
    ways.reads: 5,
    ways.last_reads: 4,
    ways.pipelines: 3,
    ways.uploads: 2,
    ways.chunked_uploads: 2,
    ways.streams: 1,
    ways.leaves: 1,
    ways.aborts: 1,
    ways.websockets: 1,
}


def rules(number: int) -> str:
    """Rules that differ from those before in a weight, in prefixes and in their number."""
    base = mapping("stable", "/", "stable", rewrite='""', timeout_ms=20000)
    base += mapping("gray", "/", "gray", rewrite='""', timeout_ms=20000, weight=(10, 50, 90, 0)[number % 4])
    base += mapping("tester", "/", "gray", rewrite='""', timeout_ms=20000, headers="{gray: 'true'}")
    # A server that ends resets connections that it has not accepted yet: only what may be sent again survives that.
    base += mapping("uploads", "/upload/", "store", rewrite='""', timeout_ms=20000)
    base += mapping("sockets", "/ws/", "sockets", rewrite='""', allow_upgrade="[websocket]")
    return base + "".join(mapping(f"x{each}", f"/x{each}/{number}/", "stable") for each in range(50 + number % 7))


def put(path: Path, number: int) -> None:
    """Swap the rules."""
    aside = path.with_suffix(".new")
    aside.write_text(rules(number))
    aside.replace(path)


class Endpoints:
    """The endpoints of a service, of which one at a time is down.

    Attributes:
        restarts: how many there were.
    """

    def __init__(self, name: str, life: "Life", count: int = 2) -> None:
        self.name = name
        self.ports = [free_port() for _ in range(count)]
        self.restarts = 0
        self._life = life

    def option(self) -> str:
        """For `--upstream`."""
        return f"{self.name}=" + ",".join(f"http://127.0.0.1:{port}" for port in self.ports)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Both, until the block ends."""
        over = asyncio.Event()
        turn = asyncio.Lock()
        started = [asyncio.Event() for _ in self.ports]
        tasks = [
            asyncio.create_task(self._live(port, over, turn, first))
            for port, first in zip(self.ports, started, strict=True)
        ]
        await asyncio.gather(*(each.wait() for each in started))
        yield
        over.set()
        await asyncio.gather(*tasks)

    async def _live(self, port: int, over: asyncio.Event, turn: asyncio.Lock, started: asyncio.Event) -> None:
        """Live, and live again: only one at a time is down."""
        async with contextlib.AsyncExitStack() as life:
            await life.enter_async_context(self._life(port, self.name))
            started.set()
            while not await passed(over, 4):
                if len(self.ports) == 1:
                    continue
                async with turn:
                    await life.aclose()
                    await passed(over, 1)
                    await life.enter_async_context(self._life(port, self.name))
                    self.restarts += 1
                    # Until it has its share of the requests again.
                    await passed(over, 2)


async def passed(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, but not for longer; whether it happened."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


Life = Callable[[int, str], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def answering(port: int, name: str) -> AsyncIterator[None]:
    """An endpoint that ends as servers do: it takes no new connections, and completes the answers that it has begun."""
    idle: set[asyncio.Task[object]] = set()

    async def script(peer: Peer) -> None:
        task = asyncio.current_task()
        assert task is not None
        while server.is_serving():
            idle.add(task)
            head = await peer.head()
            idle.discard(task)
            await echo(peer, name, await peer.rest_of(head), *([] if server.is_serving() else [b"connection: close"]))

    upstream = Upstream(script)
    server = await asyncio.start_server(upstream.handle, "127.0.0.1", port, backlog=512)
    yield
    await stop_accepting(server)
    server.close()
    for task in idle & upstream.scripts:
        task.cancel()
    await asyncio.gather(*upstream.scripts, return_exceptions=True)
    assert upstream.failures == []


async def stop_accepting(server: asyncio.Server) -> None:
    """Before it is closed: asyncio fails where a connection that it has accepted meets a server that is closed."""
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    for _ in range(3):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def sockets(port: int, _name: str) -> AsyncIterator[None]:
    """An endpoint for WebSockets, which says that it goes away when it ends."""

    async def handle(websocket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in websocket:
                await websocket.send(message)

    async with serve(handle, "127.0.0.1", port, compression=None) as server:
        yield
        await stop_accepting(server.server)
        # It refuses those whose handshakes are not over.
        await until(lambda: len(server.handler_tasks) <= len(server.all_connections))


@contextlib.contextmanager
def proxy(folder: Path, services: list[Endpoints]) -> Iterator[tuple[int, Process]]:
    """`canary-mw serve` with two workers."""
    path, port = folder / "rules.yaml", free_port()
    put(path, 0)
    upstreams = [argument for each in services for argument in ("--upstream", each.option())]
    command = ["serve", "--rules", str(path), "--port", str(port), "--workers", "2", *upstreams]
    with process(*command, log=folder / "log", wait_for=[port]) as running:
        yield port, running


class Memory:
    """RSS of the workers, once a second."""

    def __init__(self, pids: set[int]) -> None:
        self.seen: dict[int, list[int]] = {pid: [] for pid in pids}

    def look(self) -> None:
        """Once more."""
        for pid, values in self.seen.items():
            values.append(resident(pid))

    def growth(self) -> list[int]:
        """By worker, how much more the last third of the time shows than the first; medians, after the warm-up."""
        return [_growth(values[WARM_UP:]) for values in self.seen.values()]


def _growth(values: list[int]) -> int:
    third = len(values) // 3
    return int(median(values[-third:]) - median(values[:third]))


def test_nothing_is_lost_and_memory_stays_where_it_is(tmp_path: Path) -> None:
    services = [
        Endpoints("stable", answering),
        Endpoints("gray", answering),
        Endpoints("sockets", sockets),
        Endpoints("store", answering, 1),
    ]

    async def main(port: int, running: Process) -> tuple[Traffic, Memory]:
        await eventually(lambda: len(workers(running.child.pid)) == 2)
        memory = Memory(workers(running.child.pid))
        async with contextlib.AsyncExitStack() as stack:
            for each in services:
                await stack.enter_async_context(each.running())
            done = await stack.enter_async_context(traffic(port, TRAFFIC, clients=16))
            for number in range(1, SECONDS + 1):
                put(tmp_path / "rules.yaml", number)
                await asyncio.sleep(1)
                memory.look()
        assert workers(running.child.pid) == {*memory.seen}
        return done, memory

    with proxy(tmp_path, services) as (port, running):
        done, memory = run(main(port, running), SECONDS + 120)
        assert running.stop() == 0
    assert done.lost == []
    assert min(done.done[way.__name__] for way in TRAFFIC) > 20
    assert {*done.answered} == {"stable", "gray", "store"}
    assert all(each.restarts > 5 for each in services if len(each.ports) > 1)
    assert "Traceback" not in running.output
    assert max(memory.growth()) < GROWTH
