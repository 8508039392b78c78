"""A client that sends at a steady rate, whatever the server does, and notes the fate of every request.

Time counts from when a request was due: one that had to wait for the server to wake up has waited.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_PATIENCE = 10.0


@dataclass(frozen=True)
class Seen:
    """One request.

    Attributes:
        request: as it was sent.
        due: when it should be sent, on the clock of `monotonic`.
        done: when the whole answer, or its failure, was there.
        status: 0 where the connection broke.
    """

    request: bytes
    due: float
    done: float
    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._data = b""

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """To a port of this machine."""
        _, protocol = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        length = _LENGTH.search(self._data, 0, end + 2)
        if end < 0 or self._answer is None or self._answer.done():
            return
        body = self._data[end + 4 :]
        if length is None or len(body) >= int(length[1]):
            self._answer.set_result((int(self._data[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((0, b""))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 when the connection breaks, or no answer comes for 10 seconds."""
        if self.closed or self._transport is None:
            return 0, b""
        self._data = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._answer, _PATIENCE)
        except TimeoutError:
            self.close()
            return 0, b""

    def close(self) -> None:
        """At once."""
        if self._transport is not None:
            self._transport.abort()


class Traffic:
    """Requests at a steady rate, until the block is left; idle connections are used again, others opened as needed.

    Attributes:
        seen: in the order in which they ended.
    """

    def __init__(self, port: int, rate: float, requests: Iterator[bytes]) -> None:
        self.seen: list[Seen] = []
        self._port = port
        self._rate = rate
        self._requests = requests
        self._idle: list[Connection] = []
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Traffic":
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sender.cancel()
        await asyncio.gather(self._sender, *self._running, return_exceptions=True)
        for connection in self._idle:
            connection.close()

    async def _send(self) -> None:
        due = monotonic()
        while True:
            due += 1 / self._rate
            await asyncio.sleep(max(0.0, due - monotonic()))
            task = asyncio.create_task(self._ask(due, next(self._requests)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _ask(self, due: float, request: bytes) -> None:
        status, body = 0, b""
        connection = None
        while self._idle and (connection is None or connection.closed):
            connection = self._idle.pop()
        try:
            if connection is None or connection.closed:
                connection = await Connection.open(self._port)
            status, body = await connection.ask(request)
        except OSError:
            pass
        if connection is not None and not connection.closed:
            self._idle.append(connection)
        self.seen.append(Seen(request, due, monotonic(), status, body))

    async def until(self, condition: Callable[[Seen], bool], seconds: float) -> Seen | None:
        """The first answer from now on that meets a condition; None when there is none in time."""
        position, end = len(self.seen), monotonic() + seconds
        while monotonic() < end:
            for seen in self.seen[position:]:
                if condition(seen):
                    return seen
            position = len(self.seen)
            await asyncio.sleep(0.001)
        return None


def get(path: str) -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
