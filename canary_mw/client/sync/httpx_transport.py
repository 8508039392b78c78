"""Synchronous httpx transports as a `SyncTransport`, and as an asynchronous httpx transport."""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from canary_mw.client.httpx_requests import httpx_request, map_httpx_errors, step_limit
from canary_mw.client.interfaces import SyncBody
from canary_mw.exceptions import UpstreamTimeout
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import Origin

if TYPE_CHECKING:
    import httpx


class SyncHttpxTransport:
    """Sends requests over a synchronous httpx transport.

    The deadline is checked between two steps of the transport. The timeout of each step is the time that remained when
    the request was sent; a step that reads a body has the time that remained when the response head was there.
    """

    def __init__(self, transport: "httpx.BaseTransport") -> None:
        self._transport = transport

    def send(self, origin: Origin, request: UpstreamRequest, body: SyncBody, deadline: float) -> "SyncHttpxResponse":
        """Send the request and wait for the response head."""
        import httpx

        class BodyStream(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                assert body is not None
                assert not isinstance(body, bytes)
                return body

        remaining = request.timeout_after(body) or max(deadline - monotonic(), 0.001)
        stream = httpx.ByteStream(body or b"") if isinstance(body, bytes | None) else BodyStream()
        outgoing = httpx_request(origin, request, stream, remaining)
        with map_httpx_errors(), _timeouts_at_deadline(deadline):
            return SyncHttpxResponse(
                self._transport.handle_request(outgoing), deadline, outgoing, request.options.idle_timeout
            )


@contextmanager
def _timeouts_at_deadline(deadline: float) -> Iterator[None]:
    """Raise UpstreamTimeout for any httpx timeout at the deadline, those of connect and pool included."""
    import httpx

    try:
        yield
    except httpx.TimeoutException as exc:
        if monotonic() >= deadline:
            raise UpstreamTimeout(str(exc) or "no answer before the deadline", sent=True) from exc
        raise


class SyncHttpxResponse:
    """A synchronous httpx response as a `SyncResponse`."""

    def __init__(
        self, response: "httpx.Response", deadline: float, request: "httpx.Request", idle_timeout: float | None
    ) -> None:
        self.head = ResponseHead(response.status_code, [(n.lower(), v) for n, v in response.headers.raw])
        self._response = response
        self._deadline = deadline
        self._idle_timeout = idle_timeout
        # A transport over httpcore reads it when the first chunk of the body is asked for.
        self._timeouts: dict[str, float | None] = request.extensions["timeout"]
        self._chunks = iter(response.stream)  # type: ignore[arg-type]
        self._open = True

    def take(self) -> bytes | None:
        """None: httpx does not say whether a response is complete."""
        return None

    def read(self) -> bytes:
        """See `UpstreamResponse`."""
        chunk = b""
        while self._open and not chunk:
            if monotonic() >= self._deadline:
                raise UpstreamTimeout("the answer was not complete before the deadline", sent=True)
            with map_httpx_errors():
                found = next(self._chunks, None)
            if found is None:
                self.close()
            chunk = found or b""
        return chunk

    def close(self) -> None:
        """See `UpstreamResponse`."""
        if self._open:
            self._open = False
            self._response.close()

    def move_deadline(self, when: float) -> None:
        """See `UpstreamResponse`."""
        self._deadline = when
        self._timeouts["read"] = step_limit(self._idle_timeout, max(when - monotonic(), 0.001))

    def cancel_deadline(self) -> None:
        """See `UpstreamResponse`."""
        self.move_deadline(math.inf)


class ThreadedTransport:
    """A synchronous httpx transport as an asynchronous one. Response bodies are read and dropped.

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
        return await self._call(lambda: self._send(request))

    def _send(self, request: "httpx.Request") -> "httpx.Response":
        import httpx

        response = self._transport.handle_request(request)
        try:
            for _ in response.stream:  # type: ignore[union-attr]
                pass
            return httpx.Response(response.status_code)
        finally:
            response.close()
