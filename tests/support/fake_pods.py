"""Pods that answer their peers as a test says, on real sockets."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

# What a pod does with a connection, given the request that came on it.
Answering = Callable[[socket.socket, bytes], object]


class FakePod:
    """A pod.

    Attributes:
        requests: those that came.
        answering: what it does.
    """

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.requests: list[bytes] = []
        pod = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    while request := _request(self.request):
                        pod.requests.append(request)
                        pod.answering(self.request, request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def slice(self, *, ready: bool = True, name: str = "admin") -> Any:
        """The EndpointSlice that it is in, alone."""
        endpoint = {"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}
        return {"endpoints": [endpoint], "ports": [{"name": name, "port": self.port, "protocol": "TCP"}]}

    def end(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _request(connection: socket.socket) -> bytes:
    """A request with its body, b"" at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    """A response."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sends(data: bytes) -> Answering:
    """It sends these bytes."""
    return lambda connection, _: connection.sendall(data)


@contextlib.contextmanager
def fake_pods(*answerings: Answering) -> Iterator[list[FakePod]]:
    """Pods that end with the block."""
    found = [FakePod(each) for each in answerings]
    try:
        yield found
    finally:
        for each in found:
            each.end()
