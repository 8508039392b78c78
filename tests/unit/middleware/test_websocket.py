"""Websockets through the middleware and the proxy, with real servers and clients on both sides."""

import asyncio
import contextlib
import logging
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from rules import HOP, decision_of, get
from rules import mapping as made
from servers import Server, fetch, free_port, mapping, process, run
from standalone import wire_to
from upstream import CERTIFICATE, Peer, Script, answering, serving, silent, until
from uvicorn import Config
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from canary_mw.client.aio import websocket as wsclient
from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.forwarding.messages import Reply
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.asgi.open_tunnels import wait_tunnels
from canary_mw.middleware.asgi.replies import deny_handshake
from canary_mw.middleware.asgi.scope import websocket_request
from canary_mw.middleware.asgi.websocket import tunnel
from canary_mw.server.app import Proxy, create_app
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.server.settings import Settings
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams

WS = {"use_websocket": "true"}
RULES = (
    mapping("stable", "/shop/", "shop-stable", **WS)
    + mapping("gray", "/shop/", "shop-gray", headers="{gray: 'true'}", allow_upgrade="[WebSocket]")
    + mapping("weighed", "/weighed/", "shop-stable", **WS)
    + mapping("weighed-gray", "/weighed/", "shop-gray", weight="20", **WS)
    + mapping("plain", "/plain/", "shop-gray")
    + mapping("forbidden", "/forbidden/", "shop-gray", use_websocket="false")
    + mapping("dead", "/dead/", "127.0.0.1:1", **WS)
    + mapping("quick", "/quick/", "shop-gray", timeout_ms="200", **WS)
    + mapping("idle", "/idle/", "shop-gray", idle_timeout_ms="1500", **WS)
    + mapping("moved", "/old/", "shop-gray", host_redirect="true", path_redirect="/new/", **WS)
    + mapping(
        "changed",
        "/changed/",
        "shop-gray",
        rewrite="/inner/",
        host_rewrite="inner.example",
        add_request_headers="{x-added: 'yes'}",
        remove_request_headers="[x-secret]",
        add_response_headers="{x-variant: gray}",
        remove_response_headers="[x-inner]",
        **WS,
    )
)
UPGRADE = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
]
GRAY = {"gray": "true"}
KINDS = ("middleware", "proxy")


class Service:
    """An ASGI app that echoes; the end of the path says what else it does."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.scopes: list[Scope] = []
        self.ends: list[Message] = []
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket", "no lifespan here"
        self.scopes.append(scope)
        await receive()
        act = getattr(self, "act_" + scope["path"].rpartition("/")[2], self.act_echo)
        await act(receive, send)

    async def act_echo(self, receive: Receive, send: Send) -> None:
        offered = self.scopes[-1]["subprotocols"]
        headers = [
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"x-inner", b"1"),
            (b"x-name", self.name.encode()),
            (b"server", b"Python/3 websockets/17"),
        ]
        await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None, "headers": headers})
        while (message := await receive())["type"] == "websocket.receive":
            if (message.get("text") or "").startswith("close:"):
                _, code, reason = message["text"].split(":")
                await send({"type": "websocket.close", "code": int(code), "reason": reason})
            else:
                await send({**message, "type": "websocket.send"})
        self.ends.append(message)

    async def act_refuse(self, receive: Receive, send: Send) -> None:
        headers = [(b"www-authenticate", b"Basic"), (b"location", b"/login"), (b"x-inner", b"1")]
        status = int(dict(self.scopes[-1]["headers"])[b"x-status"])
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"not you"})

    async def act_wait(self, receive: Receive, send: Send) -> None:
        """Reads nothing until `go_on` is set, then sends how many bytes came."""
        await send({"type": "websocket.accept"})
        await self.go_on.wait()
        size = 0
        while (message := await receive())["type"] == "websocket.receive" and message.get("bytes"):
            size += len(message["bytes"])
        await send({"type": "websocket.send", "text": str(size)})

    async def act_pour(self, receive: Receive, send: Send) -> None:
        """Sends 48 messages of 1 MiB, and counts them."""
        await send({"type": "websocket.accept"})
        for number in range(48):
            await send({"type": "websocket.send", "bytes": bytes(2**20)})
            self.ends.append({"number": number})


class Chain:
    """A proxy or middleware before two services."""

    def __init__(self, app: CanaryMiddleware | Proxy, port: int, stable: Service, gray: Service) -> None:
        self.app = app
        self.port = port
        self.stable = stable
        self.gray = gray

    def connect(self, target: str = "/shop/", **options: Any) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{target}", proxy=None, **options)


@contextlib.asynccontextmanager
async def served(app: ASGIApp, ws: Any = "auto", http: Any = "auto") -> AsyncIterator[int]:
    """As `serving_app`, with a choice of uvicorn's websocket implementations; ours comes with `GuardedProtocol`."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Server(Config(app, ws=ws, http=http, log_config=None, proxy_headers=False, server_header=False))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done() or None)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The app behind a middleware that has the services elsewhere."""
    assert scope["type"] == "websocket"
    await deny_handshake(scope, receive, send, Reply(404))


made_apps: list[CanaryMiddleware] = []


@pytest.fixture(autouse=True)
def _stop_what_was_made() -> Iterator[None]:
    """Without lifespan nothing else stops the store of a middleware."""
    yield
    while made_apps:
        made_apps.pop().store.stop()


def middleware(upstreams: Any, rules: str = RULES, app: ASGIApp = not_found, **options: Any) -> CanaryMiddleware:
    made_apps.append(CanaryMiddleware(app, rules=StaticSource(rules), upstreams=upstreams, **options))
    return made_apps[-1]


@contextlib.asynccontextmanager
async def chain(kind: str = "middleware", ws: str = "auto", **options: Any) -> AsyncIterator[Chain]:
    """A proxy or middleware before two services, on three ports."""
    stable, gray = Service("stable"), Service("gray")
    async with served(stable) as stable_port, served(gray) as gray_port:
        urls = {"shop-stable": f"http://127.0.0.1:{stable_port}", "shop-gray": f"http://127.0.0.1:{gray_port}"}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules:
            rules.write(RULES)
            rules.flush()
            named = tuple(f"{name}={url}" for name, url in urls.items())
            settings = Settings(rules=(rules.name,), upstream=named)
            app = middleware(urls, **options) if kind == "middleware" else create_app(settings)
            async with served(app, ws, "auto" if kind == "middleware" else GuardedProtocol) as port:
                yield Chain(app, port, stable, gray)


@contextlib.asynccontextmanager
async def before(script: Script, target: str = "/shop/") -> AsyncIterator[tuple[str, int]]:
    """A middleware before a scripted upstream: the target as URL, and its port."""
    async with serving(script) as upstream:
        url = f"http://127.0.0.1:{upstream.origin.port}"
        async with served(middleware({"*": url, "127.0.0.1": url})) as port:
            yield f"ws://127.0.0.1:{port}{target}", port


async def closed(websocket: ClientConnection) -> tuple[int, str] | None:
    """Code and reason that a client got, None when the connection was just cut."""
    try:
        while True:
            await websocket.recv()
    except ConnectionClosed as exc:
        return None if exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason)


async def accept(peer: Peer, *headers: bytes) -> list[bytes]:
    """Accept an upgrade by hand; returns the request's header lines."""
    head = (await peer.head()).headers
    key = next(line[19:] for line in head if line.lower().startswith(b"sec-websocket-key: ")).decode()
    lines = [b"HTTP/1.1 101 Switching Protocols", b"upgrade: websocket", b"connection: Upgrade"]
    await peer.send(b"\r\n".join([*lines, b"sec-websocket-accept: " + accept_key(key).encode(), *headers, b"", b""]))
    return head


def on(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """Run a test on asyncio's loop or on uvloop's."""
    if loop == "asyncio":
        run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main, 40))


# Messages.


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", KINDS)
def test_messages_of_any_kind_and_size_pass_in_both_directions(kind: str, loop: str) -> None:
    async def main() -> None:
        async with chain(kind) as it, it.connect(max_size=None) as websocket:
            for message in ("héllo", b"\0\xff", "", b"", "x" * 2**20, bytes(2**20), bytes(3 * 2**20)):
                await websocket.send(message)
                assert await websocket.recv() == message
            await websocket.send(["in ", "three ", "frames"])
            assert await websocket.recv() == "in three frames"
            for number in range(200):
                await websocket.send(str(number))
            assert [await websocket.recv() for _ in range(200)] == [str(number) for number in range(200)]
            await (await websocket.ping())

    on(loop, main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_chooses_the_variant(kind: str) -> None:
    async def main() -> None:
        async with chain(kind) as it:
            async with it.connect() as websocket:
                assert _answer(websocket, "x-name") == ["stable"]
            async with it.connect(additional_headers=GRAY) as websocket:
                assert _answer(websocket, "x-name") == ["gray"]

    run(main())


def test_weights_choose_the_variant() -> None:
    rolls = iter([0.0, 19.9, 20.0, 99.9])

    async def main() -> None:
        names = []
        async with chain(roll=lambda: next(rolls)) as it:
            for _ in range(4):
                async with it.connect("/weighed/") as websocket:
                    names += _answer(websocket, "x-name")
        assert names == ["gray", "gray", "stable", "stable"]

    run(main())


def test_a_slow_upstream_slows_the_client() -> None:
    async def main() -> None:
        async with chain() as it, it.connect("/shop/wait", additional_headers=GRAY, compression=None) as websocket:
            sent = 0

            async def pour() -> None:
                nonlocal sent
                for _ in range(64):
                    await websocket.send(bytes(2**20))
                    sent += 1
                await websocket.send("end")

            pouring = asyncio.create_task(pour())
            await _at_rest(lambda: sent)
            # Buffers of four sockets, and a message or two in each process between.
            assert 0 < sent < 48
            it.gray.go_on.set()
            await pouring
            assert await websocket.recv() == str(64 * 2**20)

    run(main())


def test_a_slow_client_slows_the_upstream() -> None:
    async def main() -> None:
        async with (
            chain() as it,
            it.connect("/shop/pour", additional_headers=GRAY, compression=None, max_queue=1) as websocket,
        ):
            await _at_rest(lambda: len(it.gray.ends))
            assert 0 < len(it.gray.ends) < 40
            sizes = [len(await websocket.recv()) for _ in range(48)]
            assert sizes == [2**20] * 48
            assert (await closed(websocket)) is not None

    run(main())


# Headers.


def test_headers_path_and_subprotocols_go_up_as_the_mapping_says() -> None:
    async def main() -> None:
        given = {"cookie": "id=1", "x-secret": "1", "x-forwarded-for": "6.6.6.6", "authorization": "Bearer t"}
        given |= {"x-forwarded_for": "6.6.6.6", "sec-websocket_key": "6.6.6.6", "sec_websocket-protocol": "6.6.6.6"}
        offered = [Subprotocol("chat"), Subprotocol("superchat")]
        async with (
            chain() as it,
            it.connect(
                "/changed/a%2Fb%20/?q=%20&q", additional_headers=given, subprotocols=offered, origin="https://page"
            ) as websocket,
        ):
            assert websocket.subprotocol == "superchat"
        (scope,) = it.gray.scopes
        headers = dict(scope["headers"])
        assert (scope["raw_path"], scope["query_string"]) == (b"/inner/a%2Fb%20/", b"q=%20&q")
        assert scope["subprotocols"] == offered
        assert headers[b"host"] == b"inner.example"
        assert [name for name, _ in scope["headers"]].count(b"host") == 1
        assert headers[b"x-forwarded-for"] == b"127.0.0.1"
        assert headers[b"x-forwarded-proto"] == b"http"
        assert headers[b"x-forwarded-host"] == b"127.0.0.1:%d" % it.port
        assert headers[b"origin"] == b"https://page"
        assert (headers[b"cookie"], headers[b"authorization"]) == (b"id=1", b"Bearer t")
        assert b"canary-mw" in headers[b"via"]
        assert headers[b"x-added"] == b"yes"
        assert b"x-secret" not in headers
        assert b"6.6.6.6" not in headers.values()
        assert b"sec-websocket-extensions" not in headers

    run(main())


def test_the_acceptance_has_the_headers_of_the_upstream() -> None:
    async def main() -> None:
        async with chain() as it, it.connect("/changed/") as websocket:
            assert _answer(websocket, "set-cookie") == ["a=1", "b=2"]
            assert _answer(websocket, "x-variant") == ["gray"]
            assert _answer(websocket, "x-inner") == []
            assert websocket.subprotocol is None
            assert _answer(websocket, "server") == []
            for name in ("upgrade", "connection", "sec-websocket-accept"):
                assert len(_answer(websocket, name)) <= 1

    run(main())


def test_a_header_that_no_line_can_hold_is_not_sent() -> None:
    async def main() -> None:
        async with serving(silent) as upstream:
            sent = await _called([(b"x", b"a\r\nevil: 1")], f"http://127.0.0.1:{upstream.origin.port}")
            assert sent[0]["status"] == 502
            assert upstream.accepted == 0

    run(main())


# What is refused.


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_of_the_upstream_is_passed_on(kind: str) -> None:
    async def main() -> None:
        async with chain(kind) as it:
            for status in (200, 302, 401, 403, 426, 503):
                headers = [*UPGRADE, ("gray", "true"), ("x-status", str(status))]
                answer = await fetch(it.port, "/shop/refuse", headers=headers)
                assert (answer.status, answer.body, answer.whole) == (status, b"not you", True)
                assert answer.header("www-authenticate") == "Basic"
                assert answer.header("location") == "/login"

    run(main())


PLAIN = [b"content-type: text/html", b"content-length: 3"]
REFUSALS = {
    b"204 No Content": ([b"x-up: 1"], b"", [b"x-up: 1"]),
    b"304 Not Modified": ([b'etag: "a"', b"content-length: 9"], b"", [b'etag: "a"']),
    b"302 Found": ([b"location: /in", b"content-length: 0"], b"", [b"location: /in", b"content-length: 0"]),
    b"401 Unauthorized": ([b"www-authenticate: Basic", *PLAIN], b"no\n", [b"www-authenticate: Basic", *PLAIN]),
    b"403 Forbidden": ([b"transfer-encoding: chunked"], b"3\r\nabc\r\n0\r\n\r\n", [b"content-length: 3"]),
    b"426 Upgrade Required": (
        [b"upgrade: websocket", b"sec-websocket-version: 13, 8", b"content-length: 0", b"connection: upgrade"],
        b"",
        [b"sec-websocket-version: 13, 8", b"upgrade: websocket", b"content-length: 0", b"connection: upgrade"],
    ),
    b"503 Busy": ([b"server: up", b"retry-after: 1", b"content-length: 0"], b"", []),
}


@pytest.mark.parametrize("status", REFUSALS, ids=[each[:3].decode() for each in REFUSALS])
def test_a_refusal_keeps_its_headers_and_gains_none(status: bytes) -> None:
    given, body, expected = REFUSALS[status]
    script = answering(b"\r\n".join([b"HTTP/1.1 " + status, *given, b"", body]))

    async def main() -> None:
        async with serving(script) as upstream:
            app = middleware({"shop-stable": f"http://127.0.0.1:{upstream.origin.port}"})
            async with served(app, http=GuardedProtocol) as port, wire_to(port) as client:
                lines = [b"GET /shop/ HTTP/1.1", b"host: shop", *(f"{n}: {v}".encode() for n, v in UPGRADE)]
                await client.ask(b"\r\n".join([*lines, b"", b""]))
                head, _, content = (await client.reader.read()).partition(b"\r\n\r\n")
        first, *headers = head.split(b"\r\n")
        assert first[9:12] == status[:3]
        # The server adds the date that the upstream left out.
        assert headers[:1] == [line for line in headers if line.startswith(b"date: ")]
        assert headers[1:] == [*(expected or given), b"connection: close"]
        assert content == {b"401": b"no\n", b"403": b"abc"}.get(status[:3], b"")

    run(main())


@pytest.mark.parametrize("allowed", [True, False])
def test_an_upgrade_in_http_1_0_is_ignored(allowed: bool) -> None:
    lines: list[bytes] = []

    async def script(peer: Peer) -> None:
        head = await peer.request()
        lines.extend([head.line, *head.headers])
        await peer.answer(b"plain")

    async def main() -> None:
        async with serving(script) as upstream:
            app = middleware({"*": f"http://127.0.0.1:{upstream.origin.port}"})
            async with served(app, http=GuardedProtocol) as port, wire_to(port) as client:
                request = [b"GET /shop/ HTTP/1.0" if allowed else b"GET /plain/ HTTP/1.0", b"host: shop"]
                request += [f"{name}: {value}".encode() for name, value in UPGRADE]
                await client.ask(b"\r\n".join([*request, b"", b""]))
                assert (await client.answer()).body == b"plain"

    run(main())
    assert lines[0].startswith(b"GET / HTTP/1.1")
    assert not [line for line in lines if line.lower().startswith((b"upgrade", b"connection"))]


def test_refusing_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with chain() as it:
            for target, status in (("/dead/", 503), ("/forbidden/", 403), ("/nowhere/", 404)):
                assert (await fetch(it.port, target, headers=UPGRADE)).status == status

    run(main())
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_rules_do_not_allow_is_refused(kind: str) -> None:
    async def main() -> None:
        async with chain(kind) as it:
            assert (await fetch(it.port, "/forbidden/", headers=UPGRADE)).status == 403
            assert (await fetch(it.port, "/nowhere/", headers=UPGRADE)).status == 404
            moved = await fetch(it.port, "/old/x", headers=UPGRADE)
            assert (moved.status, moved.header("location")) == (301, "http://shop-gray/new/")
            assert (await fetch(it.port, "/shop/%00", headers=UPGRADE)).status == 400
        assert it.gray.scopes == it.stable.scopes == []

    run(main())


def test_a_middleware_needs_no_permission_for_what_the_app_can_do_without_it() -> None:
    async def main() -> None:
        async with chain("middleware") as it, it.connect("/plain/") as websocket:
            assert _answer(websocket, "x-name") == ["gray"]
        async with chain("proxy") as it:
            assert (await fetch(it.port, "/plain/", headers=UPGRADE)).status == 403
            assert it.gray.scopes == []

    run(main())


def test_permission_does_not_hang_on_the_upgrade_header() -> None:
    async def main() -> None:
        assert await _called([], "http://127.0.0.1:1", upgrades=("spdy",)) == [{"type": "websocket.close"}]

    run(main())


def test_a_server_that_can_only_close_answers_403() -> None:
    async def main() -> None:
        assert await _called([], "http://127.0.0.1:1", extensions=None) == [{"type": "websocket.close"}]

    run(main())


async def _broken(peer: Peer) -> None:
    await peer.head()
    await peer.send(b"SSH-2.0\r\n\r\n")


async def _gone(peer: Peer) -> None:
    await peer.head()


async def _reset(peer: Peer) -> None:
    await peer.head()
    peer.reset()


async def _other_key(peer: Peer) -> None:
    await peer.head()
    await peer.send(
        b"HTTP/1.1 101 Yes\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: no\r\n\r\n"
    )
    await peer.gone()


async def _unasked_subprotocol(peer: Peer) -> None:
    await accept(peer, b"sec-websocket-protocol: chat")
    await peer.gone()


@pytest.mark.parametrize(
    ("script", "target", "status"),
    [
        (silent, "/quick/", 504),
        (_gone, "/shop/", 503),
        (_reset, "/shop/", 503),
        (_broken, "/shop/", 502),
        (_other_key, "/shop/", 502),
        (_unasked_subprotocol, "/shop/", 502),
        (answering(b"HTTP/1.1 103 Early\r\n\r\n"), "/shop/", 502),
    ],
    ids=["silent", "gone", "reset", "broken", "other key", "unasked subprotocol", "early"],
)
def test_an_upstream_that_makes_no_handshake_is_a_gateway_error(script: Script, target: str, status: int) -> None:
    async def main() -> None:
        async with before(script, target) as (_, port):
            answer = await fetch(port, target, headers=UPGRADE)
            assert answer.status == status
            assert answer.body.startswith(b"upstream ")

    run(main())


def test_a_loop_is_found() -> None:
    async def main() -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        rules = mapping("round", "/round/", "shop", rewrite="''", **WS)
        app = middleware({"*": f"http://127.0.0.1:{port}"}, rules)
        server = Server(Config(app, log_config=None, proxy_headers=False))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started or None)
        assert (await fetch(port, "/round/", headers=UPGRADE)).status == 508
        server.should_exit = True
        await task

    run(main())


def test_a_retry_finds_the_endpoint_that_lives() -> None:
    rules = mapping("a", "/shop/", "shop", retry_policy="{retry_on: connect-failure, num_retries: 1}", **WS)

    async def main() -> None:
        async with served(Service("second")) as live:
            urls: Any = {"shop": ["http://127.0.0.1:1", f"http://127.0.0.1:{live}"]}
            app = middleware(urls, rules)
            async with served(app) as port, connect(f"ws://127.0.0.1:{port}/shop/", proxy=None) as websocket:
                assert _answer(websocket, "x-name") == ["second"]

    run(main())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("script", [None, _gone, _reset], ids=["refused", "gone", "reset"])
def test_a_handshake_goes_to_the_next_endpoint(script: Script | None, tls: bool) -> None:
    """Without a retry policy, as for other requests: what refuses a connection, or ends it before an answer."""
    rules = mapping("a", "/shop/", "shop", outlier_detection="{consecutive_5xx: 2}", **WS)

    async def main() -> None:
        async with served(Service("second")) as live, serving(script or silent, tls=tls) as other:
            scheme = "https" if tls else "http"
            first = f"{scheme}://127.0.0.1:{other.origin.port if script else 1}"
            app = middleware({"shop": [first, f"http://127.0.0.1:{live}"]}, rules)
            async with served(app) as port:
                for _ in range(6):
                    async with connect(f"ws://127.0.0.1:{port}/shop/", proxy=None) as websocket:
                        assert _answer(websocket, "x-name") == ["second"]
                # What failed counts against its endpoint.
                assert app.ejections() == {"shop": 1}
                app = middleware({"shop": [first, "http://127.0.0.1:2"]}, rules)
            async with served(app) as port:
                assert (await fetch(port, "/shop/", headers=UPGRADE)).status == 503

    run(main())


def test_a_handshake_that_was_answered_goes_to_no_other_endpoint() -> None:
    async def main() -> None:
        refusing = answering(b"HTTP/1.1 503 Not now\r\ncontent-length: 0\r\n\r\n")
        async with (
            serving(refusing) as one,
            serving(refusing) as two,
            serving(_broken) as three,
            serving(_broken) as four,
        ):
            for pair, status in (((one, two), 503), ((three, four), 502)):
                urls: Any = {"shop": [f"http://127.0.0.1:{each.origin.port}" for each in pair]}
                async with served(middleware(urls, mapping("a", "/shop/", "shop", **WS))) as port:
                    assert (await fetch(port, "/shop/", headers=UPGRADE)).status == status
                assert sum(each.accepted for each in pair) == 1

    run(main())


def test_a_try_that_takes_too_long_is_given_up() -> None:
    policy = "{retry_on: 5xx, num_retries: 1, per_try_timeout: 100ms}"
    rules = mapping("a", "/shop/", "shop", retry_policy=policy, timeout_ms="20000", **WS)

    async def main() -> None:
        async with serving(silent) as upstream:
            app = middleware({"shop": f"http://127.0.0.1:{upstream.origin.port}"}, rules)
            async with served(app) as port:
                assert (await fetch(port, "/shop/", headers=UPGRADE)).status == 504
            assert upstream.accepted == 2

    run(main())


def test_a_tunnel_counts_as_a_request_to_its_end() -> None:
    rules = mapping("a", "/shop/", "shop", circuit_breakers="[{max_requests: 1}]", **WS)

    async def main() -> None:
        async with served(Service("live")) as upstream:
            app = middleware({"shop": f"http://127.0.0.1:{upstream}"}, rules)
            async with served(app) as port:
                url = f"ws://127.0.0.1:{port}/shop/"
                async with connect(url, proxy=None):
                    for headers in (UPGRADE, []):
                        refused = await fetch(port, "/shop/", headers=headers)
                        assert (refused.status, refused.header("x-envoy-overloaded")) == (503, "true")
                await until(lambda: not app.upstreams.in_flight.counts)
                async with connect(url, proxy=None):
                    pass

    run(main())


# How it ends.

CODES = [
    (1000, ""),
    (1000, "done"),
    (1001, "later"),
    (1012, ""),
    (3000, "r"),
    (4001, "bye, ünïcode"),
    (4999, "x" * 123),
]


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_code_and_reason_reach_the_other_side(ws: str) -> None:
    async def main() -> None:
        async with chain(ws=ws) as it:
            for code, reason in CODES:
                async with it.connect() as websocket:
                    await websocket.send(f"close:{code}:{reason}")
                    assert await closed(websocket) == (code, reason)
            it.stable.ends.clear()
            for number, (code, reason) in enumerate(CODES, 1):
                async with it.connect() as websocket:
                    await websocket.close(code, reason)
                await until(lambda at=number: len(it.stable.ends) == at)  # type: ignore[misc]
            assert [(end["code"], end["reason"]) for end in it.stable.ends] == CODES

    run(main())


def test_a_close_without_a_code_is_a_normal_one() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.send(b"\x88\x00")
        await peer.read_some()

    async def main() -> None:
        async with before(script) as (url, _), connect(url, proxy=None) as websocket:
            assert await closed(websocket) == (1000, "")
        async with chain() as it:
            async with it.connect() as websocket:
                websocket.protocol.send_close()
                websocket.send_data()
            assert (await until(lambda: it.stable.ends[-1:]))[0]["code"] == 1000

    run(main())


@pytest.mark.parametrize("cut", [Peer.finish, Peer.reset])
def test_an_upstream_that_is_cut_off_never_looks_like_a_clean_end(cut: Callable[[Peer], None]) -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.send(b"\x81\x02hi")
        # Not before the message was taken: a reset may overtake it.
        await peer.read_some()
        cut(peer)

    async def main() -> None:
        async with before(script) as (url, _), connect(url, proxy=None) as websocket:
            assert await websocket.recv() == "hi"
            await websocket.send("now")
            assert await closed(websocket) == (1011, "upstream connection lost")

    run(main())


def test_a_client_that_is_cut_off_never_looks_like_a_clean_end() -> None:
    async def main() -> None:
        async with chain() as it:
            for number in range(2):
                async with it.connect() as websocket:
                    websocket.transport.abort()
                await until(lambda at=number: len(it.stable.ends) > at)  # type: ignore[misc]
        assert [end["code"] for end in it.stable.ends] == [1001, 1001]

    run(main())


def test_an_upstream_that_never_finishes_its_close_is_not_waited_for() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.send(b"\x88\x05" + struct.pack("!H", 4001) + b"bye")
        seen.append(await peer.gone())

    async def main() -> None:
        async with before(script) as (url, _), connect(url, proxy=None) as websocket:
            assert await closed(websocket) == (4001, "bye")
            await until(lambda: seen)

    run(main())


def test_messages_before_a_close_are_not_lost() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.send(b"\x81\x01a\x81\x01b\x82\x01c\x88\x02\x0f\xa1")
        await peer.read_some()

    async def main() -> None:
        async with before(script) as (url, _), connect(url, proxy=None) as websocket:
            assert [await websocket.recv() for _ in range(3)] == ["a", "b", b"c"]
            assert await closed(websocket) == (4001, "")

    run(main())


def test_a_ping_is_answered_on_its_own_leg_and_goes_no_further() -> None:
    answered: list[bytes] = []

    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.send(b"\x89\x02hi")
        frame = await peer.reader.readexactly(8)
        mask = frame[2:6]
        answered.append(frame[:2] + bytes(byte ^ mask[index] for index, byte in enumerate(frame[6:])))
        await peer.send(b"\x81\x04then")
        answered.append(await peer.read_some())

    async def main() -> None:
        async with before(script) as (url, _), connect(url, proxy=None) as websocket:
            assert await websocket.recv() == "then"
            await (await websocket.ping(b"from the client"))
        # A pong, then nothing but the masked Close frame: the client's ping was answered by us.
        assert answered[0] == b"\x8a\x82hi"
        assert answered[1][:1] == b"\x88"

    run(main())


def test_a_message_that_is_too_large_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsclient, "MAX_MESSAGE", 1024)

    async def main() -> None:
        async with chain() as it, it.connect() as websocket:
            await websocket.send("x" * 1024)
            assert len(await websocket.recv()) == 1024
            await websocket.send("x" * 1025)
            assert await closed(websocket) == (1011, "upstream connection lost")
        assert [end["code"] for end in it.stable.ends] == [1009]

    run(main())


@pytest.mark.parametrize("endless", [True, False])
def test_an_upstream_whose_message_never_ends_is_cut_off(endless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsclient, "MAX_FRAGMENTS", 100)

    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.send(b"\x01\x01a" + b"\x00\x00" * 98 + (b"\x00\x00" if endless else b"\x80\x00"))
        await peer.read_some()

    async def main() -> None:
        async with before(script) as (url, _), connect(url, proxy=None) as websocket:
            if endless:
                assert await closed(websocket) == (1011, "upstream connection lost")
            else:
                assert await websocket.recv() == "a"

    run(main())


def test_a_silent_tunnel_ends_after_the_idle_timeout() -> None:
    async def main() -> None:
        async with chain() as it, it.connect("/idle/") as websocket:
            ends = asyncio.get_running_loop().time() + 1.8
            while asyncio.get_running_loop().time() < ends:
                await websocket.send("still here")
                assert await websocket.recv() == "still here"
                await asyncio.sleep(0.02)
            assert await closed(websocket) == (1001, "idle timeout")
            await until(lambda: it.gray.ends)
            assert it.gray.ends[0]["code"] == 1001

    run(main())


def test_a_client_that_leaves_while_the_upstream_thinks_ends_its_request() -> None:
    async def main() -> None:
        asked, left = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.head()
            asked.set()
            await peer.gone()
            left.set()

        async with before(script) as (url, _):
            opening = asyncio.create_task(_open(url))
            await asked.wait()
            opening.cancel()
            await left.wait()
            await asyncio.gather(opening, return_exceptions=True)

    run(main())


def test_a_cancelled_tunnel_leaves_no_connection() -> None:
    async def main() -> None:
        accepted = asyncio.Event()
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await accept(peer)
            accepted.set()
            await peer.gone()
            gone.set()

        for stage in (accepted, None):
            accepted.clear()
            async with serving(script if stage else silent) as upstream:
                call = asyncio.create_task(_called([], f"http://127.0.0.1:{upstream.origin.port}"))
                await until(lambda it=upstream, now=stage: now.is_set() if now else it.accepted)  # type: ignore[misc]
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await until(lambda it=upstream: not it.scripts)  # type: ignore[misc]
        assert gone.is_set()

    run(main())


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("Unexpected ASGI message, after the end")])
def test_a_client_that_cannot_be_sent_to_has_left(error: Exception) -> None:
    async def main() -> None:
        service = Service()

        async def send(message: Message) -> None:
            if message["type"] == "websocket.send":
                raise error

        async with served(service) as port:
            await _called([], f"http://127.0.0.1:{port}", send=send, said=["hello"])
            await until(lambda: service.ends)
        assert service.ends[0]["code"] == 1001

    run(main())


def test_a_code_that_no_frame_can_hold_is_not_passed_on() -> None:
    async def main() -> None:
        service = Service()
        async with served(service) as port:
            for code in (1006, 1015, 999, 5000):
                end: Message = {"type": "websocket.disconnect", "code": code, "reason": ""}
                await _called([], f"http://127.0.0.1:{port}", said=[end])
            await until(lambda: len(service.ends) == 4)
        assert {end["code"] for end in service.ends} == {1001}

    run(main())


# Reload and shutdown.


def test_connections_outlive_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    async def main() -> None:
        store = RuleStore(FileSource(path))
        service = Service()
        async with served(service) as upstream:
            app = CanaryMiddleware(not_found, rules=store, upstreams={"*": f"http://127.0.0.1:{upstream}"})
            made_apps.append(app)
            async with served(app) as port, connect(f"ws://127.0.0.1:{port}/shop/", proxy=None) as websocket:
                await websocket.send("before")
                assert await websocket.recv() == "before"
                # Written in place it might be a part only, which removes nothing at first.
                (tmp_path / "new").write_text(mapping("other", "/other/", "elsewhere"))
                (tmp_path / "new").rename(path)
                assert await asyncio.to_thread(store.wait, store.generation + 1, 10)
                assert (await fetch(port, "/shop/", headers=UPGRADE)).status == 404
                await websocket.send("after")
                assert await websocket.recv() == "after"

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_end_of_the_app_both_sides_are_closed(kind: str) -> None:
    async def main() -> None:
        async with chain(kind) as it, it.connect() as websocket, it.connect(additional_headers=GRAY) as other:
            inner = it.app if isinstance(it.app, CanaryMiddleware) else it.app._middleware
            await inner.aclose()
            assert (await closed(websocket), await closed(other)) == ((1001, ""), (1001, ""))
            assert (it.stable.ends[0]["code"], it.gray.ends[0]["code"]) == (1001, 1001)

    run(main())


def test_at_the_end_of_the_app_nobody_waits_for_an_upstream_that_thinks() -> None:
    async def main() -> None:
        async with serving(silent) as upstream:
            app = middleware({"*": f"http://127.0.0.1:{upstream.origin.port}"})
            async with served(app) as port:
                asking = asyncio.create_task(fetch(port, "/shop/", headers=UPGRADE))
                await until(lambda: upstream.accepted)
                await app.aclose()
                assert (await asking).status == 503

    run(main())


def test_tunnels_of_others_stay_open() -> None:
    async def main() -> None:
        async with chain() as it, it.connect() as websocket:
            await wait_tunnels(Upstreams())
            await websocket.send("still here")
            assert await websocket.recv() == "still here"

    run(main())


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_serve_ends_its_tunnels_on_sigterm(tmp_path: Path, workers: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    async def main() -> None:
        port, service = free_port(), Service()
        async with served(service) as upstream:
            arguments = ["serve", "--rules", str(path), "--port", str(port), "--workers", workers]
            arguments += ["--upstream", f"*=http://127.0.0.1:{upstream}"]
            with process(*arguments, log=tmp_path / "log", wait_for=[port]) as proxy:
                async with await _open(f"ws://127.0.0.1:{port}/shop/") as websocket:
                    await websocket.send("hello")
                    assert await websocket.recv() == "hello"
                    proxy.terminate()
                    received = await closed(websocket)
                assert await asyncio.to_thread(proxy.stop) == 0
            assert received == (1001, "")
            await until(lambda: service.ends)
            assert service.ends[0]["code"] == 1001
            assert "Traceback" not in proxy.output
            assert "ERROR" not in proxy.output

    run(main())


# Who else may answer.


def test_what_is_ours_or_nobodys_goes_to_the_app() -> None:
    app = Service("app")

    async def main() -> None:
        async with served(middleware({}, app=app, local="shop-stable")) as port:
            for target in ("/shop/", "/nowhere/"):
                async with connect(f"ws://127.0.0.1:{port}{target}", proxy=None) as websocket:
                    await websocket.send("hello")
                    assert await websocket.recv() == "hello"
        local, unmatched = (scope["canary_mw"] for scope in app.scopes)
        assert (local.mapping.name, local.variant, unmatched) == ("stable", "stable", None)

    run(main())


def test_an_app_of_this_process_may_be_the_gray_service() -> None:
    gray = Service("gray")

    async def main() -> None:
        async with served(middleware({}, services={"shop-gray": gray})) as port:
            offered = [Subprotocol("chat")]
            async with connect(f"ws://127.0.0.1:{port}/changed/x", proxy=None, subprotocols=offered) as websocket:
                await websocket.send("hello")
                assert await websocket.recv() == "hello"
                assert (websocket.subprotocol, _answer(websocket, "x-variant")) == ("chat", ["gray"])
                assert _answer(websocket, "x-inner") == []
            refused = await fetch(port, "/changed/refuse", headers=[*UPGRADE, ("x-status", "401")])
            assert (refused.status, refused.header("x-inner")) == (401, None)
        assert gray.scopes[0]["path"] == "/inner/x"
        assert gray.scopes[0]["canary_mw"].mapping.name == "changed"
        assert dict(gray.scopes[0]["headers"])[b"host"] == b"inner.example"

    run(main())


def test_the_upstream_may_speak_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.send(b"\x81\x02hi")
        await peer.gone()

    async def main() -> None:
        async with serving(script, tls=True) as upstream:
            app = middleware({"*": f"https://127.0.0.1:{upstream.origin.port}"})
            async with served(app) as port:
                assert (await fetch(port, "/shop/", headers=UPGRADE)).status == 503
            # Among the system's authorities from here on.
            monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
            app = middleware({"*": f"https://127.0.0.1:{upstream.origin.port}"})
            async with served(app) as port, connect(f"ws://127.0.0.1:{port}/shop/", proxy=None) as websocket:
                assert await websocket.recv() == "hi"

    run(main())


def test_a_scope_without_what_is_optional_is_a_get() -> None:
    assert websocket_request({"type": "websocket", "path": "/"}) == {
        "type": "websocket",
        "path": "/",
        "method": "GET",
        "scheme": "http",
        "http_version": "1.1",
        "query_string": b"",
        "headers": (),
    }
    assert websocket_request({"type": "websocket", "path": "/", "scheme": "wss"})["scheme"] == "https"


def _answer(websocket: ClientConnection, name: str) -> list[str]:
    assert websocket.response is not None
    return websocket.response.headers.get_all(name)


async def _open(url: str) -> ClientConnection:
    return await connect(url, proxy=None)


async def _at_rest(count: Callable[[], int]) -> None:
    """Until nothing has moved for a while; on a slow machine that may be before it must, which proves less."""
    before = -1
    while count() != before or not count():
        before = count()
        await asyncio.sleep(0.3)


async def _called(
    headers: list[tuple[bytes, bytes]],
    url: str,
    *,
    said: list[Any] | None = None,
    send: Send | None = None,
    extensions: Any = {"websocket.http.response": {}},  # noqa: B006 - read only
    upgrades: tuple[str, ...] = ("websocket",),
) -> list[Message]:
    """Call the tunnel as a server does, which says what it is given and then waits; returns what it was sent."""
    sent: list[Message] = []
    answered = asyncio.Event()
    given = [{"type": "websocket.receive", "text": each} if isinstance(each, str) else each for each in said or []]
    messages: list[Message] = [{"type": "websocket.connect"}, *given]

    async def receive() -> Message:
        if not messages:
            await asyncio.get_running_loop().create_future()
        if messages[0]["type"] == "websocket.disconnect":
            await answered.wait()
        return messages.pop(0)

    async def answer(message: Message) -> None:
        sent.append(message)
        answered.set()
        if message["type"] == "websocket.http.response.body":
            messages.extend([{"type": "websocket.disconnect", "code": 1006}] * 2)
        if send is not None:
            await send(message)

    only = made("a", "/svc/", "svc", upgrades=upgrades)
    scope = {"type": "websocket", "extensions": extensions}
    upstreams = Upstreams({"svc": url})
    await tunnel(decision_of(only), get("/svc/", headers), HOP, scope, receive, answer, upstreams)
    return sent
