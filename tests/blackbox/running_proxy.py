"""A running proxy, and a client that finds out whether a response is complete."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers import Process, free_port, mapping
from wire import TIMEOUT, Line, Origin
from wsgiprocess import ServerProcess, command

# uvicorn with our protocol, by one and by two processes; and the middleware under uvicorn with it and with both of its
# own.
KINDS = ("serve", "two workers", "guarded", "httptools", "h11")
_SERVE = ("serve", "two workers")
# The WSGI middleware under other servers, by their names in wsgiprocess.
WSGI_KINDS = {"gunicorn": "16 threads", "waitress": "waitress"}
# Two workers run the code of one.
PARAMS = [pytest.param(each, marks=pytest.mark.slow if each == "two workers" else ()) for each in (*KINDS, *WSGI_KINDS)]


class Answer(NamedTuple):
    """An answer as a client gets it; `whole` is False when it was cut off in the body, status 0 when there was none."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    def all(self, name: str) -> list[str]:
        """Values of a header."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def echo(self) -> Any:
        """The request as an origin got it."""
        return json.loads(self.body)


class Client(Line):
    """One connection to the proxy."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        super().__init__(socket.create_connection(("127.0.0.1", port), TIMEOUT, (source, 0)))
        self._reader = self.sock.makefile("rb")

    # What http.client needs of a socket. It closes the file of each response, but there are more to come.
    def makefile(self, mode: str) -> "Client":
        """Itself, as a file."""
        return self

    def read(self, size: int = -1) -> bytes:
        """Bytes of the answer."""
        return self._reader.read(size)

    def readline(self, limit: int = -1) -> bytes:
        """A line of the answer."""
        return self._reader.readline(limit)

    def readinto(self, buffer: bytearray) -> int:
        """Bytes of the answer into a buffer."""
        return self._reader.readinto(buffer) or 0

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Does nothing; see `leave`."""

    def leave(self) -> None:
        """Close."""
        self._reader.close()
        super().close()

    def answer(self, method: str = "GET") -> Answer:
        """The next answer."""
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        try:
            response.begin()
        except (http.client.HTTPException, OSError):
            return Answer(0, [], b"", False)
        try:
            body, whole = response.read(), True
        except (http.client.IncompleteRead, ConnectionError) as exc:
            body, whole = getattr(exc, "partial", b""), False
        return Answer(response.status, response.getheaders(), body, whole)

    def closed(self) -> bool:
        """Whether the proxy has ended the connection and said nothing more."""
        try:
            return self._reader.read() == b""
        except ConnectionError:
            return True


class RunningProxy:
    """A running proxy with two origins."""

    def __init__(self, kind: str, port: int, stable: Origin, gray: Origin) -> None:
        self.kind, self.port, self.stable, self.gray = kind, port, stable, gray
        self.ours = kind in (*_SERVE, "guarded")
        self.wsgi = kind in WSGI_KINDS

    @contextlib.contextmanager
    def client(self, source: str = "127.0.0.1") -> Iterator[Client]:
        """A connection."""
        client = Client(self.port, source)
        try:
            yield client
        finally:
            client.leave()

    def ask(self, raw: bytes, method: str = "GET", source: str = "127.0.0.1") -> Answer:
        """The answer to one request on its own connection."""
        with self.client(source) as client:
            client.send(raw)
            return client.answer(method)

    def requests(self, token: bytes) -> list[bytes]:
        """What reached an origin of it."""
        return self.stable.requests(token) + self.gray.requests(token)


def get(token: bytes, *headers: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request without body; headers are whole lines without their end."""
    lines = [b"%b /svc/%b HTTP/%b" % (method, token, version), b"Host: proxy.test", *headers, b"", b""]
    return b"\r\n".join(lines)


@contextlib.contextmanager
def running_proxy(kind: str, folder: Path) -> Iterator[RunningProxy]:
    """Start a proxy: one of `KINDS` or of `WSGI_KINDS`."""
    stable, gray = Origin("stable"), Origin("gray")
    rules = folder / "rules.yaml"
    rules.write_text(
        mapping("stable", "/svc/", f"127.0.0.1:{stable.port}", rewrite="/", timeout_ms=90000)
        + mapping("gray", "/svc/", f"127.0.0.1:{gray.port}", rewrite="/", timeout_ms=90000, headers="{gray: 'true'}")
    )
    port = free_port()
    running = _started(kind, port, rules, folder / "log")
    try:
        running.wait_for_port(port)
        yield RunningProxy(kind, port, stable, gray)
    finally:
        running.stop()
        stable.close()
        gray.close()


def _started(kind: str, port: int, rules: Path, log: Path) -> Process:
    if kind in WSGI_KINDS:
        arguments = command(WSGI_KINDS[kind], "mounted:create_wsgi_app", port)
        return ServerProcess(arguments, Path(__file__).parent, log, {"BLACKBOX_RULES": str(rules)})
    if kind not in _SERVE:
        return _Mounted(kind, port, rules, log)
    workers = ["--workers", "2"] if kind == "two workers" else []
    return Process(["serve", "--rules", str(rules), "--port", str(port), *workers], log, {})


class _Mounted(Process):
    """The middleware around an app, under uvicorn as its users start it: with our protocol, or with its own."""

    def __init__(self, kind: str, port: int, rules: Path, log: Path) -> None:
        self.log = log
        self._file = log.open("wb")
        http = "canary_mw.protocol:GuardedProtocol" if kind == "guarded" else kind
        arguments = ["--factory", "mounted:create_app", "--app-dir", str(Path(__file__).parent), "--http", http]
        self.child = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *arguments, "--no-proxy-headers", "--port", str(port)],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "BLACKBOX_RULES": str(rules)},
        )
