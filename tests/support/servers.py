"""ASGI apps and whole proxies on real ports, and a client that distinguishes complete responses from truncated ones."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import h11
import uvicorn
from upstream import until

from canary_mw.types import ASGIApp, Receive, Scope, Send

T = TypeVar("T")
Pairs = Iterable[tuple[str, str]]
HTTPS = ("httptools", "h11")


class Server(uvicorn.Server):
    """A server that shares the loop with its test, and leaves the signals to it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


@contextlib.asynccontextmanager
async def serving_app(
    app: ASGIApp, *, http: Any = "httptools", lifespan: Any = "auto", **options: Any
) -> AsyncIterator[int]:
    """Serve an app on a free port of 127.0.0.1, which is yielded; its lifespan is over at the end."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.pop("port", 0)))
    options |= {"http": http, "lifespan": lifespan, "log_config": None, "proxy_headers": False}
    config = uvicorn.Config(app, **{"date_header": False, **options})
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done() or None)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that says what it is."""
    assert scope["type"] == "http"
    await respond(send, b"from the app")


async def respond(send: Send, body: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a whole answer."""
    sized = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body})


class Answer(NamedTuple):
    """An answer as a client gets it; `whole` is False when it was cut off in the body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool

    def header(self, name: str) -> str | None:
        """First value of a header."""
        return next((value.decode() for key, value in self.headers if key == name.encode()), None)


class Client:
    """One connection to a server under test; requests go out as they are written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser = h11.Connection(h11.CLIENT)

    async def ask(self, method: str, target: str, headers: Pairs = (), body: bytes = b"") -> None:
        """Send a request; a body gets its Content-Length."""
        default = [] if any(name == "host" for name, _ in headers) else [("host", "shop.example")]
        pairs = [*default, *headers]
        if body:
            pairs.append(("content-length", str(len(body))))
        await self.put(self._parser.send(h11.Request(method=method, target=target, headers=pairs)) or b"")
        if body:
            await self.put(self._parser.send(h11.Data(data=body)) or b"")
        if not any(name in ("content-length", "transfer-encoding") for name, _ in headers):
            await self.put(self._parser.send(h11.EndOfMessage()) or b"")

    async def put(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def event(self) -> Any:
        """The next thing of the answer: Response, Data, EndOfMessage, or None when it was cut off."""
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError:
                return None
            if event is not h11.NEED_DATA:
                return event
            try:
                self._parser.receive_data(await self.reader.read(65536))
            except ConnectionError:
                return None

    async def head(self) -> h11.Response:
        """The head of the answer, informational ones skipped."""
        while not isinstance(event := await self.event(), h11.Response):
            assert isinstance(event, h11.InformationalResponse), f"no answer but {event!r}"
        return event

    async def data(self) -> bytes:
        """The next chunk of the body, b"" at its clean end."""
        event = await self.event()
        assert event is not None, "the answer was cut off"
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def answer(self) -> Answer:
        """The whole answer, or what came of it."""
        head = await self.head()
        body = b""
        while isinstance(event := await self.event(), h11.Data):
            body += event.data
        return Answer(head.status_code, list(head.headers), body, isinstance(event, h11.EndOfMessage))

    async def get(self, method: str, target: str, headers: Pairs = (), body: bytes = b"") -> Answer:
        """Ask and wait for the answer; the connection may be asked again."""
        if self._parser.our_state is h11.DONE:
            self._parser.start_next_cycle()
        await self.ask(method, target, headers, body)
        return await self.answer()

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def client_of(port: int) -> AsyncIterator[Client]:
    """A connection to a port of 127.0.0.1."""
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        await client.close()


async def fetch(port: int, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes = b"") -> Answer:
    """One request on a connection of its own."""
    async with client_of(port) as client:
        return await client.get(method, target, headers, body)


async def fetch_admin(
    port: int, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes = b""
) -> Answer:
    """One request to an admin port, by a name that it takes."""
    return await fetch(port, target, method, [("host", f"localhost:{port}"), *headers], body)


def run(main: Coroutine[Any, Any, T], seconds: float = 40) -> T:
    """Run a test, which must leave no task behind and end in time."""

    async def guarded() -> T:
        async with asyncio.timeout(seconds):
            result = await main
        await until(lambda: len(asyncio.all_tasks()) == 1)
        return result

    return asyncio.run(guarded())


def mapping(name: str, prefix: str, service: str, **more: Any) -> str:
    """A Mapping as YAML; further attributes as keywords."""
    lines = [f"  {key}: {value}" for key, value in {"prefix": prefix, "service": service, **more}.items()]
    head = f"---\napiVersion: getambassador.io/v2\nkind: Mapping\nmetadata: {{name: {name}}}\nspec:\n"
    return head + "\n".join(lines) + "\n"


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Process:
    """A module of Python, `canary_mw` if no other is named, in a process of its own, with its output in a file."""

    _terminated = False

    def __init__(self, arguments: Iterable[str], log: Path, environ: dict[str, str], module: str = "canary_mw") -> None:
        self.log = log
        self._file = log.open("wb")
        self.child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
        )

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for_port(self, port: int, timeout: float = 30.0) -> None:
        """Until it listens there."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            assert self.child.poll() is None, f"it ended with {self.child.returncode}:\n{self.output}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.02)
        raise AssertionError(f"nobody listens on {port}:\n{self.output}")

    def terminate(self) -> None:
        """As an orchestrator does, once: a second signal could reach a process that no longer handles it."""
        if not self._terminated and self.child.poll() is None:
            self.child.terminate()
        self._terminated = True

    def stop(self) -> int:
        """Terminate it, and wait for its end; returns the exit code."""
        self.terminate()
        try:
            return self.child.wait(20)
        finally:
            self.child.kill()
            self._file.close()


@contextlib.contextmanager
def process(
    *arguments: str, log: Path, wait_for: Iterable[int] = (), module: str = "canary_mw", **environ: str
) -> Iterator[Process]:
    """Run `canary-mw`, or another module of Python, until the block ends; a block that fails shows its output."""
    running = Process(arguments, log, environ, module)
    try:
        for port in wait_for:
            running.wait_for_port(port)
        yield running
    except BaseException:
        print(running.output)
        raise
    finally:
        running.stop()
