"""The server of the admin port, in the event loop of the proxy.

It has the limits of the proxy's own port. What a flood of connections could take from the proxy is bounded here: open
files, and buffers for clients that read slowly.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import uvicorn
from starlette.applications import Starlette

from canary_mw.server.protocol import GuardedProtocol

# Connections at once. The kernel may keep as many that were not accepted yet.
MAX_CONNECTIONS = 64

# The name of the task that runs the server.
TASK_NAME = "canary-mw-admin"

# Seconds that running requests have at shutdown.
_GRACE = 2

_numbers = count()


class AdminProtocol(GuardedProtocol):
    """Ends the oldest connection for one over the limit, those first that wait for no answer.

    To refuse the newest would let whoever holds the others keep probes and scrapes out.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._number = next(_numbers)
        found = [each for each in self.connections if isinstance(each, AdminProtocol) and each.can_yield_to(self)]
        ended = [each for each in found if each._phase == "closing"]
        if len(found) - len(ended) >= MAX_CONNECTIONS:
            min(found, key=AdminProtocol.rank).yield_now()
        if len(ended) >= MAX_CONNECTIONS:
            min(ended, key=AdminProtocol.rank).transport.abort()

    def can_yield_to(self, newest: "AdminProtocol") -> bool:
        """Whether it is another connection, and not closed already."""
        return self is not newest and not self.transport.is_closing()

    def rank(self) -> tuple[bool, bool, int]:
        """The smallest yields first."""
        return self._phase == "closing", self._busy(), self._number

    def yield_now(self) -> None:
        """Make room. As many as may be open may linger, so that most clients see an end and no reset."""
        if self._busy():
            self.transport.abort()
        else:
            self._end_connection(linger=True)

    def shutdown(self) -> None:
        """The server shuts down: the proxy does not wait for clients of the admin port that ask for nothing."""
        super().shutdown()
        if not self._busy():
            self.transport.close()


class AdminServer(uvicorn.Server):
    """A second server in the loop of the first one, which alone handles signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    @classmethod
    async def start(cls, app: Starlette, host: str, port: int) -> "AdminServer":
        """Listen on the admin port, which all workers on this machine share (SO_REUSEPORT).

        Raises:
            OSError: another program uses the port.
        """
        config = uvicorn.Config(
            app,
            http=AdminProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=MAX_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE,
        )
        server = cls(config)
        server.stop_streams = app.state.stop_streams
        server.socket = _listen(host, port)
        server.task = asyncio.get_running_loop().create_task(server.serve(sockets=[server.socket]), name=TASK_NAME)
        return server

    stop_streams: Callable[[], None]
    socket: socket.socket
    task: "asyncio.Task[None]"

    async def stop(self) -> None:
        """Finish running requests, end the pages that are kept up to date, then stop."""
        self.stop_streams()
        self.should_exit = True
        await self.task


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise OSError(exc.errno, f"admin port {host}:{port}: {exc.strerror}") from exc
    return listener
