"""What carries a request to an origin in a thread: the twin of `transports`."""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from canary_mw.client.httpx_requests import httpx_request, map_httpx_errors
from canary_mw.client.interfaces import SyncBody
from canary_mw.exceptions import UpstreamTimeout
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import Origin

if TYPE_CHECKING:
    import httpx


class SyncHttpxTransport:
    """Carries requests over an httpx transport for threads.

    A thread cannot be called back: the deadline is looked at between two steps of the transport, and each step is given
    the seconds that were left when the request went out.
    """

    def __init__(self, transport: "httpx.BaseTransport") -> None:
        self._transport = transport

    def send(self, origin: Origin, request: UpstreamRequest, body: SyncBody, deadline: float) -> "SyncHttpxResponse":
        """Send and wait for the head."""
        import httpx

        class Pieces(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                assert body is not None
                assert not isinstance(body, bytes)
                return body

        left = max(deadline - monotonic(), 0.001)
        stream = httpx.ByteStream(body or b"") if isinstance(body, bytes | None) else Pieces()
        outgoing = httpx_request(origin, request, stream, left)
        with map_httpx_errors(), _in_time(deadline):
            return SyncHttpxResponse(self._transport.handle_request(outgoing), deadline)


@contextmanager
def _in_time(deadline: float) -> Iterator[None]:
    """What failed for want of time failed at the deadline, whatever it was waiting for."""
    import httpx

    try:
        yield
    except httpx.TimeoutException as exc:
        if monotonic() >= deadline:
            raise UpstreamTimeout(str(exc) or "no answer before the deadline", sent=True) from exc
        raise


class SyncHttpxResponse:
    """An httpx response for threads behind the interface of our own client."""

    def __init__(self, response: "httpx.Response", deadline: float) -> None:
        self.head = ResponseHead(response.status_code, [(n.lower(), v) for n, v in response.headers.raw])
        self._response = response
        self._deadline = deadline
        self._pieces = iter(response.stream)  # type: ignore[arg-type]
        self._open = True

    def take(self) -> bytes | None:
        """None: a transport does not tell whether more will come."""
        return None

    def read(self) -> bytes:
        """See `UpstreamResponse`."""
        piece = b""
        while self._open and not piece:
            if monotonic() >= self._deadline:
                raise UpstreamTimeout("the answer was not complete before the deadline", sent=True)
            with map_httpx_errors():
                found = next(self._pieces, None)
            if found is None:
                self.close()
            piece = found or b""
        return piece

    def close(self) -> None:
        """See `UpstreamResponse`."""
        if self._open:
            self._open = False
            self._response.close()

    def move_deadline(self, when: float) -> None:
        """See `UpstreamResponse`."""
        self._deadline = when

    def cancel_deadline(self) -> None:
        """See `UpstreamResponse`."""
        self._deadline = math.inf


class ThreadedTransport:
    """An httpx transport for threads, as one of a loop; the bodies of its answers are read and dropped.

    Args:
        call: runs a function in a thread.
    """

    def __init__(
        self,
        transport: "httpx.BaseTransport",
        call: "Callable[[Callable[[], httpx.Response]], Awaitable[httpx.Response]]",
    ) -> None:
        self._transport = transport
        self._call = call

    async def handle_async_request(self, request: "httpx.Request") -> "httpx.Response":
        """See httpx."""
        return await self._call(lambda: self._answered(request))

    def _answered(self, request: "httpx.Request") -> "httpx.Response":
        import httpx

        response = self._transport.handle_request(request)
        try:
            for _ in response.stream:  # type: ignore[union-attr]
                pass
            return httpx.Response(response.status_code)
        finally:
            response.close()
