"""Clients that the server closes and requests that it refuses: counted, and in the metrics of a running proxy."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from servers import client_of, fetch, fetch_admin, free_port, mapping, process, respond, run, serving_app
from upstream import CERTIFICATE, Peer, serving, silent, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.http.response_writer import ERROR_RESPONSES
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.observability.counters import RefusalCounters
from canary_mw.server import deadlines
from canary_mw.server import timers as clock
from canary_mw.server.app import Proxy
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.server.settings import Settings
from canary_mw.types import Receive, Scope, Send

GET = b"GET /shop/ HTTP/1.1\r\nHost: shop\r\n\r\n"
CHUNK = bytes(65536)
# No system buffers as much for a client that does not read.
LARGE = 64 << 20
Main = Callable[[], Coroutine[Any, Any, None]]


def on_asyncio(main: Main) -> None:
    run(main())


def on_uvloop(main: Main) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 40))


on_both_loops = pytest.mark.parametrize("on", [on_asyncio, on_uvloop])


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of a deadline become hundredths, and a client that does not read is given 20 of them."""
    monkeypatch.setattr(clock, "TICK", 0.01)
    monkeypatch.setattr(deadlines, "WRITE_TIMEOUT", 20)


async def opened(port: int, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that takes little at a time."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    name = "127.0.0.1" if context is not None else None
    return await asyncio.open_connection(sock=sock, limit=65536, ssl=context, server_hostname=name)


@on_both_loops
@pytest.mark.usefixtures("soon")
def test_a_client_that_stops_reading_is_let_go_and_its_upstream_too(
    on: Callable[[Main], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "canary_mw.protocol")
    cut: list[int] = []

    async def pour(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        try:
            await peer.send(*[CHUNK] * (LARGE // len(CHUNK)))
        except ConnectionError:
            cut.append(peer.number)

    async def main() -> None:
        async with serving(pour) as upstream:
            app = Proxy(Settings(upstream=(f"*=http://127.0.0.1:{upstream.origin.port}",)))
            app.store.source = StaticSource(mapping("shop", "/shop/", "shop"))
            async with serving_app(app, http=GuardedProtocol, lifespan="on") as port:
                _, writer = await opened(port)
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(GET)
                await until(lambda: app._middleware.refusals.stalled)
                await until(lambda: cut)
                writer.transport.abort()
            assert app._middleware.refusals == RefusalCounters({}, 1)

    on(main)
    assert "has taken nothing for 20 s: its connection is ended" in caplog.text


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await respond(send, bytes(LARGE))


@on_both_loops
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.usefixtures("soon")
def test_a_client_that_does_not_take_the_end_of_its_answer_is_let_go_too(on: Callable[[Main], None], tls: bool) -> None:
    files = {"ssl_certfile": CERTIFICATE, "ssl_keyfile": CERTIFICATE} if tls else {}
    context = ssl.create_default_context(cafile=str(CERTIFICATE)) if tls else None

    async def main() -> None:
        async with serving_app(large, http=GuardedProtocol, **files) as port:
            reader, writer = await opened(port, context)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(GET)
            # The app has ended long ago; the server holds the connection until all is written.
            ticks = clock.timer_of(asyncio.get_running_loop())
            await until(lambda: ticks._listeners)
            await until(lambda: not ticks._listeners)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await reader.readexactly(LARGE)
            writer.close()

    on(main)


@on_both_loops
@pytest.mark.usefixtures("soon")
def test_a_client_that_reads_slowly_is_waited_for(on: Callable[[Main], None]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        for _ in range(LARGE // len(CHUNK)):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body"})

    async def main() -> None:
        async with serving_app(app, http=GuardedProtocol) as port:
            reader, writer = await opened(port)
            ticks = clock.timer_of(asyncio.get_running_loop())
            writer.write(GET)
            begun, read = 0, 0
            while not begun or ticks.now < begun + 5 * deadlines.WRITE_TIMEOUT:
                read += len(await reader.readexactly(4 * len(CHUNK)))
                begun = begun or ticks.now
                at = ticks.now
                await until(lambda at=at: ticks.now > at + 1)  # type: ignore[misc]
            assert read < LARGE
            chunk = b""
            while not chunk.endswith(b"\r\n0\r\n\r\n"):
                chunk = await reader.read(1 << 20)
                assert chunk, "it was cut"
                read += len(chunk)
            assert read > LARGE
            writer.close()

    on(main)


def counted(text: bytes) -> dict[tuple[str, str], float]:
    """The counters of refusals and ejections by their first label besides the pid."""
    return {
        (sample.name, next((value for key, value in sample.labels.items() if key != "pid"), "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if re.fullmatch("canary_mw_(refused_requests|stalled_clients|ejections)_total", sample.name)
    }


def test_what_is_refused_shows_in_the_metrics_of_a_running_proxy(tmp_path: Path) -> None:
    rules = mapping("up", "/up/", "up", outlier_detection="{consecutive_5xx: 1}") + mapping("loop", "/loop/", "self")
    rules += "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig:\n"
    rules += "  ip_deny: [{peer: 127.0.0.3}]\n"
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    port, admin = free_port(), free_port()

    async def raw(data: bytes, peer: str = "127.0.0.1") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(peer, 0))
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def main() -> None:
        arguments = ["serve", "--rules", str(path), "--port", str(port), "--admin-port", str(admin)]
        arguments += [
            "--upstream",
            f"self=http://127.0.0.1:{port}",
            "--upstream",
            "up=http://127.0.0.1:1,http://127.0.0.1:2",
        ]
        arguments += ["--hop-id", "one"]
        with process(*arguments, log=tmp_path / "log") as proxy:
            await asyncio.to_thread(proxy.wait_for_port, port)
            await asyncio.to_thread(proxy.wait_for_port, admin)
            for _ in range(2):
                assert await raw(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n") == ERROR_RESPONSES[400]
            assert await raw(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70000) == ERROR_RESPONSES[431]
            denied = await raw(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n", "127.0.0.3")
            assert denied.startswith(b"HTTP/1.1 403 ")
            assert (await fetch(port, "/loop/", headers=[("via", "1.1 canary-mw-one")])).status == 508
            assert (await fetch(port, "/up/")).status == 503
            wanted = {("canary_mw_refused_requests_total", str(n)): 1 for n in (403, 431, 508)}
            wanted |= {("canary_mw_refused_requests_total", "400"): 2, ("canary_mw_stalled_clients_total", ""): 0}
            wanted |= {("canary_mw_ejections_total", "up"): 1}
            assert counted((await fetch_admin(admin, "/metrics")).body) == wanted

    run(main())


def test_a_head_that_is_too_slow_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "TICK", 0.01)
    app = Proxy(Settings())

    async def main() -> None:
        async with serving_app(app, http=GuardedProtocol, lifespan="on") as port, client_of(port) as client:
            await client.put(GET[:20])
            assert await client.reader.read() == ERROR_RESPONSES[408]

    run(main())
    assert app._middleware.refusals == RefusalCounters({408: 1})


def test_websockets_that_are_refused_are_counted() -> None:
    rules = mapping("up", "/up/", "up", use_websocket="true")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def main() -> None:
        middleware = CanaryMiddleware(app, rules=StaticSource(rules), hop_id="one")
        scope: Scope = {"type": "websocket", "path": "/up/", "raw_path": b"/up/%00", "headers": [(b"host", b"shop")]}
        connected = iter([{"type": "websocket.connect"}])

        async def receive() -> Any:
            # Then nothing more: the client waits for its answer.
            return next(connected, None) or await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            assert message["type"] == "websocket.close"

        await middleware(scope, receive, send)
        loop = {**scope, "raw_path": b"/up/", "headers": [(b"host", b"shop"), (b"via", b"1.1 canary-mw-one")]}
        await middleware(loop, receive, send)
        await middleware.aclose()
        assert middleware.refusals == RefusalCounters({400: 1, 508: 1})

    run(main())


def test_ejections_are_those_of_all_mappings_to_a_service() -> None:
    policy = {"outlier_detection": "{consecutive_5xx: 1}"}
    rules = mapping("a", "/a/", "up", **policy) + mapping(
        "b", "/b/", "up", load_balancer="{policy: maglev, header: x-user}", **policy
    )
    rules += mapping("c", "/c/", "up") + mapping("d", "/d/", "well", **policy)

    async def main() -> None:
        async with serving(silent) as upstream:
            url = f"http://127.0.0.1:{upstream.origin.port}"
            options: Any = {"upstreams": {"*": ["http://127.0.0.1:1", "http://127.0.0.1:2"], "well": url}}
            middleware = CanaryMiddleware(large, rules=StaticSource(rules), **options)
            async with serving_app(middleware) as port:
                for target in ("/a/", "/b/", "/c/"):
                    assert (await fetch(port, target)).status == 503
                async with client_of(port) as client:
                    await client.ask("GET", "/d/")
                    await until(lambda: upstream.accepted)
                    assert middleware.ejections() == {"up": 2, "well": 0}
            await middleware.aclose()

    run(main())
