"""The messages of one ASGI request: its body for the upstream, and after it the news that the client left."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from canary_mw.exceptions import ClientDisconnected
from canary_mw.types import Receive

# Seconds, at least, before somebody looks whether the client is still there, and at most twice as many. Most answers
# have come by then, and cost no task.
PATIENCE = 0.05


class DisconnectNotifier(Protocol):
    """The connection of a client, where the server shows it: `receive` is silent while nothing is read of an upload."""

    def on_disconnect(self, tell: Callable[[], object] | None) -> None:
        """Call it when the client has left, or now when it has already; None: nobody wants to know."""


class DisconnectTimer:
    """Begins the watch of the requests that take long: one timer for all of a loop, because setting one costs as much
    as a header filter.

    Args:
        loop: the running one.
    """

    __slots__ = ("_late", "_new", "_running", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._new: set[RequestStream] = set()
        self._late: set[RequestStream] = set()
        self._running = False

    def enter(self, inbox: "RequestStream") -> None:
        """Watch it from the next round but one, unless it has left by then."""
        self._new.add(inbox)
        if not self._running:
            self._running = True
            self.loop.call_later(PATIENCE, self._round)

    def leave(self, inbox: "RequestStream") -> None:
        """It is done."""
        self._new.discard(inbox)
        self._late.discard(inbox)

    def _round(self) -> None:
        for inbox in self._late:
            inbox.watch()
        self._late, self._new = self._new, set()
        self._running = bool(self._late)
        if self._running:
            self.loop.call_later(PATIENCE, self._round)


class RequestStream:
    """Reads `receive` with one reader at a time: the upload first, then the watch.

    It is the rest of the body as an asynchronous iterator: the next message is asked for when the upstream has taken
    the last one, so a slow upstream holds the client back.

    Args:
        receive: the request's own; nobody else may call it meanwhile.
        rounds: of the running loop.
        client: see `Client`.
    """

    __slots__ = (
        "_cancels",
        "_client",
        "_due",
        "_ended",
        "_first",
        "_main",
        "_receive",
        "_timer",
        "_uploading",
        "_watcher",
    )

    def __init__(self, receive: Receive, rounds: DisconnectTimer, client: DisconnectNotifier | None = None) -> None:
        self._receive = receive
        self._timer = rounds
        self._client = client
        self._first = b""
        self._uploading = False
        self._ended = False
        self._due = False
        self._watcher: asyncio.Task[None] | None = None
        self._main: asyncio.Task[object] | None = None
        self._cancels: int | None = None

    async def open(self) -> "bytes | RequestStream":
        """The body: as bytes when its first message is all of it.

        Raises:
            ClientDisconnected: the client left before the body was complete; iterating raises it too.
        """
        self._uploading = True
        piece = await self._piece()
        if not self._uploading:
            return piece
        self._first = piece
        return self

    def __aiter__(self) -> "RequestStream":
        return self

    async def __anext__(self) -> bytes:
        piece, self._first = self._first, b""
        if piece:
            return piece
        if not self._uploading:
            raise StopAsyncIteration
        return await self._piece()

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the client left before its body was complete")
        if not message.get("more_body", False):
            self._uploading = False
            self._ended = True
            if self._due:
                self.watch()
        return bytes(message.get("body", b""))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The one that it belongs to."""
        return self._timer.loop

    def watch_soon(self) -> None:
        """After a while, cancel the task that called this when the client leaves."""
        self._main = asyncio.current_task(self._timer.loop)
        self._timer.enter(self)

    def watch(self) -> None:
        """Begin now, or when the upload ends, which sees by itself whether the client leaves, unless it is stuck."""
        self._due = True
        if not self._uploading:
            self._watcher = self._timer.loop.create_task(self._wait())
        elif self._client is not None:
            self._client.on_disconnect(self._cancel)

    async def _wait(self) -> None:
        try:
            while (message := await self._receive())["type"] != "http.disconnect":
                if self._ended:
                    # A middleware that replays a body it has read: it would do so for ever, and never tell.
                    return
                self._ended = not message.get("more_body", False)
        except Exception:  # noqa: BLE001 - a server that cannot tell leaves us as wise as before
            return
        self._cancel()

    def _cancel(self) -> None:
        if self._main is not None and self._cancels is None:
            self._cancels = self._main.cancelling()
            self._main.cancel()

    def cancelled_by_disconnect(self) -> bool:
        """Whether a CancelledError in the task is the watch's doing alone; it is taken back then."""
        return self._cancels is not None and self._main is not None and self._main.uncancel() <= self._cancels

    def close(self) -> None:
        """Stop watching; harmless when done already."""
        if self._due and self._client is not None:
            self._client.on_disconnect(None)
        self._due = False
        self._timer.leave(self)
        if self._watcher is not None:
            self._watcher.cancel()
