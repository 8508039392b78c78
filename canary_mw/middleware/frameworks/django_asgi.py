"""Django in a loop: the ASGI middleware runs in a task, whose messages become a response."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from io import BytesIO
from typing import Any
from weakref import ReferenceType, ref

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from canary_mw.middleware.frameworks.below import BELOW
from canary_mw.middleware.frameworks.django_requests import body_of, update_from_scope
from canary_mw.middleware.frameworks.django_responses import Relayed, pairs_of, with_headers
from canary_mw.middleware.wsgi.in_process import status_line
from canary_mw.routing.releases.questions import asks_session
from canary_mw.routing.table import RouteTable
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

_CHUNK = 65536


class Below:
    """What is below the middleware, for one request.

    Attributes:
        response: what it has answered, None before.
    """

    def __init__(self, request: HttpRequest, get_response: Callable[[HttpRequest], Awaitable[Any]]) -> None:
        self.request = request
        self.get_response = get_response
        self.response: Any = None


async def serve_below(scope: Scope, receive: Receive, send: Send) -> None:
    """The app that the middleware wraps: the rest of Django."""
    below: Below = scope[BELOW]
    update_from_scope(below.request, scope)
    response = below.response = await below.get_response(below.request)
    # Before the head is sent: then the response gets the body of the middleware.
    chunks = response.streaming_content if response.streaming and response.is_async else None
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in pairs_of(response)]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers, BELOW: below})
    if not response.streaming:
        await send({"type": "http.response.body", "body": response.content})
        return
    if not response.is_async and getattr(response, "file_to_stream", None) is None:
        response.streaming_content = _in_context(response.streaming_content)
    if chunks is not None:
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


def _in_context(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A body that Django takes in a thread, when the middleware is done, with the context of its request."""
    pieces, context = iter(chunks), copy_context()
    step: Callable[[], Any] = partial(context.run, next, pieces, None)
    return iter(step, None)


class SessionLoader:
    """Reads the session of a request where a release may ask for it: later it could only be read in a thread."""

    def __init__(self) -> None:
        self._known: tuple[ReferenceType[RouteTable], bool] | None = None

    async def load(self, middleware: Any, session: Any) -> None:
        """Read a session, as if nobody had looked at it."""
        if not middleware.started:
            middleware.start()
        if not self._is_asked(middleware.store.table) or not hasattr(session, "ahas_key"):
            return
        accessed = session.accessed
        await session.ahas_key("")
        # Else the answer would depend on cookies for every cache.
        session.accessed = accessed

    def _is_asked(self, table: RouteTable) -> bool:
        known = self._known
        if known is None or known[0]() is not table:
            asked = any(asks_session(release.document) for release in table.releases.values())
            known = self._known = ref(table), asked
        return known[1]


class Exchange:
    """A request to the middleware, in a task of its own; an iterator of the pieces of its answer."""

    def __init__(self, middleware: ASGIApp, scope: Scope, receive: Receive) -> None:
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(middleware, scope, receive))

    async def _run(self, middleware: ASGIApp, scope: Scope, receive: Receive) -> None:
        try:
            await middleware(scope, receive, self._send)
        finally:
            self._messages.put_nowait(None)

    async def _send(self, message: Message) -> None:
        self._messages.put_nowait(message)
        # A slow client slows its upstream down.
        await self._messages.join()

    async def next(self) -> Message | None:
        """The next message; None at the end. Raises what the middleware has raised."""
        try:
            message = await self._messages.get()
        except asyncio.CancelledError:
            self.close()
            raise
        self._messages.task_done()
        if message is None:
            await self._task
        return message

    def close(self) -> None:
        """End it, whether its answer was read to the end or not."""
        self._task.cancel()

    def __aiter__(self) -> "Exchange":
        return self

    async def __anext__(self) -> bytes:
        while (message := await self.next()) is not None:
            if message.get("body"):
                return bytes(message["body"])
        raise StopAsyncIteration


async def answer_of(middleware: Any, scope: Scope, below: Below, sessions: SessionLoader) -> HttpResponseBase:
    """The response to a request."""
    await sessions.load(middleware, scope["session"])
    exchange = Exchange(middleware, {**scope, BELOW: below}, _receive_of(below.request))
    start = await exchange.next()
    if start is None:
        # The client has left: nobody reads it.
        return HttpResponse(status=400)
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    if BELOW not in start:
        return Relayed(status_line(start["status"]), headers, exchange)
    response: Any = with_headers(below.response, headers)
    if response.streaming and response.is_async:
        response.streaming_content = exchange
        return response
    async for _ in exchange:
        pass
    return response


def _receive_of(request: Any) -> Receive:
    """Gives the body, which Django has read already. The end of the client cancels the task."""
    stream = BytesIO(request.body) if hasattr(request, "_body") else body_of(request)
    position, ended = 0, False

    async def receive() -> Message:
        nonlocal position, ended
        if ended:
            await asyncio.Event().wait()
        stream.seek(position)
        chunk = stream.read(_CHUNK)
        position += len(chunk)
        ended = len(chunk) < _CHUNK
        return {"type": "http.request", "body": chunk, "more_body": not ended}

    return receive
