"""A port in front of a service that at times takes nothing, says nonsense, or is not there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from servers import free_port

NONSENSE = b"\x00\x01\x02 2000 X\r\n\r\n"


class Gate:
    """Passes bytes on to a port of this machine; `set` says how it does.

    Attributes:
        port: its own.
        mood: "well", "hangs", "garbage" or "away".
    """

    def __init__(self, target: int) -> None:
        self.port, self.mood = free_port(), "away"
        self._target = target
        self._open = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def set(self, mood: str) -> None:
        """Change."""
        self.mood = mood
        if mood == "hangs":
            self._open.clear()
        else:
            self._open.set()
        if mood == "away":
            await self.close()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_port=True)

    async def close(self) -> None:
        """End all connections, and take no more."""
        self._open.set()
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(*self._tasks)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            behind, target = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(target)
            await asyncio.gather(self._pass(reader, target), self._pass(behind, writer, back=True))
            self._writers.discard(target)
        self._writers.discard(writer)
        self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(NONSENSE if back and self.mood == "garbage" else data)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def changing(gates: Sequence[Gate], seconds: float) -> AsyncIterator[None]:
    """Let them be in one mood after the other for so many seconds each, and well at the end."""

    async def change() -> None:
        while True:
            for mood in ("well", "hangs", "well", "garbage", "well", "away"):
                for gate in gates:
                    await gate.set(mood)
                await asyncio.sleep(seconds)

    task = asyncio.ensure_future(change())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for gate in gates:
            await gate.set("well")
