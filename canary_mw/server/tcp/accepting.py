"""Accepts the connections of a port, and looks at what they begin with without taking it."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from canary_mw.host import HostLogger
from canary_mw.server.tcp.client_hello import MAX_HELLO, Start, server_name

logger = HostLogger(logging.getLogger("canary_mw.tcp"))

# Seconds that a ClientHello may take, and those of silence after which a connection is one without TLS: a server may
# speak first.
HELLO_TIMEOUT = 5.0
SILENCE = 3.0
# Seconds between two looks at a ClientHello that is not complete: the socket stays readable meanwhile.
_NEXT_LOOK = 0.02
# Connections that are accepted at once, and seconds to wait when the process has no more descriptors.
_AT_ONCE = 128
_RETRY = 1.0


class Acceptor:
    """Accepts connections.

    Args:
        listener: not blocking; closed with this.
        begin: takes a connection, and closes its socket or hands it on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        begin: Callable[[socket.socket], Awaitable[None]],
    ) -> None:
        self._loop, self._listener, self._begin = loop, listener, begin
        self._tasks: set[asyncio.Task[Any]] = set()
        self._retry: asyncio.TimerHandle | None = None
        loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more, and end the connections that have not begun yet."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                logger.error("tcp: no connection can be accepted: %s", exc.strerror or exc)
                self._loop.remove_reader(self._listener)
                self._retry = self._loop.call_later(_RETRY, self._loop.add_reader, self._listener, self._accept)
                return
            client.setblocking(False)
            task = self._loop.create_task(self._run(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, client: socket.socket) -> None:
        try:
            await self._begin(client)
        except (OSError, asyncio.CancelledError):
            # It left, or its handshake failed.
            client.close()


async def peek_server_name(client: socket.socket, silence: float) -> str | None:
    """The server name that a connection begins with; empty for TLS without one, None for no TLS, or for silence.

    Nothing is taken from the socket.

    Args:
        silence: seconds without a byte that are waited.

    Raises:
        OSError: the client left, or its ClientHello did not come in time.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + HELLO_TIMEOUT
    while loop.time() < end:
        try:
            data = client.recv(MAX_HELLO, socket.MSG_PEEK)
        except BlockingIOError:
            if not await _readable(client, silence):
                return None
            continue
        if not data:
            raise ConnectionAbortedError("the client left")
        found = server_name(data)
        if isinstance(found, str):
            return found
        if found is Start.OTHER:
            return None
        await asyncio.sleep(_NEXT_LOOK)
    raise TimeoutError("the ClientHello did not come in time")


async def _readable(client: socket.socket, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(client, _settle, readable)
    try:
        await asyncio.wait({readable}, timeout=seconds)
        return readable.done()
    finally:
        loop.remove_reader(client)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
