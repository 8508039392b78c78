"""The server of the admin port, in the event loop of the proxy, or in one of its own beside an app.

Its protocol is found by the import path `canary_mw.protocol:AdminProtocol`, as uvicorn finds protocols: it comes with
the server, which a process without an admin port does not load. Signals and loggers are left to the host.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf

import uvicorn
from starlette.applications import Starlette

from canary_mw.host import HostLogger
from canary_mw.locks import original
from canary_mw.types import ASGIApp, Receive, Scope, Send

logger = HostLogger(logging.getLogger("canary_mw.admin"))

# Connections at once. The kernel may keep as many that were not accepted yet.
MAX_CONNECTIONS = 64
PROTOCOL = "canary_mw.protocol:AdminProtocol"
# Seconds that running requests have at shutdown, and between two looks whether they have ended.
_GRACE, _LOOK = 2.0, 0.02


class _Config(uvicorn.Config):
    """The loggers of uvicorn may be those of the server of an app."""

    def configure_logging(self) -> None:
        """Change no logger."""


class AdminServer(uvicorn.Server):
    """A second server beside the first one, which alone handles signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    @classmethod
    async def start(
        cls, app: Starlette, host: str, port: int, http: str | type[asyncio.Protocol] = PROTOCOL
    ) -> "AdminServer":
        """Listen on the admin port, which all workers on this machine share (SO_REUSEPORT).

        Args:
            http: the protocol, `AdminProtocol` or its import path.

        Raises:
            OSError: another program uses the port.
        """
        return cls.on(listen(host, port, shared=True), app, http)

    @classmethod
    def on(
        cls, listener: socket.socket, app: Starlette, http: str | type[asyncio.Protocol] = PROTOCOL
    ) -> "AdminServer":
        """Serve an app in the running event loop, on a socket that is bound."""
        config = _Config(
            _reported(app),
            http=http,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            backlog=MAX_CONNECTIONS,
        )
        server = cls(config)
        server.stop_streams, app.state.streams.lifetime = app.state.stop_streams, inf
        server.socket = listener
        server.task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
        return server

    async def stop(self) -> None:
        """Finish running requests, end the pages that are kept up to date, then stop."""
        self.stop_streams()
        self.should_exit = True
        await self.task

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        # As uvicorn does. It says of each step what it says of the server of the app.
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets)
        await self.main_loop()
        await self.shutdown(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: running requests have two seconds."""
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn tells nobody
                    await asyncio.sleep(_LOOK)
        for task in list(state.tasks):
            task.cancel()

    stop_streams: Callable[[], None]
    socket: socket.socket
    task: "asyncio.Task[None]"


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket that is bound to an address.

    Args:
        shared: whether other processes of this user may bind it too, and get a part of the connections.

    Raises:
        OSError: another program uses the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener: socket.socket = original("socket", "socket")(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise OSError(exc.errno, f"admin port {host}:{port}: {exc.strerror}") from exc
    return listener


def reserve(host: str, preferred: int) -> socket.socket:
    """Keep a port of an address for `AdminServer.start`: the preferred one, or another one where a program uses that.

    Raises:
        OSError: there is no such address here.
    """
    try:
        # With SO_REUSEPORT that of another server of this user would be shared.
        listen(host, preferred, shared=False).close()
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        preferred = 0
    kept = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    # Without SO_REUSEADDR the look above finds it, though it does not listen.
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        kept.bind((host, preferred))
    except OSError:
        kept.close()
        raise
    return kept


def url_of(host: str, port: int) -> str:
    """The URL of an admin port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reported(app: ASGIApp) -> ASGIApp:
    """An app whose errors are logged by the handlers of the host, wherever this runs."""

    async def reported(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception:
            logger.exception("a page of the admin port failed: %s", scope.get("path"))

    return reported
