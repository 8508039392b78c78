"""Clients that end their sending side after a request: they are answered, and those that have left are let go."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import uvloop
from servers import respond, serving_app
from standalone import GET, HANDLERS, RULES, Noting, Records, listening
from upstream import Peer, serving, until

from canary_mw.server import deadlines, half_closed, timers
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.types import ASGIApp, Receive, Scope, Send

LAST = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
POST = b"POST /shop/ HTTP/1.1\r\nhost: shop.example\r\n"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def run_in(main: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(40):
                await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(limited())

    return run_in


@pytest.fixture(autouse=True)
def _probe_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_closed, "PROBE_DELAY", 0.01)
    monkeypatch.setattr(timers, "TICK", 0.05)


class Client:
    """A connection that can end one side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def end(self) -> None:
        """Send no more."""
        self.writer.write_eof()

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        return await self.reader.read()


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        client.writer.close()


class Protocol(GuardedProtocol):
    """Keeps the connections that are open."""

    open: ClassVar[set["Protocol"]]

    def connection_made(self, transport: Any) -> None:
        self.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.open.discard(self)


@asynccontextmanager
async def talking_to(app: ASGIApp) -> AsyncIterator[tuple[Client, type[Protocol]]]:
    """A client of an app, whose connection must be over for the server when it is for the client."""

    protocol = cast(type[Protocol], type("Protocol", (Protocol,), {"open": set()}))
    async with serving_app(app, http=protocol, lifespan="off", server_header=False) as port:
        async with client_of(port) as client:
            yield client, protocol
        await until(lambda: not protocol.open)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        assert message["type"] == "http.request", "the client left"
        size += len(message["body"])
        more = message["more_body"]
    await respond(send, b"%d" % size)


def ok(body: bytes, *, last: bool = False) -> bytes:
    close = b"connection: close\r\n" if last else b""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), close, body)


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("slow", [False, True], ids=["at once", "after probes"])
def test_a_client_that_ends_its_side_gets_the_answer_of_the_upstream(
    run: Any, tmp_path: Path, handler: str, slow: bool
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)

    async def main() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.answer(b"first")
            await peer.request()
            asked.set()
            await go_on.wait()
            await peer.answer(b"second")

        async with serving(script) as upstream:
            records = Records()
            app = Noting(rules, upstream.origin.port, handler=handler, records=records)
            async with listening(app) as (port, state), client_of(port) as client:
                client.send(GET)
                await client.reader.readuntil(b"first")
                client.send(GET)
                client.end()
                await asked.wait()
                begun = b""
                if slow:
                    # A beginning of the answer shows that the client is still there.
                    begun = await client.reader.readexactly(3)
                go_on.set()
                answer = begun + await client.rest()
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert answer.endswith(b"\r\n\r\nsecond")
                await until(lambda: not state.connections)
            assert [each["reason"] for each in records.dicts() if "reason" in each] == [None, None]

    run(main())


def test_pipelined_requests_are_all_answered_and_the_last_one_says_so(run: Any) -> None:
    async def main() -> None:
        async with talking_to(echo) as (client, _):
            client.send(GET * 3 + POST + b"content-length: 2\r\n\r\nhi")
            client.end()
            assert await client.rest() == ok(b"0") * 3 + ok(b"2", last=True)

    run(main())


def test_pipelined_requests_that_wait_for_the_app_are_answered_whole(run: Any) -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await go_on.wait()
            go_on.clear()
            await echo(scope, receive, send)

        async with talking_to(app) as (client, _):
            client.send(GET * 2)
            client.end()
            # It is not read that the client has ended, until the second request is the one that is answered.
            go_on.set()
            first = await client.reader.readexactly(len(ok(b"0")))
            begun = await client.reader.readexactly(2)
            go_on.set()
            assert (first, begun + await client.rest()) == (ok(b"0"), ok(b"0", last=True))

    run(main())


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_request_that_breaks_off_is_not_completed(run: Any, body: bytes) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            assert message["more_body"]
        seen.append(message["type"])

    async def main() -> None:
        async with talking_to(app) as (client, _):
            client.send(POST + b"content-length: 10\r\n\r\n" + body)
            client.end()
            assert await client.rest() == b""
            await until(lambda: seen)

    run(main())
    assert seen == ["http.disconnect"]


@pytest.mark.parametrize("partial", [b"GET /sh", POST + b"content-length: 10\r\n\r\nabc"], ids=["head", "body"])
def test_what_comes_whole_before_it_is_answered(run: Any, partial: bytes) -> None:
    paths: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["method"])
        await echo(scope, receive, send)

    async def main() -> None:
        async with talking_to(app) as (client, _):
            client.send(GET + GET + partial)
            client.end()
            answers = await client.rest()
            assert answers.count(b"HTTP/1.1 200 OK") == 2
            assert answers.endswith(b"\r\n\r\n0")

    run(main())
    assert paths.count("GET") == 2


def test_a_bad_request_behind_a_good_one_is_refused_after_it(run: Any) -> None:
    async def main() -> None:
        async with talking_to(echo) as (client, _):
            client.send(GET + b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n")
            client.end()
            answers = await client.rest()
            assert answers.startswith(ok(b"0") + b"HTTP/1.1 400 ")

    run(main())


@pytest.mark.parametrize("whole", [True, False])
def test_an_upload_that_the_app_reads_late_is_read_to_its_end(run: Any, whole: bool) -> None:
    size = 120_000
    go_on = asyncio.Event()
    ends: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        try:
            await echo(scope, receive, send)
        except AssertionError as exc:
            ends.append(str(exc))

    async def main() -> None:
        async with talking_to(app) as (client, protocol):
            client.send(POST + b"content-length: %d\r\n\r\n" % size + b"x" * 70_000)
            await until(lambda: protocol.open and next(iter(protocol.open)).flow.read_paused)
            client.send(b"x" * (size - 70_000 - (not whole)))
            client.end()
            if whole:
                begun = await client.reader.readexactly(2)
                go_on.set()
                assert begun + await client.rest() == ok(b"%d" % size, last=True)
            else:
                assert await client.rest() == b""
                go_on.set()
                await until(lambda: ends)

    run(main())
    assert len(ends) == (0 if whole else 1)


def stream_of(go_on: asyncio.Event, ends: list[str]) -> ASGIApp:
    """An app whose answer has begun, and goes on later unless the client has left."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(go_on.wait()), asyncio.ensure_future(receive())]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        ends.append("left" if waiting[1] in done else "there")
        waiting[0].cancel()
        waiting[1].cancel()
        await send({"type": "http.response.body", "body": b"def"})

    return app


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("ended", [False, True], ids=["closes", "ends its side first"])
def test_a_client_that_leaves_is_noticed_and_let_go(run: Any, begun: bool, ended: bool) -> None:
    ends: list[str] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        ends.append("left" if (await receive())["type"] == "http.disconnect" else "there")

    async def main() -> None:
        async with talking_to(stream_of(asyncio.Event(), ends) if begun else waits) as (client, protocol):
            client.send(GET)
            if begun:
                await client.reader.readuntil(b"abc")
            else:
                await until(lambda: protocol.open)
            if ended:
                client.end()
                if not begun:
                    await client.reader.readexactly(1)
            client.writer.close()
            await until(lambda: ends)

    run(main())
    assert ends == ["left"]


def test_an_answer_that_pauses_goes_on_for_a_client_that_takes_it(run: Any) -> None:
    ends: list[str] = []

    async def main() -> None:
        go_on, more = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await more.wait()
            await stream_of(go_on, ends)(scope, receive, send)

        async with talking_to(app) as (client, _):
            client.send(GET)
            client.end()
            begun = await client.reader.readexactly(1)
            more.set()
            begun += await client.reader.readuntil(b"abc")
            timer = timers.timer_of(asyncio.get_running_loop())
            since = timer.now
            await until(lambda: timer.now > since + 2 * deadlines.HALF_CLOSED_TIMEOUT)
            go_on.set()
            assert begun + await client.rest() == ok(b"abcdef", last=True)

    run(main())
    assert ends == ["there"]


def test_an_answer_that_has_begun_goes_on_for_a_client_that_takes_more_of_it(run: Any) -> None:
    async def main() -> None:
        more, last = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await more.wait()
            await send({"type": "http.response.body", "body": b"b", "more_body": True})
            await last.wait()
            await send({"type": "http.response.body", "body": b"c"})

        async with talking_to(app) as (client, protocol):
            client.send(GET)
            await client.reader.readuntil(b"\r\n\r\na")
            client.end()
            (connection,) = protocol.open
            await until(lambda: connection._half_closed)
            more.set()
            assert await client.reader.readexactly(1) == b"b"
            timer = timers.timer_of(asyncio.get_running_loop())
            since = timer.now
            await until(lambda: timer.now > since + 2 * deadlines.HALF_CLOSED_TIMEOUT)
            last.set()
            assert await client.rest() == b"c"

    run(main())


def test_bytes_that_are_taken_are_counted_where_the_system_tells() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        near, _ = server.accept()
        with near:
            before = half_closed.bytes_acked(near)
            near.sendall(b"abc")
            assert client.recv(3) == b"abc"
            if before is not None:
                while half_closed.bytes_acked(near) != before + 3:
                    pass
    pair = socket.socketpair()
    assert half_closed.bytes_acked(pair[0]) is None
    for each in pair:
        each.close()
