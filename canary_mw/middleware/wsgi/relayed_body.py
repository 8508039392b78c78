"""Responses to a WSGI server: replies of our own, and responses of upstreams as they come."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from canary_mw.client.interfaces import SyncResponse
from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.headers import is_event_stream
from canary_mw.forwarding.messages import Relay, Reply
from canary_mw.forwarding.replies import reason_of
from canary_mw.http.headers import HOP_BY_HOP_HEADERS
from canary_mw.http.messages import NO_BODY_STATUSES, RequestHead
from canary_mw.middleware.wsgi.in_process import status_line, text_pairs
from canary_mw.types import StartResponse
from canary_mw.upstreams.body_buffer import SyncReplayBuffer


class WSGIResult(NamedTuple):
    """The body for the server, and why the response is not the upstream's; None when it is."""

    body: Iterable[bytes]
    reason: str | None = None


def send_reply(reply: Reply, start_response: StartResponse) -> WSGIResult:
    """Start a reply; returns its body and its reason for the access log."""
    start_response(status_line(reply.status), text_pairs(reply.headers or ()))
    return WSGIResult([reply.body] if reply.body else [], reason_of(reply))


def relay(relayed: "RelayedBody", outcome: Relay, head: RequestHead, start_response: StartResponse) -> Iterable[bytes]:
    """Relay a response as it comes; the body is one chunk when it is complete already.

    Raises:
        UpstreamError: the upstream failed before the first byte of the body, so that a reply can be sent instead.
    """
    status, headers = outcome.head.status, outcome.head.headers
    if status == 426:
        # Servers take no hop-by-hop headers from apps (PEP 3333).
        headers = [pair for pair in headers if pair[0] not in HOP_BY_HOP_HEADERS]
    body = b"" if head.method == "HEAD" or status in NO_BODY_STATUSES else relayed.response.take()
    if body is None:
        if is_event_stream(headers):
            relayed.response.cancel_deadline()
        # Servers send the head with the first chunk of the body (PEP 3333), so waiting for it here delays nothing.
        relayed.read_first()
        start_response(status_line(status), text_pairs(headers))
        return relayed
    relayed.close()
    sized = any(name == b"content-length" for name, _ in headers)
    if head.http_version == "1.0" and body and not sized:
        # The server would send chunks, which HTTP/1.0 does not have.
        headers.append((b"content-length", b"%d" % len(body)))
        sized = True
    start_response(status_line(status), text_pairs(headers))
    # Some servers add the length of a list of one chunk. A response without a length gets none, however fast it came.
    chunks = [body] if body else []
    return chunks if sized else iter(chunks)


class RelayedBody:
    """The body of a response as it comes; an iterator.

    Closing it releases the upstream's connection, whether it was read to its end or not.

    Attributes:
        net: the safety net below the request, once its response has begun.
    """

    def __init__(
        self, response: SyncResponse, on_error: Callable[[UpstreamError], None], buffer: SyncReplayBuffer | None
    ) -> None:
        self.response = response
        self._on_error = on_error
        self._buffer = buffer
        self._first_chunk: bytes | None = None
        self.net: SafetyNet | None = None

    def read_first(self) -> None:
        """Wait for the first chunk; raises UpstreamError when it does not come."""
        self._first_chunk = self._read()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk, self._first_chunk = self._first_chunk, None
        if chunk is None:
            chunk = self._read()
        if not chunk:
            self.close()
            raise StopIteration
        return chunk

    def _read(self) -> bytes:
        try:
            return self.response.read()
        except UpstreamError as exc:
            if self.net is not None:
                self.net.broke()
            self.close()
            self._on_error(exc)
            raise exc.with_traceback(None) from None

    def close(self) -> None:
        """Release the connection."""
        self.response.close()
        if self._buffer is not None:
            self._buffer.close()
        if self.net is not None:
            self.net.close()
