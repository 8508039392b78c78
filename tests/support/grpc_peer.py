"""A gRPC server of one's own on h2, which does what a test says, and a client of either kind to ask it.

A handler gets each connection in a thread of its own, and may send any bytes.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import NamedTuple, Protocol

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset

from canary_mw.client.aio.grpc import GrpcClient
from canary_mw.client.limits import Limits
from canary_mw.client.sync.grpc import SyncGrpcClient
from canary_mw.client.tls import TLSContexts
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import DEFAULT_OPTIONS, Origin, UpstreamOptions

METHOD = b"/test.Echo/Say"
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


def prefixed(message: bytes) -> bytes:
    """A message as it is sent."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def go_away(last_stream: int, code: int = 0, text: bytes = b"") -> bytes:
    """A frame by which a server says that it leaves."""
    return frame(7, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + text)


class Asked(NamedTuple):
    """A call that has arrived."""

    stream: int
    headers: dict[str, str]
    message: bytes


class Connection:
    """One connection of a client.

    Attributes:
        h2: its state at the server.
        reset: streams that the client has reset.
        number: 1 for the first connection of the server.
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.reset: list[int] = []
        self._headers: dict[int, dict[str, str]] = {}
        self._data: dict[int, bytes] = {}
        self._ready: list[Asked] = []
        self.closed = False

    def begin(self) -> None:
        """Send the settings."""
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what h2 has to send."""
        self.send(self.h2.data_to_send())

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def read(self) -> bool:
        """Read once; False at the end of the connection."""
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self._headers[event.stream_id] = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                self._data[event.stream_id] = self._data.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            elif isinstance(event, StreamEnded):
                stream = event.stream_id
                self._ready.append(Asked(stream, self._headers[stream], self._data.get(stream, b"")[5:]))
            elif isinstance(event, StreamReset):
                self.reset.append(event.stream_id)
        self.flush()
        return True

    def take(self) -> Asked | None:
        """The next call, whole; None at the end of the connection."""
        while not self._ready:
            if not self.read():
                return None
        return self._ready.pop(0)

    def messages(self) -> list[bytes]:
        """The whole messages that have arrived, of all calls."""
        found = []
        for data in self._data.values():
            while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[1:5], "big")):
                found.append(data[5:end])
                data = data[end:]
        return found

    def ended(self) -> list[Asked]:
        """The calls whose last message has arrived, once."""
        ended, self._ready = self._ready, []
        return ended

    def read_to_end(self) -> None:
        """Read until the client closes."""
        while self.read():
            pass

    def answer(self, asked: Asked, message: bytes | None = None, trailers: list[tuple[str, str]] = OK) -> None:
        """Answer a call, by default with its own message."""
        self.h2.send_headers(asked.stream, HEADERS)
        data = prefixed(asked.message if message is None else message)
        while data:
            size = min(self.h2.local_flow_control_window(asked.stream), self.h2.max_outbound_frame_size)
            if size:
                self.h2.send_data(asked.stream, data[:size])
                data = data[size:]
                self.flush()
            elif not self.read():
                return
        self.h2.send_headers(asked.stream, trailers, end_stream=True)
        self.flush()


def echoing(connection: Connection) -> None:
    """Answer every call with its own message."""
    while (asked := connection.take()) is not None:
        connection.answer(asked)


class Peer:
    """A server that runs.

    Attributes:
        connections: all connections so far.
    """

    def __init__(self, handler: Callable[[Connection], object], context: ssl.SSLContext | None) -> None:
        self._handler = handler
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.connections: list[Connection] = []
        self.origin = Origin("http" if context is None else "https", "127.0.0.1", self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with ExitStack() as stack:
            stack.callback(sock.close)
            try:
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                    stack.callback(sock.close)
            except OSError:
                return
            connection = Connection(sock, len(self.connections) + 1)
            self.connections.append(connection)
            connection.begin()
            self._handler(connection)
            # A socket that is closed with bytes unread resets the connection, and the client may lose the last answer.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_WR)
                while sock.recv(65536):
                    pass

    def close(self) -> None:
        """Close everything, and wait for the handlers."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def serving(handler: Callable[[Connection], object] = echoing, context: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A server in threads of its own."""
    peer = Peer(handler, context)
    try:
        yield peer
    finally:
        peer.close()


class Said(NamedTuple):
    """What a call has brought."""

    status: int
    text: bytes
    message: bytes


class Client(Protocol):
    """A client of either kind."""

    def call(
        self, origin: Origin, message: bytes = b"", seconds: float = 10.0, options: UpstreamOptions = DEFAULT_OPTIONS
    ) -> Said:
        """Make a call."""

    def close(self) -> None:
        """Close it."""


def _request(seconds: float, options: UpstreamOptions) -> UpstreamRequest:
    return UpstreamRequest(
        "echo", "POST", METHOD, [(b"host", b"x"), (b"x-of", b"mine")], timeout=seconds, options=options
    )


class SyncTestClient:
    """The client for threads."""

    def __init__(self, limits: Limits, contexts: TLSContexts) -> None:
        self.client = SyncGrpcClient(limits, contexts)

    def call(
        self, origin: Origin, message: bytes = b"", seconds: float = 10.0, options: UpstreamOptions = DEFAULT_OPTIONS
    ) -> Said:
        """See `Client`."""
        response = self.client.send(origin, _request(seconds, options), message, monotonic() + seconds)
        headers = dict(response.head.headers)
        return Said(int(headers[b"grpc-status"]), headers.get(b"grpc-message", b""), response.read())

    def close(self) -> None:
        """Close it."""
        self.client.close()


class AioTestClient:
    """The client for asyncio, with a loop that runs while a call is made."""

    def __init__(self, limits: Limits, contexts: TLSContexts) -> None:
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()
        self.client = self.runner.run(self._make(limits, contexts))

    async def _make(self, limits: Limits, contexts: TLSContexts) -> GrpcClient:
        return GrpcClient(limits, contexts)

    def call(
        self, origin: Origin, message: bytes = b"", seconds: float = 10.0, options: UpstreamOptions = DEFAULT_OPTIONS
    ) -> Said:
        """See `Client`."""
        return self.runner.run(self.acall(origin, message, seconds, options))

    async def acall(
        self, origin: Origin, message: bytes = b"", seconds: float = 10.0, options: UpstreamOptions = DEFAULT_OPTIONS
    ) -> Said:
        """The same in its loop."""
        response = await self.client.send(origin, _request(seconds, options), message, self.loop.time() + seconds)
        headers = dict(response.head.headers)
        return Said(int(headers[b"grpc-status"]), headers.get(b"grpc-message", b""), await response.read())

    def close(self) -> None:
        """Close it, and its loop."""
        self.runner.run(self.client.aclose())
        self.runner.close()


CLIENTS: dict[str, Callable[[Limits, TLSContexts], Client]] = {"aio": AioTestClient, "sync": SyncTestClient}
