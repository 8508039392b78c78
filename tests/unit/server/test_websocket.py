"""uvicorn with the guarded WebSocket protocol on real sockets: what it holds of a client, and how it refuses."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
import uvicorn
from upstream import ON_BOTH_LOOPS, Run, until
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from canary_mw.observability.counters import RefusalCounters
from canary_mw.server import websocket
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.server.websocket import HIGH_WATER, GuardedWebSocketProtocol, frame_length
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
VERSION = b"Sec-WebSocket-Version: 13\r\n"
# The most that asyncio and uvloop read at once.
READ = 256 * 1024

pytestmark = ON_BOTH_LOOPS


class Shop:
    """An app that takes messages when it is told to.

    Attributes:
        scopes: of its requests.
        messages: that it has taken.
        go_on: set it to let the app take messages until the client closes.
    """

    def __init__(self, before: Callable[[Receive, Send], Awaitable[object]] | None = None) -> None:
        self.scopes: list[Scope] = []
        self.messages: list[Message] = []
        self.go_on = asyncio.Event()
        self._before = before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"http"})
            return
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        if self._before is not None:
            await self._before(receive, send)
        await self.go_on.wait()
        while (message := await receive())["type"] == "websocket.receive":
            self.messages.append(message)
        self.messages.append(message)

    def contents(self) -> list[str | bytes]:
        """The content of the messages."""
        return [each.get("text") or each.get("bytes") or b"" for each in self.messages[:-1]]


class Guard(ServerState):
    """A server: its port, its connections and what it has refused."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self.refusals = RefusalCounters()

    async def connection(self) -> GuardedWebSocketProtocol:
        """The WebSocket of the only client."""
        found = await until(lambda: [each for each in self.connections if isinstance(each, GuardedWebSocketProtocol)])
        return found[0]


@contextlib.asynccontextmanager
async def guarding(app: ASGIApp, defaults: Sequence[tuple[bytes, bytes]] = (), **options: Any) -> AsyncIterator[Guard]:
    """Serve an app with the guarded protocol, as uvicorn's server would.

    Args:
        defaults: headers of every answer.
        options: of uvicorn.
    """
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, **options)
    config.load()
    state = Guard()
    state.default_headers.extend(defaults)
    shared = {RefusalCounters.KEY: state.refusals}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: GuardedProtocol(config, state, shared), "127.0.0.1", 0)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for connection in tuple(state.connections):
            connection.shutdown()
        await until(lambda: not state.connections and not state.tasks)
        await server.wait_closed()


class Client:
    """A client that writes frames as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def shake_hands(self, request: bytes = HANDSHAKE) -> bytes:
        """Send a handshake; returns the head of the response."""
        self.writer.write(request)
        return await self.reader.readuntil(b"\r\n\r\n")

    async def frame(self) -> tuple[Opcode, bytes]:
        """The next frame of the server, a short one."""
        head = await self.reader.readexactly(2)
        length = head[1]
        if length > 125:
            length = int.from_bytes(await self.reader.readexactly({126: 2, 127: 8}[length]))
        return Opcode(head[0] & 0x0F), await self.reader.readexactly(length)


@contextlib.asynccontextmanager
async def client_of(guard: Guard, *, shake_hands: bool = True) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", guard.port))
    try:
        if shake_hands:
            assert (await client.shake_hands()).startswith(b"HTTP/1.1 101 ")
        yield client
    finally:
        client.writer.close()
        with contextlib.suppress(ConnectionError):
            await client.writer.wait_closed()


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame of a client, with a mask."""
    return Frame(opcode, data, fin).serialize(mask=True)


CLOSE = frame(Opcode.CLOSE, b"\x03\xe8")


def held(connection: GuardedWebSocketProtocol) -> int:
    """Bytes that a connection holds of its client."""
    queued = [each.get("text") or each.get("bytes") or b"" for each in connection.queue._queue]  # type: ignore[attr-defined]
    parts = [*queued, *connection.frames, connection._unread, connection.conn.reader.buffer]
    return sum(map(len, parts))


# What it holds.


def test_messages_are_not_compressed(run: Run) -> None:
    async def main() -> None:
        shop = Shop()
        shop.go_on.set()
        async with guarding(shop, ws_per_message_deflate=True) as guard:
            async with connect(f"ws://127.0.0.1:{guard.port}/", proxy=None, compression="deflate") as websocket:
                assert websocket.response is not None
                assert "sec-websocket-extensions" not in websocket.response.headers
                await websocket.send("x" * 100_000)
            async with client_of(guard) as client:
                client.writer.write(b"\xc2\x84\0\0\0\0\xaa\x02\x00\x00")
                assert await client.frame() == (Opcode.CLOSE, b"\x03\xeareserved bits must be 0")
        assert [message["type"] for message in shop.messages] == ["websocket.receive", *["websocket.disconnect"] * 2]

    run(main)


def test_one_message_at_a_time_waits_for_the_app(run: Run) -> None:
    """However many there are in one read."""

    async def main() -> None:
        shop = Shop()
        count = 20_000
        async with guarding(shop) as guard, client_of(guard) as client:
            client.writer.write(b"".join(frame(Opcode.TEXT, b"%d" % number) for number in range(count)) + CLOSE)
            connection = await guard.connection()
            await until(lambda: connection.read_paused)
            assert connection.queue.qsize() == 1
            assert held(connection) < READ + HIGH_WATER
            shop.go_on.set()
            await until(lambda: len(shop.messages) > count)
            assert shop.contents() == [str(number) for number in range(count)]
            assert shop.messages[-1]["code"] == 1000

    run(main)


@pytest.mark.parametrize("size", [1, 125, 126, 65536, 2**20])
def test_what_is_held_of_a_client_that_pours_is_bounded(run: Run, size: int) -> None:
    async def main() -> None:
        shop = Shop()
        one = frame(Opcode.BINARY, bytes(size))
        count = min(8 * 2**20 // len(one), 20_000)
        async with guarding(shop) as guard, client_of(guard) as client:

            async def pour() -> None:
                for _ in range(0, count, 100):
                    client.writer.write(one * 100)
                    await client.writer.drain()
                client.writer.write(CLOSE)

            pouring = asyncio.create_task(pour())
            connection = await guard.connection()
            # Whatever is sent while the app takes one message after the other, the bound holds.
            for _ in range(50):
                await until(lambda: connection.read_paused)
                assert connection.queue.qsize() == 1
                assert held(connection) <= 2 * size + READ + HIGH_WATER
                await connection.receive()
            shop.go_on.set()
            await pouring
            await until(lambda: shop.messages and shop.messages[-1]["type"] == "websocket.disconnect")
            assert sum(map(len, shop.contents())) >= size * (count - 50)

    run(main)


def test_a_message_in_a_million_fragments_costs_its_bytes(run: Run) -> None:
    async def main() -> None:
        shop = Shop()
        async with guarding(shop) as guard, client_of(guard) as client:
            client.writer.write(frame(Opcode.TEXT, b"a", fin=False))
            empty = frame(Opcode.CONT, fin=False) * 20_000
            client.writer.write(empty + frame(Opcode.PING, b"1"))
            assert await client.frame() == (Opcode.PONG, b"1")
            connection = await guard.connection()
            assert connection.frames == [b"a"]
            client.writer.write(
                empty + frame(Opcode.CONT, "é".encode()[:1], fin=False) + frame(Opcode.CONT, "é".encode()[1:])
            )
            client.writer.write(frame(Opcode.BINARY, b"\xff", fin=False) + frame(Opcode.CONT, b"\x00") + CLOSE)
            shop.go_on.set()
            await until(lambda: len(shop.messages) == 3)
            assert shop.contents() == ["aé", b"\xff\x00"]
            assert type(shop.messages[1]["bytes"]) is bytes

    run(main)


@pytest.mark.parametrize("segment", [1, 2, 3, 7, 1000])
def test_frames_may_come_in_any_pieces(run: Run, segment: int) -> None:
    wire = (
        frame(Opcode.TEXT, b"first")
        + frame(Opcode.PING, b"p")
        + frame(Opcode.BINARY, b"", fin=False)
        + frame(Opcode.PING)
        + frame(Opcode.CONT, bytes(130))
        + frame(Opcode.TEXT)
        + frame(Opcode.BINARY, bytes(range(256)) * 3)
        + CLOSE
    )

    async def main() -> None:
        shop = Shop()
        shop.go_on.set()
        async with guarding(shop) as guard, client_of(guard) as client:
            connection = await guard.connection()
            for at in range(0, len(wire), segment):
                connection.data_received(wire[at : at + segment])
                await asyncio.sleep(0)
            assert [await client.frame() for _ in range(3)] == [
                (Opcode.PONG, b"p"),
                (Opcode.PONG, b""),
                (Opcode.CLOSE, b"\x03\xe8"),
            ]
            await until(lambda: len(shop.messages) == 5)
        assert shop.contents() == ["first", bytes(130), b"", bytes(range(256)) * 3]

    run(main)


def test_the_length_of_a_frame_is_in_its_header(run: Run) -> None:
    for size in (0, 1, 125, 126, 65535, 65536):
        whole = b"xx" + frame(Opcode.BINARY, bytes(size))
        header = len(whole) - 2 - size - 4
        assert [frame_length(whole[:end], 2) for end in range(2, 2 + header)] == [0] * header
        assert {frame_length(whole[:end], 2) for end in (2 + header, len(whole))} == {len(whole) - 2}


def test_a_client_that_reads_no_pongs_gets_the_last_one(run: Run) -> None:
    async def pour(receive: Receive, send: Send) -> None:
        for _ in range(64):
            await send({"type": "websocket.send", "bytes": bytes(2**20)})

    async def main() -> None:
        shop = Shop(pour)
        async with guarding(shop) as guard, client_of(guard) as client:
            connection = await guard.connection()
            await until(lambda: not connection.writable.is_set())
            buffered = connection.transport.get_write_buffer_size()
            for number in range(1000):
                connection.data_received(frame(Opcode.PING, b"%d" % number))
            assert connection.transport.get_write_buffer_size() <= buffered
            frames: list[tuple[Opcode, bytes]] = []
            while not frames or frames[-1][0] is not Opcode.PONG:
                frames.append(await client.frame())
            assert frames[-1] == (Opcode.PONG, b"999")
            client.writer.write(frame(Opcode.PING, b"now"))
            while frames[-1] != (Opcode.PONG, b"now"):
                frames.append(await client.frame())
            assert [opcode for opcode, _ in frames].count(Opcode.PONG) == 2
            shop.go_on.set()
            client.writer.write(CLOSE)

    run(main)


# How it ends.


def test_what_waits_for_the_app_is_dropped_when_it_closes(run: Run) -> None:
    async def main() -> None:
        closing = asyncio.Event()

        async def close(_: Receive, send: Send) -> None:
            await closing.wait()
            await send({"type": "websocket.close", "code": 4001})

        shop = Shop(close)
        shop.go_on.set()
        async with guarding(shop) as guard, client_of(guard) as client:
            client.writer.write(frame(Opcode.TEXT, b"x") * 1000 + CLOSE)
            connection = await guard.connection()
            await until(lambda: connection.read_paused)
            closing.set()
            assert await client.frame() == (Opcode.CLOSE, b"\x0f\xa1")
            # At once, because the answer to the close was read.
            assert await client.reader.read() == b""

    run(main)


@pytest.mark.parametrize("waiting", [0, 1, 1000])
def test_the_connection_of_an_app_that_has_closed_ends_with_the_answer_of_its_client(run: Run, waiting: int) -> None:
    """What the app would take next, its disconnect too, is nothing that the answer waits for."""

    async def main() -> None:
        closing = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await closing.wait()
            await send({"type": "websocket.close", "code": 4001})

        async with guarding(app) as guard, client_of(guard) as client:
            connection = await guard.connection()
            connection.close_timeout = 3600
            client.writer.write(frame(Opcode.TEXT, bytes(100)) * waiting)
            await until(lambda: connection.queue.qsize() == min(waiting, 1))
            closing.set()
            assert await client.frame() == (Opcode.CLOSE, b"\x0f\xa1")
            client.writer.write(frame(Opcode.CLOSE, b"\x0f\xa1"))
            assert await client.reader.read() == b""

    run(main)


async def _close(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1000})


async def _fail(send: Send) -> None:
    raise LookupError("of the app")


async def _nothing(send: Send) -> None:
    """The client is pinged, and answers nothing."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("end", [_close, _fail, _nothing])
def test_a_client_that_reads_nothing_is_let_go(
    run: Run, end: Callable[[Send], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "LINGER_TIMEOUT", 0.01)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connection = await guards[0].connection()
        connection.close_timeout = 0.01
        connection.transport.set_write_buffer_limits(2**30)
        await send({"type": "websocket.send", "bytes": bytes(8 * 2**20)})
        ready.set()
        await end(send)

    guards: list[Guard] = []
    ready = asyncio.Event()

    async def main() -> None:
        options: Any = {"ws_ping_interval": 0.01, "ws_ping_timeout": 0.01} if end is _nothing else {}
        async with guarding(app, **options) as guard:
            guards.append(guard)
            async with client_of(guard) as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await ready.wait()
                await until(lambda: not guard.connections)
                for task in list(guard.tasks):
                    task.cancel()

    run(main)


# Handshakes.


def headers_of(head: bytes) -> list[tuple[bytes, bytes]]:
    lines = head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


async def answered(guard: Guard, request: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the response to a handshake, which ends the connection."""
    async with client_of(guard, shake_hands=False) as client:
        head = await client.shake_hands(request)
        return int(head[9:12]), headers_of(head), await client.reader.read()


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        *(b"Sec-WebSocket-Version: %b\r\n" % each for each in (b"", b"0", b"7", b"8", b"12", b"14", b"013", b"x")),
        b"sec-websocket-VERSION: 13, 8\r\n",
        VERSION + b"Sec-WebSocket-Version: 8\r\n",
    ],
)
def test_another_version_is_told_which_one_is_spoken(run: Run, lines: bytes) -> None:
    async def main() -> None:
        shop = Shop()
        async with guarding(shop) as guard:
            status, headers, body = await answered(guard, HANDSHAKE.replace(VERSION, lines))
            assert (status, shop.scopes, guard.refusals.refused) == (426, [], {426: 1})
            assert headers == [
                (b"upgrade", b"websocket"),
                (b"sec-websocket-version", b"13"),
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"upgrade"),
                (b"connection", b"close"),
            ]

    run(main)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"!", 400),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (b"GET", b"POST", 400),
        (VERSION, VERSION + b"Cookie: " + b"x" * 10_000 + b"\r\n", 431),
    ],
    ids=["short key", "no base64", "no key", "method", "long line"],
)
def test_what_is_no_handshake_is_refused(run: Run, old: bytes, new: bytes, expected: int) -> None:
    async def main() -> None:
        shop = Shop()
        async with guarding(shop) as guard:
            status, headers, body = await answered(guard, HANDSHAKE.replace(old, new))
            assert (status, shop.scopes, guard.refusals.refused) == (expected, [], {expected: 1})
            assert dict(headers)[b"content-length"] == b"%d" % len(body)
            assert b"websockets" not in b"".join(value for _, value in headers) + body

    run(main)


@pytest.mark.parametrize(
    "lines",
    [
        b"UPGRADE: WebSocket\r\nCONNECTION: UPGRADE\r\n",
        b"upgrade: WEBSOCKET\r\nconnection: keep-alive, Upgrade\r\n",
        b"Upgrade:\twebsocket \r\nConnection:upGrade,\tkeep-alive\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nConnection: keep-alive\r\n",
        b"Connection: keep-alive\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    ],
)
def test_names_and_options_have_no_case_and_any_order(run: Run, lines: bytes) -> None:
    async def main() -> None:
        shop = Shop()
        shop.go_on.set()
        async with guarding(shop) as guard, client_of(guard, shake_hands=False) as client:
            request = HANDSHAKE.replace(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", lines)
            head = await client.shake_hands(request)
            assert head.startswith(b"HTTP/1.1 101 ")
            assert (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") in headers_of(head)
            assert not {b"server", b"content-length", b"content-type"} & dict(headers_of(head)).keys()

    run(main)


@pytest.mark.parametrize("name", [b"websocket", b"WebSocket", b"h2c", b"websocket, h2c"])
def test_http_1_0_knows_no_upgrade(run: Run, name: bytes) -> None:
    async def main() -> None:
        shop = Shop()
        async with guarding(shop) as guard:
            request = HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b": websocket", b": " + name)
            status, headers, body = await answered(guard, request)
            assert (status, body, [scope["type"] for scope in shop.scopes]) == (200, b"http", ["http"])
            assert b"upgrade" not in dict(headers)

    run(main)


@pytest.mark.parametrize(
    ("status", "given", "body", "expected"),
    [
        (200, [], b"ok", [(b"content-length", b"2")]),
        (204, [(b"x-up", b"1")], b"", [(b"x-up", b"1")]),
        (204, [(b"Content-Length", b"0")], b"no", []),
        (304, [(b"ETag", b'"a"')], b"", [(b"etag", b'"a"')]),
        (302, [(b"location", b"/in"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")], b"", [...]),
        (401, [(b"www-authenticate", b"Basic"), (b"content-type", b"text/css")], b"{}", [...]),
        (403, [(b"content-length", b"99")], b"abc", [(b"content-length", b"3")]),
        (426, [(b"Upgrade", b"websocket")], b"", [(b"upgrade", b"websocket"), (b"content-length", b"0")]),
        (503, [(b"transfer-encoding", b"chunked"), (b"retry-after", b"1")], b"later", [(b"retry-after", b"1"), ...]),
        (599, [], b"", [...]),
    ],
)
def test_a_refusal_has_the_headers_that_the_app_gives(
    run: Run, status: int, given: list[tuple[bytes, bytes]], body: bytes, expected: list[Any]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": status, "headers": given})
        for chunk in (body[:1], body[1:]):
            await send({"type": "websocket.http.response.body", "body": chunk, "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b""})

    async def main() -> None:
        async with guarding(app) as guard:
            got, headers, content = await answered(guard, HANDSHAKE)
            wanted = [*given, ...] if expected == [...] else expected
            wanted = [(b"content-length", b"%d" % len(body)) if pair is ... else pair for pair in wanted]
            upgrade = [(b"connection", b"upgrade")] if status == 426 else []
            assert (got, headers) == (status, [*wanted, *upgrade, (b"connection", b"close")])
            assert content == (b"" if status in (204, 304) else body)

    run(main)


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "websocket.close"}], 403),
        ([{"type": "websocket.http.response.start", "status": 101}, {"type": "websocket.http.response.body"}], 500),
        ([{"type": "websocket.http.response.start", "status": 200, "headers": [(b"a", b"\n")]}, {}], 500),
        ([{"type": "websocket.http.response.body"}], 500),
        ([{"type": "websocket.send", "text": "early"}], 500),
        ([{"type": "websocket.http.response.start", "status": 200}], 500),
        ([], 500),
    ],
)
def test_an_app_that_refuses_badly_is_a_server_error(run: Run, messages: list[Message], status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send({"type": "websocket.http.response.body", **message})

    async def main() -> None:
        async with guarding(app, [(b"date", b"now"), (b"server", b"mine")]) as guard:
            got, headers, body = await answered(guard, HANDSHAKE)
            assert (got, dict(headers)[b"content-length"]) == (status, b"%d" % len(body))
            assert headers[:2] == [(b"date", b"now"), (b"server", b"mine")]

    run(main)


def test_refusing_logs_no_error(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body"})
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.http.response.body"})

    async def main() -> None:
        async with guarding(app) as guard:
            assert (await answered(guard, HANDSHAKE))[0] == 401

    run(main)
    assert [record.levelname for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


def test_an_app_notices_that_its_client_left_before_it_refused(run: Run) -> None:
    left: list[Message | Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        left.append(await receive())
        try:
            await send({"type": "websocket.close"})
        except OSError as exc:
            left.append(exc)

    async def main() -> None:
        async with guarding(app) as guard:
            async with client_of(guard, shake_hands=False) as client:
                client.writer.write(HANDSHAKE)
                await guard.connection()
            await until(lambda: len(left) == 2)

    run(main)
    assert left[0] == {"type": "websocket.disconnect", "code": 1006}


def test_random_messages_come_back_as_they_were(run: Run) -> None:
    async def echo(receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    async def main() -> None:
        async with guarding(Shop(echo)) as guard:
            async with connect(f"ws://127.0.0.1:{guard.port}/", proxy=None, max_size=None) as websocket:
                messages = [os.urandom(size) for size in (0, 1, 125, 126, 65535, 65536, 300_000, 2 * 2**20)] * 2
                for message in messages:
                    await websocket.send(message)
                assert [await websocket.recv() for _ in messages] == messages
                with contextlib.suppress(ConnectionClosed):
                    await websocket.send(bytes(17 * 2**20))
                await websocket.wait_closed()
            assert websocket.close_code == 1009
            for task in list(guard.tasks):
                task.cancel()

    run(main)


def test_uvicorn_still_has_what_the_protocol_relies_on(run: Run) -> None:
    async def main() -> None:
        config = uvicorn.Config(Shop(), log_config=None)
        made = WebSocketsSansIOProtocol(config, ServerState(), {})
        names = "app_state close_sent conn default_headers disconnected frames handshake_complete handshake_initiated"
        names += " logger loop queue read_paused transport writable"
        assert [name for name in names.split() if not hasattr(made, name)] == []
        assert hasattr(made.conn, "available_extensions")
        # Replaced by ours only where uvicorn chooses this one.
        assert config.ws_protocol_class is WebSocketsSansIOProtocol

    run(main)
