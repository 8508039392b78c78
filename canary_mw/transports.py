"""What carries a request to an origin, and httpx transports as one kind of it.

Errors of httpx are translated here and nowhere else, and httpx is loaded only when a transport is used.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from .exceptions import UpstreamConnectError, UpstreamProtocolError, UpstreamTimeout
from .messages import Origin, ResponseHead, UpstreamRequest

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
RequestBody = bytes | AsyncIterator[bytes] | None


class UpstreamResponse(Protocol):
    """An answer whose head is there; see `http11.Response` for the contract."""

    @property
    def head(self) -> ResponseHead:
        """Status and headers."""

    def take(self) -> bytes | None:
        """All that is left of the body, when all of it is there."""

    async def read(self) -> bytes:
        """The next piece; b"" at the clean end, UpstreamError at any other."""

    def close(self) -> None:
        """Done with it, however far it was read."""

    def move_deadline(self, when: float) -> None:
        """Put the deadline off to a later loop time."""

    def cancel_deadline(self) -> None:
        """From here on it may take as long as it wants."""


class Sender(Protocol):
    """What can carry a request to an origin."""

    async def send(
        self, origin: Origin, request: UpstreamRequest, body: RequestBody, deadline: float
    ) -> UpstreamResponse:
        """Return when the head of the answer is there; `deadline` is a loop time for all of the exchange."""


def framed_headers(request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
    """The headers of a request with those of its framing."""
    if request.body is None:
        return request.headers
    length = request.body.length
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    return [*request.headers, framing]


class AsyncTransport(Protocol):
    """What is used of `httpx.AsyncBaseTransport`."""

    async def handle_async_request(self, request: "httpx.Request") -> "httpx.Response":
        """See httpx."""


class HttpxSender:
    """Carries requests over an httpx transport."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._closing: set[asyncio.Task[None]] = set()

    async def send(
        self, origin: Origin, request: UpstreamRequest, body: RequestBody, deadline: float
    ) -> "HttpxResponse":
        """Send and wait for the head, both within the deadline."""
        import httpx

        class Pieces(httpx.AsyncByteStream):
            def __aiter__(self) -> AsyncIterator[bytes]:
                assert body is not None
                assert not isinstance(body, bytes)
                return body

        stream = httpx.ByteStream(body or b"") if isinstance(body, bytes | None) else Pieces()
        outgoing = httpx_request(origin, request, stream)
        response = await translated(self._transport.handle_async_request(outgoing), deadline)
        return HttpxResponse(response, deadline, self._closing)

    async def settle(self) -> None:
        """Wait for the responses that are being closed."""
        if self._closing:
            await asyncio.wait(self._closing)


def httpx_request(
    origin: Origin,
    request: UpstreamRequest,
    stream: "httpx.SyncByteStream | httpx.AsyncByteStream",
    left: float = math.inf,
) -> "httpx.Request":
    """The request as a transport takes it.

    Args:
        left: seconds for each step of the transport.
    """
    import httpx

    url = httpx.URL(scheme=origin.scheme, host=origin.host, port=origin.port, path="/")
    if request.target[:1] == b"/" and request.target[:2] != b"//":
        url = url.copy_with(raw_path=request.target)
    # The deadline of a loop is ours; these end what stands still, an event stream too, and a thread that waits.
    idle = _limit(request.options.idle_timeout, left)
    connect = _limit(request.connect_timeout, left)
    timeout = {"connect": connect, "read": idle, "write": idle, "pool": _limit(None, left)}
    return httpx.Request(
        request.method,
        url,
        headers=framed_headers(request),
        stream=stream,
        extensions={"target": request.target, "timeout": timeout},
    )


def _limit(seconds: float | None, left: float) -> float | None:
    limit = left if seconds is None else min(seconds, left)
    return None if limit == math.inf else limit


@contextmanager
def our_errors() -> Iterator[None]:
    """Raise our errors in place of those of httpx."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
        raise UpstreamConnectError(str(exc)) from exc
    except (httpx.TimeoutException, TimeoutError) as exc:
        raise UpstreamTimeout(str(exc) or "no answer before the deadline", sent=True) from exc
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as exc:
        raise UpstreamProtocolError(str(exc), sent=True) from exc


async def translated(step: Awaitable[T], deadline: float) -> T:
    """Await one step of an httpx transport; raises our errors in place of its own.

    Args:
        deadline: loop time, `math.inf` for no limit.
    """
    with our_errors():
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            return await step


class HttpxResponse:
    """An httpx response behind the interface of our own client."""

    def __init__(self, response: "httpx.Response", deadline: float, closing: set[asyncio.Task[None]]) -> None:
        self.head = ResponseHead(response.status_code, [(n.lower(), v) for n, v in response.headers.raw])
        self._response = response
        self._deadline = deadline
        self._closing = closing
        self._pieces = aiter(response.stream)  # type: ignore[arg-type]
        self._open = True

    def take(self) -> bytes | None:
        """None: a transport does not tell whether more will come."""
        return None

    async def read(self) -> bytes:
        """See `UpstreamResponse`."""
        piece = b""
        while self._open and not piece:
            try:
                piece = await translated(anext(self._pieces), self._deadline)
            except StopAsyncIteration:
                self._open = False
                await self._response.aclose()
        return piece

    def close(self) -> None:
        """See `UpstreamResponse`; a task closes it, because a transport can only be awaited."""
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
