"""Upstreams on real sockets that do what a script says, down to the last byte and reset."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import uvloop
from threaded import Client, MakeClient, ThreadedClient

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.interfaces import UpstreamResponse
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import BodyFraming
from canary_mw.rules.upstream import Origin

# Key and certificate of "localhost" and 127.0.0.1, signed by itself; for tests only.
CERTIFICATE = Path(__file__).with_name("upstream.pem")


OK = b"HTTP/1.1 200 OK\r\n"
Main = Callable[[], Coroutine[Any, Any, None]]
T = TypeVar("T")


class Seen(NamedTuple):
    """A request as it came over the wire: start line, header lines and body, chunk framing removed."""

    line: bytes
    headers: list[bytes]
    body: bytes


class Peer:
    """One accepted connection, as a script sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def head(self) -> Seen:
        """The next head alone."""
        lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        return Seen(lines[0], lines[1:], b"")

    async def request(self) -> Seen:
        """The next request with all of its body."""
        return await self.rest_of(await self.head())

    async def rest_of(self, head: Seen) -> Seen:
        """The request that begins with this head, with all of its body."""
        if b"transfer-encoding: chunked" in head.headers:
            return head._replace(body=await self._chunks())
        length = next((int(line[16:]) for line in head.headers if line.startswith(b"content-length: ")), 0)
        return head._replace(body=await self.reader.readexactly(length))

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    async def send(self, *segments: bytes) -> None:
        """Write, each segment on its own."""
        for segment in segments:
            self.writer.write(segment)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def answer(self, body: bytes = b"ok", *headers: bytes, status: bytes = b"200 OK") -> None:
        """A plain answer with Content-Length in one segment."""
        lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers, b"", body]
        await self.send(b"\r\n".join(lines))

    async def read_some(self) -> bytes:
        """Whatever comes next, b"" at the end of the other side."""
        return await self.reader.read(65536)

    async def gone(self) -> bytes:
        """What else comes until the other side closes or resets."""
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.read_some():
                rest += data
        return rest

    def finish(self) -> None:
        """End our side (FIN)."""
        self.writer.close()

    def reset(self) -> None:
        """Cut the connection (RST)."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[object]]


class Upstream:
    """A running server: where it is, and how many connections it has accepted."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.accepted = 0
        self.origin = Origin("http", "127.0.0.1", 0)
        self.scripts: set[asyncio.Task[Any]] = set()
        self.failures: list[BaseException] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.scripts.add(task)
        self.accepted += 1
        try:
            await self.script(Peer(reader, writer, self.accepted))
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left, or the test is over
        except Exception as exc:  # noqa: BLE001 - raised again where the test sees it
            self.failures.append(exc)
        finally:
            self.scripts.discard(task)
            writer.close()


@contextlib.asynccontextmanager
async def serving(script: Script, *, tls: bool | ssl.SSLContext = False) -> AsyncIterator[Upstream]:
    """Serve `script`, called once per connection; at the end its failures are raised.

    Args:
        tls: as "https", with a context of its own or the certificate of `CERTIFICATE`.
    """
    upstream = Upstream(script)
    context = tls if isinstance(tls, ssl.SSLContext) else None
    if tls is True:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
    server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    upstream.origin = Origin("https" if tls else "http", "127.0.0.1", port)
    try:
        yield upstream
    finally:
        server.close()
        for task in upstream.scripts:
            task.cancel()
        await asyncio.gather(*upstream.scripts, return_exceptions=True)
        await server.wait_closed()
    if upstream.failures:
        raise upstream.failures[0]


def answering(*segments: bytes) -> Script:
    """Every request gets the same bytes, then the connection stays open."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*segments)

    return script


async def forever(peer: Peer) -> None:
    """Every request gets the number of its connection."""
    while True:
        await peer.request()
        await peer.answer(b"%d" % peer.number)


async def silent(peer: Peer) -> None:
    """A request gets no answer."""
    await peer.request()
    await peer.gone()


def req(
    method: str = "GET", target: bytes = b"/", *, body: BodyFraming | None = None, **options: Any
) -> UpstreamRequest:
    """A request to send, with a deadline far away."""
    options.setdefault("timeout", 30.0)
    return UpstreamRequest("shop", method, target, [(b"host", b"shop")], body, **options)


async def whole(response: UpstreamResponse) -> bytes:
    """The body of an answer, which is then closed."""
    chunks = []
    while chunk := await response.read():
        chunks.append(chunk)
    response.close()
    return b"".join(chunks)


async def get(client: Client, upstream: Upstream, request: UpstreamRequest | None = None) -> bytes:
    """The body of the answer to one request."""
    return await whole(await client.send(upstream.origin, request or req()))


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    """A request body in these chunks."""
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def until(condition: Callable[[], T]) -> T:
    """Let the loop turn until something is true, for states that nobody announces."""
    while not (value := condition()):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return value


async def _guarded(main: Main) -> None:
    await main()
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task outlived its test"


class Run(NamedTuple):
    """Runs a test on one kind of loop, with one kind of client."""

    loop: Callable[[], asyncio.AbstractEventLoop]
    client: MakeClient = HTTP11Client

    def __call__(self, main: Main) -> None:
        with asyncio.Runner(loop_factory=self.loop) as runner:
            runner.run(_guarded(main))


_LOOPS = {"asyncio": Run(asyncio.new_event_loop), "uvloop": Run(uvloop.new_event_loop)}
_CLIENTS = {**_LOOPS, "blocking": Run(asyncio.new_event_loop, ThreadedClient)}
# As marks: a test gets `run`, which runs a coroutine function, once per kind of loop, or once more for `run.client` to
# be the blocking one.
ON_BOTH_LOOPS = pytest.mark.parametrize("run", _LOOPS.values(), ids=_LOOPS)
WITH_EVERY_CLIENT = pytest.mark.parametrize("run", _CLIENTS.values(), ids=_CLIENTS)
