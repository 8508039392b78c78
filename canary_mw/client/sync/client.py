"""The HTTP/1.1 client for threads: the counterpart of `client.aio.client`, with the same errors and limits.

All work is done by the calling thread. While it waits for the next chunk of a request body, no time limit is checked
and no early response is read. While it waits for the system's resolver, the deadline is not checked.
"""

import math
from collections.abc import Iterator
from time import monotonic
from weakref import WeakSet

from canary_mw.client.limits import Limits, tried_before
from canary_mw.client.response import BaseResponse
from canary_mw.client.sync.connection import SyncConnection, SyncUpload
from canary_mw.client.sync.pool import SyncPool
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forking import after_fork
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.request_writer import encode_body, encode_head
from canary_mw.locks import new_lock
from canary_mw.rules.upstream import CircuitBreakers, Origin

# Seconds between two searches for connections that were idle for too long.
_SWEEP_INTERVAL = 1.0


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


class SyncHTTP11Client:
    """Sends requests to any number of origins, with a pool for each. Any thread may use it.

    Pools are chosen as in `HTTP11Client`. Expired idle connections are closed by later requests, not by a timer. A
    forked child starts without connections: the descriptors of its parent's are closed in it, and nothing is sent.

    Args:
        limits: see `Limits`.
        contexts: TLS settings of https origins; by default those of the environment.
    """

    __slots__ = ("__weakref__", "_closed", "_contexts", "_limits", "_pools", "_sweep_at", "_sweep_lock")

    def __init__(self, *, limits: Limits = Limits(), contexts: TLSContexts | None = None) -> None:  # noqa: B008
        self._limits = limits
        self._contexts = contexts or TLSContexts()
        self._pools: dict[Origin | tuple[Origin, CircuitBreakers], SyncPool] = {}
        self._sweep_at = monotonic() + _SWEEP_INTERVAL
        self._sweep_lock = new_lock()
        self._closed = False
        _clients.add(self)

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

    def _acquire(
        self, origin: Origin, request: UpstreamRequest, deadline: float, *, fresh: bool = False
    ) -> SyncConnection:
        options = request.options
        if options.idle_timeout is not None:
            # Nothing is sent or received while the request waits for a connection.
            deadline = min(deadline, monotonic() + options.idle_timeout)
        if request.timeout is not None and request.timeout_ends_at_head:
            deadline = min(deadline, monotonic() + request.timeout)
        return self._pool(origin, options.circuit_breakers).acquire(deadline, request.connect_timeout, fresh=fresh)

    def close(self) -> None:
        """Close every connection. Exchanges in progress raise UpstreamConnectError."""
        self._closed = True
        for pool in list(self._pools.values()):
            pool.close()

    def _pool(self, origin: Origin, circuit_breakers: CircuitBreakers | None = None) -> SyncPool:
        key = origin if circuit_breakers is None else (origin, circuit_breakers)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools.setdefault(key, SyncPool(origin, self._limits, self._contexts, circuit_breakers))
            if self._closed:
                # `close` may have closed the other pools before this one was added.
                pool.close()
        return pool

    def _sweep(self, now: float) -> None:
        """Close expired idle connections, and remove the pools that are empty."""
        if not self._sweep_lock.acquire(blocking=False):
            # Another thread sweeps. Two at once could remove a pool that was added after the other removed its key.
            return
        try:
            self._sweep_at = now + _SWEEP_INTERVAL
            for key, pool in list(self._pools.items()):
                if pool.sweep(now):
                    del self._pools[key]
        finally:
            self._sweep_lock.release()

    def abandon(self) -> None:
        """In a forked child: drop the connections of the parent."""
        pools, self._pools = self._pools, {}
        self._sweep_lock = new_lock()
        for pool in pools.values():
            pool.abandon()


def _response(connection: SyncConnection) -> SyncHTTP11Response:
    """Build the response; when it is complete already, release the connection."""
    head = connection.head
    assert head is not None
    if not connection.complete:
        return SyncHTTP11Response(head, None, connection)
    rest = connection.take_buffered()
    connection.release()
    return SyncHTTP11Response(head, rest, None)


def _abandon_all() -> None:
    for client in list(_clients):
        client.abandon()


_clients: "WeakSet[SyncHTTP11Client]" = WeakSet()
after_fork(_abandon_all)
