"""The client for threads behind the interface of that for asyncio, so that the same tests run for both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from canary_mw.client.interfaces import UpstreamResponse
from canary_mw.client.limits import Limits
from canary_mw.client.sync.client import SyncHTTP11Client, SyncHTTP11Response
from canary_mw.client.tls import TLSContexts
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import Origin

T = TypeVar("T")
_THREADS = 64


class Client(Protocol):
    """What tests need of a client."""

    async def send(
        self,
        origin: Origin,
        request: UpstreamRequest,
        body: AsyncIterator[bytes] | bytes | None = None,
        deadline: float | None = None,
    ) -> UpstreamResponse:
        """See `HTTP11Client.send`."""

    async def aclose(self) -> None:
        """See `HTTP11Client.aclose`."""


class MakeClient(Protocol):
    """One of the classes that tests are for."""

    def __call__(self, *, limits: Limits = ..., contexts: TLSContexts | None = ...) -> Client:
        """A client."""


class ThreadedClient:
    """`SyncHTTP11Client`, awaited."""

    def __init__(self, *, limits: Limits = Limits(), contexts: TLSContexts | None = None) -> None:  # noqa: B008
        self.client = SyncHTTP11Client(limits=limits, contexts=contexts)
        self._threads = ThreadPoolExecutor(_THREADS)

    async def send(
        self,
        origin: Origin,
        request: UpstreamRequest,
        body: AsyncIterator[bytes] | bytes | None = None,
        deadline: float | None = None,
    ) -> "ThreadedResponse":
        """In a thread; the chunks of an iterator are awaited in the loop."""
        given = body if isinstance(body, bytes | None) else _chunks(body, asyncio.get_running_loop())
        response = await self.call(lambda: self.client.send(origin, request, given, deadline))
        return ThreadedResponse(response, self)

    async def call(self, function: Callable[[], T]) -> T:
        """What a function returns in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def aclose(self) -> None:
        """Close the client, which ends what still runs in the threads."""
        self.client.close()
        await asyncio.to_thread(self._threads.shutdown)


class ThreadedResponse:
    """`SyncHTTP11Response`, awaited."""

    def __init__(self, response: SyncHTTP11Response, client: ThreadedClient) -> None:
        self._response = response
        self._client = client
        self.head = response.head
        self.take = response.take
        self.close = response.close
        self.move_deadline = response.move_deadline
        self.cancel_deadline = response.cancel_deadline

    async def read(self) -> bytes:
        """In a thread."""
        return await self._client.call(self._response.read)


def _chunks(body: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    async def following() -> bytes | None:
        return await anext(body, None)

    while (chunk := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield chunk
