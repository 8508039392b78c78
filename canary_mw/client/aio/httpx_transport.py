"""Asynchronous httpx transports as a `Transport`.

httpx is imported only when such a transport is used.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from canary_mw.client.httpx_requests import httpx_request, map_httpx_errors
from canary_mw.client.interfaces import RequestBody
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import Origin

if TYPE_CHECKING:
    import httpx


T = TypeVar("T")


class AsyncTransport(Protocol):
    """The part of `httpx.AsyncBaseTransport` that is used."""

    async def handle_async_request(self, request: "httpx.Request") -> "httpx.Response":
        """See httpx."""


class HttpxTransport:
    """Sends requests over an httpx transport."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._closing: set[asyncio.Task[None]] = set()

    async def send(
        self, origin: Origin, request: UpstreamRequest, body: RequestBody, deadline: float
    ) -> "HttpxResponse":
        """Send the request and wait for the response head, both within the deadline."""
        import httpx

        limit = asyncio.timeout_at(None if deadline == math.inf else deadline)
        head_timeout = request.timeout_after(body)

        class BodyStream(httpx.AsyncByteStream):
            def __aiter__(self) -> AsyncIterator[bytes]:
                assert body is not None
                assert not isinstance(body, bytes)
                return body if head_timeout is None else _limit_after(body, head_timeout, limit)

        stream = httpx.ByteStream(body or b"") if isinstance(body, bytes | None) else BodyStream()
        outgoing = httpx_request(origin, request, stream)
        with map_httpx_errors():
            async with limit:
                response = await self._transport.handle_async_request(outgoing)
        return HttpxResponse(response, deadline, self._closing)

    async def wait_closed(self) -> None:
        """Wait until the released responses of the running loop are closed."""
        loop = asyncio.get_running_loop()
        # Copied first: the loops of other threads add and remove theirs meanwhile.
        if own := [task for task in list(self._closing) if task.get_loop() is loop]:
            await asyncio.wait(own)


async def _limit_after(body: AsyncIterator[bytes], head_timeout: float, limit: asyncio.Timeout) -> AsyncIterator[bytes]:
    """The chunks of a body; after the last one, the limit of the response head begins."""
    async for chunk in body:
        yield chunk
    when = asyncio.get_running_loop().time() + head_timeout
    # The response head may have come before the end of the body.
    with suppress(RuntimeError):
        limit.reschedule(min(when, limit.when() or when))


async def await_step(step: Awaitable[T], deadline: float) -> T:
    """Await one step of an httpx transport within the deadline; httpx errors become `UpstreamError`.

    Args:
        deadline: loop time, `math.inf` for no limit.
    """
    with map_httpx_errors():
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            return await step


class HttpxResponse:
    """An httpx response as an `UpstreamResponse`."""

    def __init__(self, response: "httpx.Response", deadline: float, closing: set[asyncio.Task[None]]) -> None:
        self.head = ResponseHead(response.status_code, [(n.lower(), v) for n, v in response.headers.raw])
        self._response = response
        self._deadline = deadline
        self._closing = closing
        self._chunks = aiter(response.stream)  # type: ignore[arg-type]
        self._open = True

    def take(self) -> bytes | None:
        """None: httpx does not say whether a response is complete."""
        return None

    async def read(self) -> bytes:
        """See `UpstreamResponse`."""
        chunk = b""
        while self._open and not chunk:
            try:
                chunk = await await_step(anext(self._chunks), self._deadline)
            except StopAsyncIteration:
                self._open = False
                await self._response.aclose()
        return chunk

    def close(self) -> None:
        """See `UpstreamResponse`. A task closes the httpx response, because its `aclose` is a coroutine."""
        if self._open:
            self._open = False
            task = asyncio.get_running_loop().create_task(self._response.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def move_deadline(self, when: float) -> None:
        """See `UpstreamResponse`."""
        self._deadline = when

    def cancel_deadline(self) -> None:
        """See `UpstreamResponse`."""
        self._deadline = math.inf
