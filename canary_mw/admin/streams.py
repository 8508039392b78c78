"""Server-sent events: streams that end at shutdown, and are bounded in number."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from time import monotonic
from typing import NamedTuple

from starlette.responses import Response, StreamingResponse

MOST_READERS = 32
LIFETIME = 4.0
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff", "x-accel-buffering": "no"}

# Gives the messages that are due, and the seconds until it is to be asked again.
Messages = Callable[[], Awaitable[tuple[Sequence[str], float]]]


class _Reader(NamedTuple):
    loop: asyncio.AbstractEventLoop
    stopped: asyncio.Event


class Streams:
    """The open streams of an admin app.

    Attributes:
        lifetime: seconds after which a stream ends, for its reader to ask again. An app that is mounted in another one
            does not hear that the server ends, which waits for its clients; who calls `stop` sets it to infinity.
    """

    def __init__(self, most: int = MOST_READERS, lifetime: float = LIFETIME) -> None:
        self.lifetime = lifetime
        self._most = most
        self._readers: set[_Reader] = set()
        self._stopped = False

    def stop(self) -> None:
        """End all streams, now and from now on. A server would wait for them else. In any thread."""
        self._stopped = True
        for loop, stopped in tuple(self._readers):
            if not loop.is_closed():
                loop.call_soon_threadsafe(stopped.set)

    def open(self, messages: Messages, method: str = "GET") -> Response | None:
        """A response that streams, but to HEAD; None where there are too many, or none any more."""
        if method == "HEAD":
            return Response(media_type="text/event-stream", headers=_HEADERS)
        if self._stopped or len(self._readers) >= self._most:
            return None
        return StreamingResponse(self._stream(messages), media_type="text/event-stream", headers=_HEADERS)

    async def _stream(self, messages: Messages) -> AsyncIterator[str]:
        reader = _Reader(asyncio.get_running_loop(), asyncio.Event())
        self._readers.add(reader)
        try:
            yield "retry: 1000\n\n"
            ends_at = monotonic() + self.lifetime
            while not self._stopped and monotonic() < ends_at:
                due, pause = await messages()
                for each in due:
                    yield each
                await _wait(reader.stopped, pause)
        finally:
            self._readers.discard(reader)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def message(data: str, name: str | None = None, number: int | None = None) -> str:
    """A message; each line of its data is a field of its own."""
    head = (f"event: {name}\n" if name else "") + (f"id: {number}\n" if number is not None else "")
    return head + "".join(f"data: {line}\n" for line in data.split("\n")) + "\n"
