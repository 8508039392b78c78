"""Two HTTP servers on real ports, the first of which redirects to the second, and what each has heard."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Heard(NamedTuple):
    """One server.

    Attributes:
        url: of its root.
        lanes: a header of each request, None where it is missing.
    """

    url: str
    lanes: list[str | None]

    @property
    def host(self) -> str:
        """Address and port."""
        return self.url.partition("//")[2]


@contextmanager
def listening(header: str, redirect_to: str = "", body: bytes = b"", status: int = 200) -> Iterator[Heard]:
    """A server that notes a header; what it is asked at /to-other is a redirect."""
    lanes: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        """Notes and answers."""

        def do_GET(self) -> None:
            lanes.append(self.headers.get(header))
            redirected = bool(redirect_to) and self.path.endswith("/to-other")
            self.send_response(307 if redirected else status)
            if redirected:
                self.send_header("location", f"{redirect_to}/end")
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Heard(f"http://127.0.0.1:{server.server_port}", lanes)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def redirecting(header: str = "x-canary-lane") -> Iterator[tuple[Heard, Heard]]:
    """A server, and another one that it redirects to from /to-other."""
    with listening(header) as other, listening(header, other.url) as first:
        yield first, other
