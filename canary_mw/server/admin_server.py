"""The server of the admin port, in the event loop of the proxy."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette


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
            app, lifespan="off", log_config=None, access_log=False, proxy_headers=False, server_header=False, ws="none"
        )
        server = cls(config)
        server.socket = _listen(host, port)
        server.task = asyncio.get_running_loop().create_task(server.serve(sockets=[server.socket]))
        return server

    socket: socket.socket
    task: "asyncio.Task[None]"

    async def stop(self) -> None:
        """Finish running requests, then stop."""
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
