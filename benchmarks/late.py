"""Whose response is it? What an upstream sends late, with canary-mw, nginx and Envoy before it.

    python -m benchmarks.late

The upstream sends the body of a response to HEAD after all, or a second response behind a complete one, some
milliseconds late. Another client asks at once. Counted is how often it gets what was not meant for it. No row of
RESULTS.md: it is a number of faults, and SECURITY.md has it.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from . import peers, rules, servers
from .servers import Server, Upstream

ROUNDS = 50
DELAYS = (0.001, 0.004, 0.02)
IDLE = (1, 8)
FORGED = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nset-cookie: session=other\r\n\r\nforged"
# Seconds: what comes late has come by then, and the proxy has seen it.
_SETTLED = 0.06
_TOGETHER = 0.01


class Faulty:
    """An upstream with a thread for each connection.

    Attributes:
        delay: seconds by which it is late.
    """

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        with connection:
            try:
                while received := connection.recv(65536):
                    data += received
                    while b"\r\n\r\n" in data:
                        head, _, data = data.partition(b"\r\n\r\n")
                        self._answer(connection, head)
            except OSError:
                return

    def _answer(self, connection: socket.socket, head: bytes) -> None:
        if head.startswith(b"HEAD"):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(FORGED))
        else:
            if b"/slow" in head:
                # Those that come meanwhile need connections of their own.
                time.sleep(_TOGETHER)
            body = b'{"service": "%b"}' % self._name
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        if b"/late" in head:
            time.sleep(self.delay)
            connection.sendall(FORGED)


def ask(client: socket.socket, method: str, path: str) -> bytes:
    """The response as far as it comes with the first bytes, which is all of it here."""
    client.sendall(f"{method} {rules.prefix(0)}{path} HTTP/1.1\r\nhost: shop.example\r\n\r\n".encode())
    return client.recv(65536)


def forged(server: Server, method: str, idle: int) -> int:
    """How often a client gets what was sent behind the response to another.

    Args:
        idle: connections that the proxy has to choose from.
    """
    found = 0
    for _ in range(ROUNDS):
        with ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10)) for _ in range(idle + 1)
            ]
            together = [threading.Thread(target=ask, args=(client, "GET", "slow")) for client in clients[:idle]]
            for thread in together:
                thread.start()
            for thread in together:
                thread.join()
            ask(clients[0], method, "late")
            found += b"forged" in ask(clients[-1], "GET", "slow")
        time.sleep(_SETTLED)
    return found


@contextmanager
def started(name: str, folder: Path, ports: Upstream) -> Iterator[Server]:
    """One of the proxies, by name."""
    makers = {"canary-mw": servers.canary_mw, "nginx": peers.nginx, "Envoy": peers.envoy}
    with partial(makers[name], folder, ports, 2)() as server:
        yield server


def main() -> None:
    """Print a table."""
    upstreams = [Faulty(name) for name in rules.SERVICES]
    ports = Upstream(*(upstream.port for upstream in upstreams))
    print(f"of {ROUNDS} requests, answered by what was sent behind the response to another:")
    for name in ("canary-mw", "nginx", "Envoy"):
        with TemporaryDirectory() as folder, started(name, Path(folder), ports) as server:
            for method in ("HEAD", "GET"):
                for idle in IDLE:
                    counts = []
                    for delay in DELAYS:
                        for upstream in upstreams:
                            upstream.delay = delay
                        counts.append(f"{delay * 1000:.0f} ms: {forged(server, method, idle):2}")
                    print(f"{name:10} {method:5} {idle} idle   {'   '.join(counts)}", flush=True)


if __name__ == "__main__":
    main()
