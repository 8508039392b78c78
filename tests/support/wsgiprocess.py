"""WSGI apps under real servers, in processes of their own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from servers import Process, free_port

# Command lines but for the app and the port. Connections are kept for longer than a busy machine makes a client wait.
_GUNICORN = ("gunicorn", "--no-control-socket", "--graceful-timeout", "15", "--keep-alive", "60")
_GTHREAD = (*_GUNICORN, "--worker-class", "gthread", "--threads")
# At times such a worker waits for a connection that its client has left, with any app.
_GEVENT = (*_GUNICORN, "--worker-class", "gevent", "--workers", "2", "--graceful-timeout", "5")
SERVERS = {
    "sync": (*_GUNICORN, "--workers", "2"),
    "gthread": (*_GTHREAD, "8", "--workers", "2"),
    "preload": (*_GTHREAD, "8", "--workers", "2", "--preload"),
    "16 threads": (*_GTHREAD, "16"),
    "waitress": ("waitress", "--threads", "16"),
    # Its workers patch before they import the app, or after it was loaded and forked.
    "gevent": _GEVENT,
    "gevent preload": (*_GEVENT, "--preload"),
    "pywsgi": ("patched",),
}
GREENLETS = ("gevent", "gevent preload", "pywsgi")


class ServerProcess(Process):
    """A server that its users start by `python -m`, or by a program of its own."""

    def __init__(
        self,
        command: Iterable[str],
        folder: Path,
        log: Path,
        environ: dict[str, str],
        program: Iterable[str] = (sys.executable, "-m"),
    ) -> None:
        self.log = log
        self._file = log.open("wb")
        self.child = subprocess.Popen(
            [*program, *command],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(folder), **environ},
        )


def command(server: str, factory: str, port: int) -> list[str]:
    """How to serve what a factory returns ("module:name") on a port of 127.0.0.1."""
    where = f"127.0.0.1:{port}"
    if server == "waitress":
        return [*SERVERS[server], "--listen", where, "--call", factory]
    if server == "pywsgi":
        return [*SERVERS[server], where, factory]
    return [*SERVERS[server], "--bind", where, f"{factory}()"]


@contextlib.contextmanager
def served(server: str, factory: str, log: Path, **environ: str) -> Iterator[tuple[ServerProcess, int]]:
    """Run a server until the block ends; yields it and its port. The app is a module of this folder."""
    port = free_port()
    running = ServerProcess(command(server, factory, port), Path(__file__).parent, log, environ)
    try:
        running.wait_for_port(port)
        yield running, port
    finally:
        running.stop()
