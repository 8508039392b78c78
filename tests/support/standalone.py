"""The standalone proxy on a real port, with its protocol, in the loop of a test; and a client that writes bytes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import h11
import uvicorn
from servers import Answer, mapping, run
from upstream import Peer, Upstream, serving, until
from uvicorn.server import ServerState

from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.observers import Observer
from canary_mw.server.app import Proxy
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.server.settings import Settings
from canary_mw.types import Receive, Scope, Send

RULES = mapping("stable", "/shop/", "shop")
GET = b"GET /shop/ HTTP/1.1\r\nhost: shop.example\r\n\r\n"
LAST = b"GET /shop/last HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n"
# Larger than any segment of a response.
LARGE = bytes(range(256)) * 4096
HANDLERS = ["fast_path", "asgi"]


class Records(Observer):
    """Keeps the records that it gets."""

    def __init__(self) -> None:
        self.kept: list[Decided | Finished] = []

    def decided(self, record: Decided) -> None:
        self.kept.append(record)

    def finished(self, record: Finished) -> None:
        self.kept.append(record)

    def dicts(self) -> list[dict[str, Any]]:
        """The records without what differs between two requests: durations, and the id."""
        differing = ("seconds", "first_byte", "request_id")
        return [{key: value for key, value in each._asdict().items() if key not in differing} for each in self.kept]


class Noting(Proxy):
    """Notes what reaches it as an ASGI app: "whole" requests, "decided" ones, and such with a "begun" answer.

    Args:
        rules: a file.
        port: of the upstream of all services.
        handler: "asgi" disables the fast path.
        records: an observer.
        named: ports of services that have another upstream.
    """

    def __init__(
        self,
        rules: Path,
        port: int,
        *,
        handler: str = "fast_path",
        records: Observer | None = None,
        named: dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        ports = {**(named or {}), "*": port}
        upstream = tuple(f"{name}=http://127.0.0.1:{number}" for name, number in ports.items())
        # As `canary-mw serve` reads it, so that all tests can be run without the fast path.
        fast_path = os.environ.get("CANARY_MW_FAST_PATH") != "0"
        super().__init__(Settings(rules=(str(rules),), upstream=upstream, **{"fast_path": fast_path, **options}))
        self.came: list[str] = []
        if handler == "asgi":
            self.fast_path = None
        if records is not None:
            self._middleware.decided_observers.append(records)
            self._middleware.finished_observers.append(records)
            self._middleware._settle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            begun = scope.get("canary_mw.started_request")
            self.came.append("whole" if begun is None else "decided" if begun.pending is None else "begun")
        await super().__call__(scope, receive, send)

    async def begin(self) -> None:
        """What the start of a lifespan does."""
        await self._start()

    async def end(self) -> None:
        """What the end of a lifespan does."""
        await self._stop()


@contextlib.asynccontextmanager
async def listening(app: Noting, *, begin: bool = True, **options: Any) -> AsyncIterator[tuple[int, ServerState]]:
    """Serve an app as `canary-mw serve` does, on a port that is yielded with the state of the server.

    Args:
        begin: as the start of a lifespan does.
        options: of uvicorn.
    """
    options = {"access_log": False, "proxy_headers": False, "date_header": False, "server_header": False, **options}
    config = uvicorn.Config(app, lifespan="off", log_config=None, **options)
    config.load()
    state = ServerState()
    state.default_headers.extend(config.encoded_headers)
    if begin:
        await app.begin()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: GuardedProtocol(config, state, {}), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], state
    finally:
        server.close()
        for connection in tuple(state.connections):
            connection.shutdown()
        await until(lambda: not state.connections and not state.tasks)
        await app.end()
        await server.wait_closed()


class Wire:
    """A connection to a server; requests go out byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._rest = b""

    async def ask(self, request: bytes) -> None:
        """Send a request."""
        self.writer.write(request)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, to a request with this method, or what came of it."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "shop")]))
        parser.send(h11.EndOfMessage())
        if self._rest:
            parser.receive_data(self._rest)
        head, body = None, b""
        while not isinstance(event := await self._event(parser), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        self._rest = parser.trailing_data[0]
        assert head is not None, "the connection ended without an answer"
        return Answer(head.status_code, list(head.headers), body, isinstance(event, h11.EndOfMessage))

    async def _event(self, parser: h11.Connection) -> Any:
        try:
            while (event := parser.next_event()) is h11.NEED_DATA:
                parser.receive_data(await self.reader.read(65536))
        except (h11.RemoteProtocolError, ConnectionError):
            return None
        return event

    async def get(self, target: bytes = b"/shop/", *lines: bytes, method: bytes = b"GET") -> Answer:
        """Send a request without a body and wait for its answer."""
        await self.ask(b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), b"host: shop.example", *lines, b"", b"")))
        return await self.answer(method.decode())

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """A connection to a port of 127.0.0.1."""
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield wire
    finally:
        await wire.close()


Talk = Callable[[Wire, Noting, Upstream], Awaitable[None]]


def talk(rules: Path, script: Callable[[Peer], Awaitable[object]], steps: Talk, **options: Any) -> None:
    """Run steps over one connection to a proxy in front of an upstream."""

    async def main() -> None:
        async with serving(script) as upstream:
            app = Noting(rules, upstream.origin.port, **options)
            async with listening(app) as (port, _), wire_to(port) as client:
                await steps(client, app, upstream)

    run(main())
