"""An admin port that answers what a test says, and keeps what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request."""

    method: str
    target: str
    headers: dict[str, str]


class CannedAdmin:
    """An admin port.

    Attributes:
        answers: by path, status and value one after the other; the last one stays. 404 for other paths.
        asked: the requests, in their order.
    """

    def __init__(self, answers: dict[str, list[tuple[int, Any]]]) -> None:
        self.answers = answers
        self.asked: list[Asked] = []
        self.url = ""

    def next_for(self, path: str) -> tuple[int, Any]:
        """The next answer at a path."""
        left = self.answers.get(path, [(404, {"error": {"code": "not-found", "message": "nothing is here"}})])
        return left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def canned_admin(answers: dict[str, list[tuple[int, Any]]]) -> Iterator[CannedAdmin]:
    """An admin port while the block runs."""
    canned = CannedAdmin(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            canned.asked.append(Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            status, value = canned.next_for(self.path.partition("?")[0])
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    canned.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield canned
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
