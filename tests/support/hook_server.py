"""A hook on a real socket: keeps what was posted, and answers what a test says."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import parse_qs

# Of "localhost" and 127.0.0.1, signed by itself.
CERTIFICATE = Path(__file__).with_name("upstream.pem")
_SECONDS = 20


class Posted(NamedTuple):
    """A request to a hook."""

    path: str
    headers: dict[str, str]
    body: Any


class HookServer:
    """A hook.

    Attributes:
        status: of the next answers, by path; 200 for others. None for a connection that ends without an answer.
        decide: gives the status of a path instead.
        body: of the answers.
        headers: of the answers.
        posted: the requests, in their order.
        go: answers wait for it.
    """

    def __init__(self) -> None:
        self.status: dict[str, int | None] = {}
        self.decide: Callable[[str], int | None] = lambda path: self.status.get(path, 200)
        self.body = b""
        self.headers: dict[str, str] = {}
        self.posted: SimpleQueue[Posted] = SimpleQueue()
        self.go = threading.Event()
        self.go.set()
        self.port = 0

    def url(self, path: str = "/") -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def next(self) -> Posted:
        """The next request."""
        return self.posted.get(timeout=_SECONDS)


@contextmanager
def hook_server(host: str = "127.0.0.1", port: int = 0, *, tls: bool = False) -> Iterator[HookServer]:
    """A hook while the block runs."""
    hook = HookServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = hook.decide(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            is_form = headers["content-type"] == "application/x-www-form-urlencoded"
            hook.posted.put(Posted(self.path, headers, parse_qs(body.decode()) if is_form else json.loads(body)))
            hook.go.wait(_SECONDS)
            if status is None:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**hook.headers, "content-length": str(len(hook.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(hook.body)
            except OSError:
                self.close_connection = True

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    hook.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hook
    finally:
        hook.go.set()
        server.shutdown()
        thread.join()
        server.server_close()
