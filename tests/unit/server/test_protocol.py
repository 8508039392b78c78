"""uvicorn with GuardedProtocol on real sockets: refused requests, deadlines, and the framing of responses."""

import asyncio
import contextlib
import inspect
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
import uvicorn
from servers import run
from upstream import CERTIFICATE, until
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.http.framing import MAX_FIELDS, MAX_HEAD
from canary_mw.http.response_writer import ERROR_RESPONSES
from canary_mw.server import deadlines, protocol, timers
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

ClientExchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: shop\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


class RecordingApp:
    """An app that records the scopes and bodies of its requests, and answers each with its path."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.bodies.append(await body_of(receive))
        await answer(send, scope["path"].encode())


async def body_of(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request", "the client left"
        body += message["body"]
        more = message["more_body"]
    return body


async def answer(send: Send, body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    sized = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body})


def ok(body: bytes, *, last: bool = False) -> bytes:
    close = b"connection: close\r\n" if last else b""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), close, body)


@contextlib.asynccontextmanager
async def guarding(app: ASGIApp, defaults: Sequence[tuple[bytes, bytes]] = (), **options: Any) -> AsyncIterator[int]:
    """Serve an app with the protocol on a free port, which is yielded, as uvicorn's server would.

    Args:
        defaults: headers of every answer.
        options: of uvicorn.
    """
    config = uvicorn.Config(app, lifespan="off", log_config=None, **({"access_log": False} | options))
    config.load()
    state = ServerState()
    state.default_headers.extend(defaults)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: GuardedProtocol(config, state, {}), "127.0.0.1", 0, ssl=config.ssl)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in tuple(state.connections):
            connection.shutdown()
        await until(lambda: not state.connections and not state.tasks)
        await server.wait_closed()


def talk(app: ASGIApp, exchange: ClientExchange) -> None:
    """Open a connection to an app behind the protocol and run the exchange; then close."""

    async def main() -> None:
        async with guarding(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await exchange(reader, writer)
            finally:
                writer.close()

    run(main())


def sent(app: ASGIApp, *segments: bytes) -> bytes:
    """All bytes that the server sends for these until it closes the connection."""
    got = b""

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        for segment in segments:
            writer.write(segment)
            await writer.drain()
            await asyncio.sleep(0.001)
        got = await reader.read()

    talk(app, exchange)
    return got


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the seconds of a deadline to hundredths."""
    monkeypatch.setattr(timers, "TICK", 0.01)


def test_requests_reach_the_app_as_they_came() -> None:
    app = RecordingApp()
    head = (
        POST.replace(b"/ HTTP", b"/a%2fb%20c?x=%20y HTTP") + b"X-Blank: a b \t\r\nX-Empty:\r\nContent-Length: 2\r\n\r\n"
    )
    assert sent(app, head + b"hi" + LAST) == ok(b"/a/b c") + ok(b"/last", last=True)
    (first, last) = app.scopes
    assert (first["raw_path"], first["query_string"]) == (b"/a%2fb%20c", b"x=%20y")
    assert (first["method"], first["http_version"], last["method"]) == ("POST", "1.1", "GET")
    wanted = [(b"host", b"shop"), (b"x-blank", b"a b"), (b"x-empty", b""), (b"content-length", b"2")]
    assert first["headers"] == wanted
    assert app.bodies == [b"hi", b""]


def test_a_request_that_comes_byte_by_byte_is_the_same_request() -> None:
    app = RecordingApp()
    assert sent(app, *(bytes([byte]) for byte in LAST)) == ok(b"/last", last=True)


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://else/a?b", "/a", b"else"),
        (b"HTTP://Else:81", "/", b"Else:81"),
        (b"https://else?b", "/", b"else"),
        (b"//else/", "//else/", b"shop"),
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_the_authority_of_an_absolute_target_takes_the_place_of_host(
    target: bytes, path: str, host: bytes, version: bytes
) -> None:
    app = RecordingApp()
    sent(app, LAST.replace(b"/last", target).replace(b"1.1", version))
    (scope,) = app.scopes
    assert (scope["path"], scope["raw_path"]) == (path, path.encode())
    assert [value for name, value in scope["headers"] if name == b"host"] == [host]


def test_an_absolute_target_is_the_host_of_an_old_client_that_sends_none() -> None:
    app = RecordingApp()
    sent(app, b"GET http://else/a HTTP/1.0\r\n\r\n")
    assert app.scopes[0]["headers"] == [(b"host", b"else")]


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://else/a HTTP/1.1\r\n\r\n",
        b"GET http://else/a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET http://else/a HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET http://me@else/a HTTP/1.1\r\nHost: else\r\n\r\n",
        b"GET http:///a HTTP/1.1\r\nHost: else\r\n\r\n",
        b"GET http://else:99999/a HTTP/1.1\r\nHost: else\r\n\r\n",
        b"GET else:80 HTTP/1.1\r\nHost: else\r\n\r\n",
        b"CONNECT else:80 HTTP/1.1\r\nHost: else:80\r\n\r\n",
    ],
)
def test_an_absolute_target_repairs_no_host_and_has_a_valid_one(head: bytes) -> None:
    app = RecordingApp()
    assert sent(app, head).startswith(b"HTTP/1.1 400 ")
    assert app.scopes == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5, 5\r\n\r\nabcde",
        CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b<\r\n\r\n",
        b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_what_is_refused_reaches_no_app_and_ends_the_connection(request_bytes: bytes) -> None:
    app = RecordingApp()
    assert sent(app, request_bytes + GET, GET) == ERROR_RESPONSES[400]
    assert app.scopes == []


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    app = RecordingApp()
    assert sent(app, GET + GET + b"GET / HTTP/1.1\r\n\r\n" + GET) == ok(b"/") * 2 + ERROR_RESPONSES[400]
    assert len(app.scopes) == 2


def test_a_client_that_goes_on_sending_still_gets_its_refusal() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET.replace(b"Host", b"X-Big: " + b"a" * 3_000_000 + b"\r\nHost"))
        assert await reader.read() == ERROR_RESPONSES[431]

    talk(RecordingApp(), exchange)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (MAX_HEAD + 1),
        b"GET /" + b"a" * (MAX_HEAD + 1),
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * (MAX_HEAD // 6 + 10),
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * MAX_FIELDS + b"\r\n",
        CHUNKED + b"0\r\n" + b"X: a\r\n" * (MAX_HEAD // 6 + 2000),
        CHUNKED + b"5;a=" + b"b" * (MAX_HEAD + 12000),
    ],
    ids=["value", "target", "endless", "fields", "trailers", "chunk extension"],
)
def test_a_head_is_measured_while_it_comes(head: bytes) -> None:
    app = RecordingApp()
    # In segments, as from a network.
    assert sent(app, *(head[i : i + 8192] for i in range(0, len(head), 8192))) == ERROR_RESPONSES[431]
    assert app.bodies == []


def test_large_bodies_are_not_taken_for_heads() -> None:
    app = RecordingApp()
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    body = chunk * 20 + b"0\r\n\r\n"
    assert sent(app, CHUNKED + body + LAST) == ok(b"/") + ok(b"/last", last=True)
    assert app.bodies == [b"x" * 65536 * 20, b""]


def test_trailers_do_not_become_headers() -> None:
    app = RecordingApp()
    body = b"2\r\nhi\r\n0\r\nGray: true\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
    assert sent(app, CHUNKED + body + LAST) == ok(b"/") + ok(b"/last", last=True)
    assert [name for name, _ in app.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]
    assert app.bodies == [b"hi", b""]


def test_a_broken_chunk_is_reported_to_the_client_and_to_the_app() -> None:
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            received.append(message["type"])
            if message["type"] == "http.disconnect":
                break
        await answer(send, b"never seen")

    assert sent(app, CHUNKED + b"2\r\nhi\r\n", b"0x5\r\nabcde\r\n0\r\n\r\n") == ERROR_RESPONSES[400]
    assert received == ["http.request", "http.disconnect"]


def test_a_broken_chunk_cuts_an_answer_that_has_begun() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        got = await reader.readuntil(b"abc")
        writer.write(b"zz\r\n")
        assert (got + await reader.read()).endswith(b"\r\n\r\nabc")

    talk(app, exchange)


def test_a_broken_request_that_waits_is_not_started() -> None:
    go_on = asyncio.Event()
    paths: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await go_on.wait()
        await answer(send, b"ok")

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET + CHUNKED.replace(b"/ HTTP", b"/broken HTTP") + b"zz\r\n")
        await until(lambda: paths)
        go_on.set()
        assert await reader.read() == ok(b"ok") + ERROR_RESPONSES[400]
        assert paths == ["/"]

    talk(app, exchange)


def test_nothing_behind_connection_close_is_executed() -> None:
    app = RecordingApp()
    assert sent(app, LAST + GET, GET) == ok(b"/last", last=True)
    # The parser keeps this connection open; the protocol does not.
    old = LAST.replace(b"1.1", b"1.0").replace(b"close", b"keep-alive")
    assert sent(app, old + GET, GET) == ok(b"/last", last=True)
    assert [scope["path"] for scope in app.scopes] == ["/last", "/last"]


def test_too_many_requests_at_once_are_refused() -> None:
    app = RecordingApp()
    many = protocol.MAX_PIPELINED + 1
    got = sent(app, GET * (many + 10))
    assert got == ok(b"/") * many + ERROR_RESPONSES[400]
    assert len(app.scopes) == many


def test_an_upgrade_that_is_not_ours_is_an_ordinary_request() -> None:
    app = RecordingApp()
    upgrade = GET.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")
    assert sent(app, upgrade + LAST) == ok(b"/") + ok(b"/last", last=True)
    assert sent(app, upgrade, LAST) == ok(b"/") + ok(b"/last", last=True)


@pytest.mark.parametrize("framing", [b"Content-Length: %d" % len(LAST), b"Transfer-Encoding: chunked"])
def test_a_request_for_a_websocket_with_a_body_is_refused(framing: bytes) -> None:
    app = RecordingApp()
    upgrade = POST + b"Upgrade: websocket\r\nConnection: upgrade\r\n%b\r\n\r\n" % framing
    assert sent(app, upgrade + LAST) == ERROR_RESPONSES[400]
    assert sent(app, upgrade, LAST) == ERROR_RESPONSES[400]
    assert app.scopes == []


@pytest.mark.parametrize("segments", [1, 2, 50])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: %d" % len(LAST), LAST),
        (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\nx-trailer: 1\r\n\r\n" % (len(LAST), LAST)),
    ],
)
def test_the_body_of_a_request_for_another_upgrade_is_a_body(framing: bytes, body: bytes, segments: int) -> None:
    app = RecordingApp()
    head = POST + b"Upgrade: h2c\r\nConnection: upgrade\r\n%b\r\n\r\n" % framing
    wire = head + body
    size = -(-len(wire) // segments)
    parts = [wire[at : at + size] for at in range(0, len(wire), size)]
    # The request after it is not answered: the response closes the connection.
    parts[-1] += GET
    assert sent(app, *parts) == ok(b"/", last=True)
    assert app.bodies == [LAST]


WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_websockets_pass_the_checks_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
            return
        await answer(send, b"http")

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WEBSOCKET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 101")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
        # Masked with zeros.
        writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
        assert await reader.read() == b""

    talk(app, exchange)
    assert sent(app, WEBSOCKET.replace(b"Host: shop", b"Host: a b")) == ERROR_RESPONSES[400]
    assert sent(app, GET + WEBSOCKET) == ok(b"http") + ERROR_RESPONSES[400]


@pytest.mark.parametrize(
    ("head", "refusal"),
    [(b"", b""), (GET[:20], ERROR_RESPONSES[408]), (CHUNKED + b"2\r\nhi\r\n", ERROR_RESPONSES[408]), (GET, ok(b"/"))],
    ids=["nothing", "head", "body", "idle"],
)
@pytest.mark.usefixtures("fast")
def test_a_client_that_stalls_is_let_go(head: bytes, refusal: bytes) -> None:
    assert sent(RecordingApp(), head) == refusal


@pytest.mark.usefixtures("fast")
def test_a_head_that_drips_is_no_better_than_one_that_stalls() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\n")
        got = asyncio.create_task(reader.read())
        while not got.done():
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.005)
        assert await got == ERROR_RESPONSES[408]

    talk(RecordingApp(), exchange)


@pytest.mark.usefixtures("fast")
def test_a_refused_client_that_goes_on_for_ever_is_cut_off() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == ERROR_RESPONSES[400]
        with contextlib.suppress(ConnectionError):
            while not writer.transport.is_closing():
                writer.write(b"x" * 1000)
                await writer.drain()
                await asyncio.sleep(0.002)

    talk(RecordingApp(), exchange)


@pytest.mark.usefixtures("fast")
def test_an_app_may_take_its_time() -> None:
    turns = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal turns
        ticks = timers.timer_of(asyncio.get_running_loop())
        started = ticks.now
        await until(lambda: ticks.now > started + 2 * deadlines.BODY_TIMEOUT)
        turns += 1
        await answer(send, await body_of(receive))

    # The app is slow to ask for the body, slow to read it, and slow to answer.
    wait = POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wait)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert await reader.readexactly(len(ok(b"hi"))) == ok(b"hi")
        writer.write(CHUNKED + b"2\r\nho\r\n")
        await until(lambda: turns == 2)
        writer.write(b"0\r\n\r\n")
        assert await reader.readexactly(len(ok(b"ho"))) == ok(b"ho")

    talk(app, exchange)


def test_an_early_answer_to_an_upload_is_received() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"too large", status=413)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST + b"Content-Length: 100000000\r\n\r\n" + b"x" * 3_000_000)
        got = await reader.read()
        assert got.startswith(b"HTTP/1.1 413 ")
        assert got.endswith(b"\r\nconnection: close\r\n\r\ntoo large")

    talk(app, exchange)


def test_an_answer_without_100_continue_ends_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no")

    # The client may send the body or not, so what comes next is ambiguous.
    head = POST + b"Content-Length: 60\r\nExpect: 100-continue\r\n\r\n"
    assert sent(app, head) == ok(b"no", last=True)


def test_http_1_0_gets_no_100_continue() -> None:
    app = RecordingApp()
    head = POST.replace(b"1.1", b"1.0") + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert sent(app, head + b"hi") == ok(b"/", last=True)


def streamed(*chunks: bytes, headers: list[tuple[bytes, bytes]] | None = None, status: int = 200) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers or []})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    return app


def test_a_body_without_length_is_chunked() -> None:
    got = sent(streamed(b"a", b"", b"bc"), LAST)
    assert got.endswith(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")


def test_http_1_0_gets_its_body_until_the_end_of_the_connection() -> None:
    got = sent(streamed(b"a", b"bc"), GET.replace(b"1.1", b"1.0"))
    assert got == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc"


def test_of_the_framing_of_an_app_only_its_length_is_used() -> None:
    mine = [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"2"), (b"connection", b"x-hop")]
    assert sent(streamed(b"hi", headers=mine), GET + LAST) == ok(b"hi") + ok(b"hi", last=True)


def test_an_app_may_end_the_connection() -> None:
    mine = [(b"content-length", b"2"), (b"connection", b"Close")]
    assert sent(streamed(b"hi", headers=mine), GET + GET) == ok(b"hi", last=True)


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [(b"HEAD", 200, b"5"), (b"HEAD", 200, None), (b"GET", 304, b"5"), (b"GET", 304, None), (b"GET", 204, b"5")],
)
def test_an_answer_without_body_stays_in_step(method: bytes, status: int, length: bytes | None) -> None:
    headers = [] if length is None else [(b"content-length", length)]
    got = sent(streamed(b"hello", headers=headers, status=status), GET.replace(b"GET", method) * 2 + LAST)
    heads = re.findall(rb"HTTP/1\.1 \d+ .+?\r\n\r\n", got, re.DOTALL)
    kept = length is not None and status != 204
    assert [head.count(b"content-length: 5\r\n") for head in heads[:2]] == [kept, kept]
    assert b"".join(heads[:2]) == got[: got.index(heads[2])]
    assert b"transfer-encoding" not in heads[0]


@pytest.mark.parametrize(
    "header",
    [
        (b"x-a", b"1\r\nx-b: 2"),
        (b"x-a", b"1\0"),
        (b"x-a", b"1\n"),
        (b"x-a\r\nx-b", b"1"),
        (b"x a", b"1"),
        (b"x:a", b"1"),
        (b"content-length", b"+2"),
        (b"content-length", b"3"),
    ],
)
def test_a_head_that_cannot_be_written_is_500_and_nothing_of_it_is_written(header: tuple[bytes, bytes]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"hi", header)

    got = sent(app, GET)
    assert got.startswith(b"HTTP/1.1 500 ")
    assert b"x-b" not in got
    assert got.endswith(b"\r\n\r\nInternal Server Error")


@pytest.mark.parametrize("status", [100, 101, 600, 999])
def test_a_status_that_ends_nothing_is_500(status: int) -> None:
    assert sent(streamed(status=status), GET).startswith(b"HTTP/1.1 500 ")


START = {"type": "http.response.start", "status": 200}
SIZED = {**START, "headers": [(b"content-length", b"2")]}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"type": "http.response.body", "body": b""}],
        [START, START],
        [SIZED],
        [SIZED, {"type": "http.response.body", "body": b"h"}],
        [SIZED, {"type": "http.response.body", "body": b"hello"}],
    ],
    ids=["nothing", "body first", "two starts", "head alone", "too short", "too long"],
)
def test_an_app_that_breaks_off_gives_no_whole_answer(messages: list[Message]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    head, _, body = sent(app, GET).partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 200"):
        assert body == b""
        assert b"content-length: 2" in head or b"chunked" in head
    else:
        assert head.startswith(b"HTTP/1.1 500")


def test_messages_after_the_last_are_an_error_of_the_app_alone() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"hi")
        with pytest.raises(RuntimeError, match="unexpected ASGI message"):
            await send({"type": "http.response.body"})

    assert sent(app, GET + LAST) == ok(b"hi") + ok(b"hi", last=True)


def test_a_cut_answer_to_http_1_0_is_reset() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await receive()

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET.replace(b"1.1", b"1.0"))
        with pytest.raises(ConnectionResetError):
            await reader.read()

    talk(app, exchange)


def test_the_head_of_a_stream_does_not_wait_for_its_first_event() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"hi"})

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LAST)
        await reader.readuntil(b"\r\n\r\n")
        go_on.set()
        assert await reader.read() == b"hi"

    talk(app, exchange)


def test_head_and_body_are_sent_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    original = GuardedProtocol.connection_made

    def connection_made(self: GuardedProtocol, transport: Any) -> None:
        write = transport.write

        def recording(data: bytes) -> None:
            writes.append(data)
            write(data)

        original(self, transport)
        monkeypatch.setattr(transport, "write", recording)

    monkeypatch.setattr(GuardedProtocol, "connection_made", connection_made)

    async def main() -> None:
        async with guarding(RecordingApp()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(LAST)
            await reader.read()
            writer.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(main())
    assert writes == [ok(b"/last", last=True)]


@pytest.mark.parametrize("leave", ["fin", "rst"])
def test_every_running_request_is_notified_that_its_client_left(leave: str) -> None:
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        received.append(scope["path"])
        received.append((await receive())["type"])
        await answer(send, b"for nobody")

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The second waits behind the first.
        writer.write(GET + LAST)
        await until(lambda: received)
        if leave == "rst":
            writer.transport.abort()
        else:
            writer.close()
        await until(lambda: received[1:])
        assert received == ["/", "http.disconnect"]

    talk(app, exchange)


def test_a_slow_reader_holds_the_app_back() -> None:
    wrote = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal wrote
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            wrote += 1
        await send({"type": "http.response.body"})

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LAST)
        before = -1
        while before != wrote:
            before = wrote
            await asyncio.sleep(0.05)
        assert wrote < 1000
        total = 0
        while chunk := await reader.read(1 << 20):
            total += len(chunk)
        assert total > 65_536_000

    talk(app, exchange)


def test_an_upstream_that_failed_within_an_answer_is_not_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"ha", "more_body": True})
        raise UpstreamProtocolError("gone", sent=True)

    assert sent(app, GET).endswith(b"ha")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_errors_of_an_app_are_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/last":
            raise asyncio.CancelledError
        raise LookupError("lost")

    assert sent(app, GET).startswith(b"HTTP/1.1 500 ")
    assert "LookupError: lost" in caplog.text
    caplog.clear()
    assert sent(app, LAST).startswith(b"HTTP/1.1 500 ")
    assert "Traceback" not in caplog.text


async def configured(app: ASGIApp, request: bytes, **options: Any) -> bytes:
    """The bytes that a server with these options of uvicorn sends."""
    context = ssl.create_default_context(cafile=str(CERTIFICATE)) if "ssl_certfile" in options else None
    async with guarding(app, **options) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


def test_date_and_server_are_not_doubled() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"hi", (b"server", b"mine"))

    got = run(configured(app, LAST, defaults=[(b"date", b"now"), (b"server", b"uvicorn")]))
    assert got.count(b"server: ") == 1
    assert b"server: mine\r\n" in got
    assert got.count(b"date: ") == 1


def test_the_access_log_and_the_limit_of_uvicorn_work(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "uvicorn.access")
    got = run(configured(RecordingApp(), LAST, limit_concurrency=1, access_log=True))
    assert got.startswith(b"HTTP/1.1 503 ")
    assert "GET /last HTTP/1.1" in caplog.text


def test_a_refusal_over_tls_ends_the_connection_too() -> None:
    tls = {"ssl_certfile": str(CERTIFICATE), "ssl_keyfile": str(CERTIFICATE)}
    assert run(configured(RecordingApp(), b"GET / HTTP/1.1\r\n\r\n", **tls)) == ERROR_RESPONSES[400]


def test_uvicorn_still_has_what_the_protocol_relies_on() -> None:
    assert tuple(inspect.signature(HttpToolsProtocol.__init__).parameters) == (
        *("self", "config", "server_state", "app_state", "_loop"),
    )
    overridden = ["connection_made", "connection_lost", "data_received", "on_message_begin", "on_header"]
    overridden += ["on_headers_complete", "on_body", "on_message_complete", "on_response_complete", "_start_asgi_task"]
    called = ["handle_websocket_upgrade", "_should_upgrade", "shutdown", "pause_writing", "resume_writing"]
    assert [name for name in overridden + called if not callable(getattr(HttpToolsProtocol, name, None))] == []
    assert [name for name in ("run_asgi", "send", "receive") if not hasattr(RequestResponseCycle, name)] == []
    config = uvicorn.Config(RecordingApp(), log_config=None)
    connection = HttpToolsProtocol(config, ServerState(), {}, asyncio.new_event_loop())
    try:
        attributes = "app loop logger access_logger access_log parser root_path limit_concurrency timeout_keep_alive"
        attributes += " server_state connections tasks transport flow client pipeline scope headers cycle"
        attributes += " expect_100_continue"
        assert [name for name in attributes.split() if not hasattr(connection, name)] == []
    finally:
        connection.loop.close()
