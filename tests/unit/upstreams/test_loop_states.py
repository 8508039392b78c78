"""Several event loops, in a thread each and one after another: what belongs to them is closed with them."""

import asyncio
import gc
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from asgiref.sync import async_to_sync
from servers import mapping, run
from upstream import CERTIFICATE, Peer, Upstream, forever, serving, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.rules.upstream import DEFAULT_OPTIONS, EndpointOptions, HealthCheck, UpstreamOptions
from canary_mw.types import Message
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.shadows import ShadowSender

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """What is closed is closed by the code, not by the collector; at the end that finds nothing to warn of."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.collect()
    finally:
        gc.enable()


def request(service: str = "shop", **options: Any) -> UpstreamRequest:
    return UpstreamRequest(service, "GET", b"/", [(b"host", b"shop")], timeout=30.0, **options)


async def ask(upstreams: Upstreams, asked: UpstreamRequest) -> None:
    """Send a request; its connection is idle then."""
    loop = asyncio.get_running_loop()
    response = await upstreams.send(asked, None, loop, loop.time() + 30)
    while await response.read():
        pass
    response.close()


async def touch(upstreams: Upstreams) -> None:
    """Make a state for the running loop."""
    service = "127.0.0.1:1"
    assert upstreams.idle_connection(service, service, DEFAULT_OPTIONS, asyncio.get_running_loop()) is None


@asynccontextmanager
async def shop(*, tls: bool = False) -> AsyncIterator[tuple[Upstream, str]]:
    """An upstream and its URL."""
    async with serving(forever, tls=tls) as upstream:
        yield upstream, f"{'https' if tls else 'http'}://127.0.0.1:{upstream.origin.port}"


def close_without_ceremony(loop: asyncio.AbstractEventLoop, main: Awaitable[object]) -> None:
    """Run in a new loop, and only close it: asyncio.run would cancel tasks and end asynchronous generators."""
    loop.run_until_complete(main)
    loop.close()


@LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_are_closed_with_their_loop(new_loop: NewLoop, tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))

    def call(upstreams: Upstreams) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(ask(upstreams, request()))

    async def main() -> None:
        async with shop(tls=tls) as (upstream, url):
            upstreams = Upstreams({"shop": url})
            for _ in range(3):
                await asyncio.to_thread(call, upstreams)
                await until(lambda: not upstream.scripts)
            assert upstream.accepted == 3
            assert upstreams._states.all() == []

    run(main())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_of_a_loop_that_was_only_closed_are_closed_when_found(
    tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))

    async def main() -> None:
        async with shop(tls=tls) as (upstream, url):
            upstreams = Upstreams({"shop": url})
            for _ in range(3):
                asking = ask(upstreams, request())
                await asyncio.to_thread(close_without_ceremony, asyncio.new_event_loop(), asking)
                assert upstream.scripts
                await asyncio.to_thread(asyncio.run, touch(upstreams))
                await until(lambda: not upstream.scripts)
            assert upstreams._states.all() == []

    run(main())


def test_endpoint_sets_of_a_closed_loop_end_without_a_word(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = (HealthCheck(b"/", timeout=30.0, interval=30.0), HealthCheck(b"/b", timeout=30.0, interval=30.0))
    addresses = [(socket.AF_INET, 1, 6, "", (f"127.0.0.{number}", 80)) for number in (1, 2)]
    checked: list[bytes] = []

    async def check_received(peer: Peer) -> None:
        checked.append((await peer.request()).line)
        await peer.gone()

    async def begin(upstreams: Upstreams, upstream: Upstream, options: UpstreamOptions) -> None:
        loop = asyncio.get_running_loop()
        asked = request(f"shop.test:{upstream.origin.port}", options=options)
        (await upstreams._route(asked, loop).endpoints.lease(None, loop.time() + 30, 30.0)).release()
        if options.endpoints is not None:
            # Both checks are on their way: the upstream has read them, so no connection is half open.
            await until(lambda: len(checked) == len(checks))

    async def main() -> None:
        upstreams = Upstreams()
        for options in (UpstreamOptions(), UpstreamOptions(endpoints=EndpointOptions(health_checks=checks))):
            async with serving(check_received) as upstream:
                begun = begin(upstreams, upstream, options)
                await asyncio.to_thread(close_without_ceremony, asyncio.new_event_loop(), begun)
                await asyncio.to_thread(asyncio.run, touch(upstreams))
                await until(lambda it=upstream: not it.scripts)  # type: ignore[misc]
        gc.collect()

    with monkeypatch.context() as patch:
        real = socket.getaddrinfo
        patch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: addresses if host == "shop.test" else real(host, *a, **k)
        )
        run(main())
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@LOOPS
def test_what_is_dropped_is_closed_by_its_loop(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with shop() as (upstream, url):
            await ask(Upstreams({"shop": url}), request())
            await until(lambda: not upstream.scripts)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_a_loop_whose_generators_were_ended_may_send_again() -> None:
    async def main() -> None:
        async with shop() as (upstream, url):
            upstreams = Upstreams({"shop": url})
            for _ in range(2):
                await ask(upstreams, request())
                await upstreams._states._states[asyncio.get_running_loop()][1].aclose()
                await until(lambda: not upstream.scripts)

    run(main())


class WatchedLoop(asyncio.SelectorEventLoop):
    """A loop that calls a function once, when it is asked whether it is closed: then another thread may run."""

    meanwhile: Callable[[], object] | None = None

    def is_closed(self) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            thread = threading.Thread(target=meanwhile)
            thread.start()
            thread.join()
        return super().is_closed()


@pytest.mark.parametrize("count", [1, 3])
def test_loops_of_other_threads_begin_and_end_while_closed_ones_are_looked_for(count: int) -> None:
    upstreams = Upstreams()
    loops = [WatchedLoop() for _ in range(count)]
    for loop in loops:
        close_without_ceremony(loop, touch(upstreams))

    def begin_and_end() -> None:
        asyncio.run(touch(upstreams))
        close_without_ceremony(asyncio.new_event_loop(), touch(upstreams))

    for loop in loops:
        loop.meanwhile = begin_and_end
    asyncio.run(touch(upstreams))
    asyncio.run(touch(upstreams))
    assert upstreams._states.all() == []


def test_synchronous_callers_get_answers_and_leave_nothing() -> None:
    """`async_to_sync` of asgiref runs a loop for every call, in the thread that calls."""
    statuses: list[int] = []

    async def main() -> None:
        async with shop() as (upstream, url):
            middleware = CanaryMiddleware(
                _nothing, rules=StaticSource(mapping("a", "/", "shop")), upstreams={"shop": url}
            )
            call = async_to_sync(middleware)

            def work() -> None:
                for _ in range(5):
                    call(_SCOPE, _receive, send)

            await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
            await until(lambda: not upstream.scripts)
            middleware.store.stop()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    run(main())
    assert statuses == [200] * 20


def test_copies_of_a_closed_loop_take_no_room() -> None:
    async def send_copy(shadows: ShadowSender) -> None:
        shadows.send_now(request("127.0.0.1:1"), b"")

    shadows = ShadowSender(Upstreams(), 1)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(send_copy(shadows))
    (task,) = shadows._tasks
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    asyncio.run(send_copy(shadows))
    assert shadows.counts["skipped_busy"] == 0


_SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "headers": [(b"host", b"shop")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 2),
}


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nothing(*_: Any) -> None:
    raise AssertionError("not for the app")
