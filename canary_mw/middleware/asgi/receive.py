"""The messages of one ASGI request: its body for the upstream, and then the disconnect of the client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from canary_mw.exceptions import ClientDisconnected
from canary_mw.types import Message, Receive
from canary_mw.upstreams.body_buffer import ReplayBuffer

# Seconds after which a request is watched for a disconnect, at least; at most twice as many. Most responses are
# complete by then, and need no task.
WATCH_DELAY = 0.05


class DisconnectNotifier(Protocol):
    """The connection of a client, where the server offers it.

    `receive` reports no disconnect while the server does not read the rest of an upload.
    """

    def on_disconnect(self, callback: Callable[[], object] | None) -> None:
        """Call `callback` when the client disconnects, or now when it has done so already; None removes it."""


class DisconnectTimer:
    """Starts the disconnect watch of requests that take long.

    It is one timer for all requests of a loop, because setting a timer costs as much as filtering the headers.

    Args:
        loop: the running one.
    """

    __slots__ = ("_new", "_running", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._new: set[RequestStream] = set()
        self._waiting: set[RequestStream] = set()
        self._running = False

    def add(self, stream: "RequestStream") -> None:
        """Watch a request from the next tick but one, unless it is removed by then."""
        self._new.add(stream)
        if not self._running:
            self._running = True
            self.loop.call_later(WATCH_DELAY, self._tick)

    def remove(self, stream: "RequestStream") -> None:
        """Forget a request that has ended."""
        self._new.discard(stream)
        self._waiting.discard(stream)

    def _tick(self) -> None:
        for stream in self._waiting:
            stream.watch()
        self._waiting, self._new = self._new, set()
        self._running = bool(self._waiting)
        if self._running:
            self.loop.call_later(WATCH_DELAY, self._tick)


class RequestStream:
    """Reads `receive` with one reader at a time: first the upload, then the disconnect watch.

    It is an asynchronous iterator over the rest of the body. It receives the next message when the upstream has taken
    the last one, so that a slow upstream slows the client.

    Args:
        receive: of the request; nothing else may call it meanwhile.
        timer: of the running loop.
        notifier: the connection of the client, where the server offers it.
        by_notifier: only the notifier tells of a disconnect: the body is not read yet.
    """

    __slots__ = (
        "_cancelling",
        "_ended",
        "_first_chunk",
        "_notifier",
        "_on_end",
        "_receive",
        "_task",
        "_timer",
        "_uploading",
        "_watch_requested",
        "_watch_task",
    )

    def __init__(
        self,
        receive: Receive,
        timer: DisconnectTimer,
        notifier: DisconnectNotifier | None = None,
        *,
        by_notifier: bool = False,
    ) -> None:
        self._receive = receive
        self._timer = timer
        self._notifier = notifier
        self._first_chunk = b""
        self._uploading = by_notifier
        self._ended = False
        self._watch_requested = False
        self._watch_task: asyncio.Task[None] | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling: int | None = None
        self._on_end: asyncio.Future[None] | None = None

    async def open(self) -> "bytes | RequestStream":
        """The body, as bytes when its first message is all of it.

        Raises:
            ClientDisconnected: the client disconnected before the body was complete; iterating raises it too.
        """
        self._uploading = True
        chunk = await self._read_chunk()
        if not self._uploading:
            return chunk
        self._first_chunk = chunk
        return self

    def __aiter__(self) -> "RequestStream":
        return self

    async def __anext__(self) -> bytes:
        chunk, self._first_chunk = self._first_chunk, b""
        if chunk:
            return chunk
        if not self._uploading:
            raise StopAsyncIteration
        return await self._read_chunk()

    async def _read_chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the client left before its body was complete")
        if not message.get("more_body", False):
            self._uploading = False
            self._ended = True
            if self._watch_requested:
                self.watch()
        return bytes(message.get("body", b""))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the request runs in."""
        return self._timer.loop

    def watch_soon(self) -> None:
        """After `WATCH_DELAY`, start to watch: the calling task is cancelled when the client disconnects."""
        self._task = asyncio.current_task(self._timer.loop)
        self._timer.add(self)

    def watch(self) -> None:
        """Watch now, or when the upload ends.

        Reading the upload finds a disconnect by itself. While the upstream takes none of it, only the notifier does.
        """
        self._watch_requested = True
        if not self._uploading:
            self._watch_task = self._timer.loop.create_task(self._wait_for_disconnect())
        elif self._notifier is not None:
            self._notifier.on_disconnect(self._cancel)

    def _end_received(self) -> asyncio.Future[None]:
        """Done once the watch has received the end of the request."""
        self._on_end = self._timer.loop.create_future()
        return self._on_end

    async def client_left(self) -> bool:
        """Watch from now on; whether the server knows already that the client has left."""
        if not self._watch_requested:
            self._timer.remove(self)
            self.watch()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self.cancelled_by_disconnect():
                return True
            raise
        return False

    async def _wait_for_disconnect(self) -> None:
        try:
            while (message := await self._receive())["type"] != "http.disconnect":
                if self._ended:
                    # A middleware that replays the body which it has read: it never reports a disconnect.
                    return
                self._ended = not message.get("more_body", False)
                if self._ended and self._on_end is not None:
                    self._on_end.set_result(None)
        except Exception:  # noqa: BLE001 - a server that fails here does not report disconnects
            return
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None and self._cancelling is None:
            self._cancelling = self._task.cancelling()
            self._task.cancel()

    def cancelled_by_disconnect(self) -> bool:
        """Whether only the watch has cancelled the task; its cancellation is taken back (`Task.uncancel`)."""
        return self._cancelling is not None and self._task is not None and self._task.uncancel() <= self._cancelling

    async def replay(self, buffer: ReplayBuffer) -> Receive:
        """Stop reading; returns a `receive` that gives the request from its beginning to another reader.

        Args:
            buffer: what was read by `open`.
        """
        watch = self._watch_task
        if watch is not None and not buffer.opened and not self._ended:
            # Layers outside may have taken the first message already: it would be lost with a cancelled `receive`.
            await asyncio.wait((watch, self._end_received()), return_when=asyncio.FIRST_COMPLETED)
        self.close()
        self._task = None
        if watch is not None:
            await asyncio.wait((watch,))
        if buffer.opened or self._ended:
            return replayed(buffer, self._receive, ended=self._ended)
        return self._receive

    def close(self) -> None:
        """Stop watching; does nothing when stopped already."""
        if self._watch_requested and self._notifier is not None:
            self._notifier.on_disconnect(None)
        self._watch_requested = False
        self._timer.remove(self)
        if self._watch_task is not None:
            self._watch_task.cancel()


def replayed(buffer: ReplayBuffer, receive: Receive, *, ended: bool = False) -> Receive:
    """A `receive` that gives the body from its beginning, and behind its end what the given one gives.

    Args:
        ended: the end of the body was received. Where the buffer has nothing then, the body is empty.
    """
    empty = ended and not buffer.opened
    rest: AsyncIterator[bytes] | None = None
    given = False

    async def receive_again() -> Message:
        nonlocal rest, given
        if given:
            return await receive()
        try:
            if rest is None:
                body = b"" if empty else await buffer.open()
                if isinstance(body, bytes):
                    given = True
                    return {"type": "http.request", "body": body, "more_body": False}
                rest = body
            return {"type": "http.request", "body": await anext(rest), "more_body": True}
        except StopAsyncIteration:
            given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        except ClientDisconnected:
            return {"type": "http.disconnect"}

    return receive_again
