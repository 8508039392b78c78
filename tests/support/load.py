"""Clients that ask without a pause over connections that they keep, and note every request that was lost."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable

from upstream import until


class Load:
    """What a number of such clients got.

    Attributes:
        bodies: whole answers with status 200, by their text.
        lost: what became of the others.
    """

    def __init__(self, port: int, target: str, pause: float) -> None:
        self.bodies: Counter[bytes] = Counter()
        self.lost: list[str] = []
        self.over = False
        self._port = port
        self._request = f"GET {target} HTTP/1.1\r\nhost: shop.example\r\n\r\n".encode()
        self._pause = pause

    @property
    def answered(self) -> int:
        """Requests that were answered."""
        return self.bodies.total()

    async def more(self, count: int = 100) -> None:
        """Until so many more requests were answered."""
        wanted = self.answered + count
        await until(lambda: self.answered >= wanted)

    async def client(self) -> None:
        """Ask until it is over; a connection that its server ends with an answer is replaced."""
        while not self.over:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                while await self._ask(reader, writer):  # noqa: ASYNC110
                    await asyncio.sleep(self._pause)
            except (asyncio.IncompleteReadError, OSError) as exc:
                self.lost.append(repr(exc))
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection may be asked again."""
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
        if head.startswith(b"http/1.1 200 "):
            self.bodies[body] += 1
        else:
            self.lost.append(repr(head.split(b"\r\n")[0] + body))
        return not self.over and b"connection: close" not in head


@contextlib.asynccontextmanager
async def load(port: int, target: str = "/shop/", *, clients: int = 8, pause: float = 0.0) -> AsyncIterator[Load]:
    """Clients at work until the block ends; `pause` is seconds between two requests of one of them."""
    counted = Load(port, target, pause)
    tasks = [asyncio.create_task(counted.client()) for _ in range(clients)]
    try:
        yield counted
    finally:
        counted.over = True
        await asyncio.gather(*tasks)


async def eventually(condition: Callable[[], bool]) -> None:
    """`until` for what takes its time, in other processes."""
    while not condition():  # noqa: ASYNC110 - nobody announces it
        await asyncio.sleep(0.05)
