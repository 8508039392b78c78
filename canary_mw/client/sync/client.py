"""The HTTP/1.1 client for threads: the counterpart of `client.aio.client`, with the same errors and limits.

All work is done by the calling thread. While it waits for the next chunk of a request body, no time limit is checked
and no early response is read. While it waits for the system's resolver, the deadline is not checked.
"""

import math
import socket
from collections.abc import Iterator
from functools import partial
from time import monotonic

from canary_mw.client.limits import Limits, tried_before
from canary_mw.client.response import BaseResponse
from canary_mw.client.sync.connection import SyncConnection, SyncUpload
from canary_mw.client.sync.pool import SyncPool
from canary_mw.client.sync.pools import SyncPools
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.request_writer import encode_body, encode_head
from canary_mw.rules.upstream import Origin


class SyncHTTP11Response(BaseResponse[SyncConnection]):
    """See `BaseResponse`. Deadlines are monotonic times. One thread at a time uses it."""

    __slots__ = ()

    def take(self) -> bytes | None:
        """See `BaseResponse`."""
        if self._connection is not None:
            self._connection.read_available()
        return super().take()

    def read(self) -> bytes:
        """Return the body bytes received so far, at least one; b"" at the end of a complete body.

        Raises:
            UpstreamProtocolError: the response ended before it was complete, or `close` was called.
            UpstreamTimeout: the deadline, or the idle timeout, passed.
            Exception: the error that the request body raised.
        """
        connection = self._connection
        while connection is not None and not connection.complete:
            if data := connection.take_buffered():
                return data
            if connection.error is not None:
                raise connection.error
            connection.wait()
        return self._take_complete()


class SyncHTTP11Client(SyncPools[SyncConnection]):
    """Sends requests to any number of origins, with a pool for each; see `SyncPools`.

    Args:
        limits: see `Limits`.
        contexts: TLS settings of https origins; by default those of the environment.
    """

    __slots__ = ()

    def __init__(self, *, limits: Limits = Limits(), contexts: TLSContexts | None = None) -> None:  # noqa: B008
        super().__init__(limits, contexts or TLSContexts(), partial(_make_connection, limits))

    def send(
        self,
        origin: Origin,
        request: UpstreamRequest,
        body: Iterator[bytes] | bytes | None = None,
        deadline: float | None = None,
    ) -> SyncHTTP11Response:
        """Send a request; return when the response head is received.

        Args:
            body: of the length in `request.body`; ignored when that is None. When the response head is received before
                the end of the body, the rest is sent while the response is read, and dropped once it is complete.
            deadline: monotonic time for the whole exchange; by default `request.timeout` from now.

        Raises:
            UpstreamConnectError: no connection, or it was lost before the response began.
            UpstreamOverloaded: a limit of the circuit breakers is reached.
            UpstreamTimeout: the deadline, or the idle timeout, passed before the head was complete.
            UpstreamProtocolError: the request cannot be encoded safely, or the response is not valid HTTP/1.1.
            ClientError: the length of the body is not that of `request.body`.
            Exception: the error that `body` raised; the request is aborted, not completed.
        """
        data = encode_head(request)
        upload: SyncUpload | None = None
        if request.body is not None:
            if request.body.length == 0 and not isinstance(body, bytes | None):
                # Sent with the head, not after it: the upstream may respond before an iterator without chunks ends.
                body = b"".join(body)
            if isinstance(body, bytes | None):
                data += encode_body(body or b"", request.body)
            else:
                upload = body, request.body.length, request.timeout_after(body)
        now = monotonic()
        if now >= self._sweep_at:
            self._sweep(now)
        if deadline is None:
            deadline = math.inf if request.timeout is None else now + request.timeout
        options = request.options
        connection = self._pool(origin, options.circuit_breakers).take() or self._acquire(origin, request, deadline)
        head_only = request.method == "HEAD"
        try:
            connection.exchange(data, head_only, deadline, upload, options)
        except UpstreamConnectError:
            # The upstream may have closed the idle connection at the moment it was taken.
            if not connection.reused or not request.replayable or upload is not None:
                raise
            with tried_before():
                connection = self._acquire(origin, request, deadline, fresh=True)
                connection.exchange(data, head_only, deadline, upload, options)
        return _response(connection)


def _response(connection: SyncConnection) -> SyncHTTP11Response:
    """Build the response; when it is complete already, release the connection."""
    head = connection.head
    assert head is not None
    if not connection.complete:
        return SyncHTTP11Response(head, None, connection)
    rest = connection.take_buffered()
    connection.release()
    return SyncHTTP11Response(head, rest, None)


def _make_connection(limits: Limits, pool: SyncPool[SyncConnection], sock: socket.socket) -> SyncConnection:
    return SyncConnection(pool, pool.origin.authority, limits.max_head, sock)
