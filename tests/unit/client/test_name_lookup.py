"""Look-ups of names: in threads of our own, a bounded number, and none of the event loop's."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import Any, NoReturn

import pytest
from upstream import ON_BOTH_LOOPS, Peer, Run, forever, get, req, serving, until

from canary_mw.client.aio import name_lookup
from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.aio.name_lookup import MAX_THREADS, look_up
from canary_mw.client.aio.websocket import open_websocket
from canary_mw.client.tls import PLAIN
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import Origin
from canary_mw.upstreams.aio import Upstreams

pytestmark = ON_BOTH_LOOPS


class Resolver:
    """The system's resolver: names that end with ".gone" are not answered before `release`, and then fail."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.asked: list[str] = []
        self.most_threads = 0
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is None or not name.endswith((".gone", ".test")):
            return self._real(host, *args, **options)
        self.asked.append(name)
        if name.endswith(".test"):
            return self._real("127.0.0.1", *args, **options)
        threads = dns_threads()
        assert all(thread.daemon for thread in threads)
        self.most_threads = max(self.most_threads, len(threads))
        assert self.release.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class NoExecutor(ThreadPoolExecutor):
    """For a loop whose default executor nobody may use."""

    def submit(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the host's executor was used")


def dns_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "canary-mw-dns"]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    monkeypatch.setattr(name_lookup, "_lookups", name_lookup._Lookups())
    yield made
    made.release.set()
    for thread in dns_threads():
        thread.join(30)


@asynccontextmanager
async def asking(names: list[str]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    tasks = [asyncio.create_task(_asked(name)) for name in names]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _asked(name: str) -> Any:
    return await look_up(name, 80)


def test_silent_name_servers_hold_up_nothing_of_the_host(run: Run, resolver: Resolver) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        upstreams = Upstreams()
        for number in range(60):
            request = UpstreamRequest(f"svc{number}.gone", "GET", b"/", [(b"host", b"shop")], connect_timeout=0.001)
            with pytest.raises(UpstreamConnectError, match="not looked up in time"):
                await upstreams.send(request, None, loop, loop.time() + 30)
        await until(lambda: len(resolver.asked) == MAX_THREADS[0])
        # What a host does in the default executor, and how its HTTP and database clients look names up.
        assert await asyncio.gather(*(asyncio.to_thread(int) for _ in range(50))) == [0] * 50
        assert await loop.getaddrinfo("localhost", 80)
        assert len(dns_threads()) == MAX_THREADS[0]
        await upstreams.aclose()

    run(main)


def test_names_that_failed_leave_threads_to_the_others(run: Run, resolver: Resolver) -> None:
    async def main() -> None:
        names = [f"svc{number}.gone" for number in range(40)]
        async with asking(names) as tasks:
            await until(lambda: len(resolver.asked) == MAX_THREADS[0])
            resolver.release.set()
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(error) for error in errors} == {socket.gaierror}
        await until(lambda: not dns_threads())
        resolver.release.clear()
        resolver.asked.clear()
        async with asking(names):
            await until(lambda: len(resolver.asked) == MAX_THREADS[1])
            assert (await look_up("shop.test", 80))[0][4] == ("127.0.0.1", 80)
            assert len(resolver.asked) == MAX_THREADS[1] + 1
        assert resolver.most_threads == MAX_THREADS[0]

    run(main)


def test_a_name_that_has_addresses_again_is_a_name_like_others(run: Run, resolver: Resolver) -> None:
    async def main() -> None:
        resolver.release.set()
        with pytest.raises(socket.gaierror):
            await look_up("svc.gone", 80)
        assert name_lookup._lookups._failed
        resolver._real = lambda *_, **__: []
        name_lookup._lookups._failed = {("shop.test", 80)}
        await look_up("shop.test", 80)
        assert not name_lookup._lookups._failed

    run(main)


def test_one_look_up_serves_all_that_wait_for_a_name(run: Run, resolver: Resolver) -> None:
    async def main() -> None:
        async with asking(["svc.gone"] * 20) as tasks:
            await until(lambda: resolver.asked)
            tasks[0].cancel()
            resolver.release.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, *[socket.gaierror] * 19]
        assert resolver.asked == ["svc.gone"]

    run(main)


def test_what_nobody_waits_for_any_more_is_not_looked_up(run: Run, resolver: Resolver) -> None:
    async def main() -> None:
        async with asking([f"svc{number}.gone" for number in range(100)]):
            await until(lambda: len(resolver.asked) == MAX_THREADS[0])
        resolver.release.set()
        await until(lambda: not dns_threads())
        assert len(resolver.asked) == MAX_THREADS[0]
        assert not name_lookup._lookups._waiters

    run(main)


def test_a_loop_that_is_closed_meanwhile_is_no_error(run: Run, resolver: Resolver) -> None:
    async def main() -> None:
        async with asking(["svc.gone"]):
            await until(lambda: resolver.asked)

    run(main)
    resolver.release.set()
    for thread in dns_threads():
        thread.join(30)
    assert not name_lookup._lookups._waiters


def test_without_a_thread_a_look_up_fails_and_the_next_one_may_not(
    run: Run, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(OSError, match="can't start new thread"):
                await look_up("shop.test", 80)
        assert await look_up("shop.test", 80)

    run(main)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(run: Run, resolver: Resolver) -> None:
    async def occupy() -> None:
        async with asking([f"svc{number}.gone" for number in range(MAX_THREADS[0])]):
            await until(lambda: len(resolver.asked) == MAX_THREADS[0])

    async def main() -> None:
        assert await look_up("shop.test", 80)

    run(occupy)
    child = os.fork()
    if child == 0:
        try:
            run(main)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("host", ["localhost", "shop.test", "127.0.0.1"])
def test_a_connection_by_name_uses_no_thread_of_the_loop(run: Run, resolver: Resolver, host: str) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(NoExecutor())
        async with serving(forever) as upstream, aclosing(HTTP11Client()) as client:
            upstream.origin = Origin("http", host, upstream.origin.port)
            assert await get(client, upstream) == b"1"
            with pytest.raises(UpstreamConnectError, match=rf"{host}:1: cannot connect: .*111"):
                await client.send(Origin("http", host, 1), req())
        async with serving(_refusing) as upstream:
            origin = Origin("http", host, upstream.origin.port)
            assert (await open_websocket(origin, req(), (), PLAIN)).head.status == 403

    run(main)


async def _refusing(peer: Peer) -> None:
    await peer.head()
    await peer.answer(status=b"403 Forbidden")
