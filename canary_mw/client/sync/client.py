"""The HTTP/1.1 client of the upstream leg for threads; the twin of `http11`, with the same errors and limits.

What differs follows from there being nobody but the caller's thread to do anything: while it waits for the next piece
of a request body, no limit is looked at and no early answer is seen; while it waits for the system's resolver, no
deadline is.
"""

import math
from collections.abc import Iterator
from threading import Lock
from time import monotonic
from weakref import WeakSet

from canary_mw.client.limits import Limits
from canary_mw.client.response import BaseResponse
from canary_mw.client.sync.connection import SyncConnection, SyncUpload
from canary_mw.client.sync.pool import SyncPool
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forking import after_fork
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.request_writer import encode_body, encode_head
from canary_mw.rules.upstream import CircuitBreakers, Origin

# Seconds between two looks for connections that were idle for too long.
_SWEEP = 1.0


class SyncHTTP11Response(BaseResponse[SyncConnection]):
    """See `BaseResponse`; deadlines are monotonic times. One thread at a time uses it."""

    __slots__ = ()

    def take(self) -> bytes | None:
        """See `BaseResponse`."""
        if self._connection is not None:
            self._connection.look()
        return super().take()

    def read(self) -> bytes:
        """What has come of the body, at least one byte; b"" at its clean end.

        Raises:
            UpstreamProtocolError: the answer ended before it was complete, or was closed here.
            UpstreamTimeout: the deadline passed.
            Exception: whatever the body of the request raised while it was uploaded.
        """
        connection = self._connection
        while connection is not None and not connection.complete:
            if data := connection.take_pieces():
                return data
            if connection.error is not None:
                raise connection.error
            connection.wait()
        return self._taken_at_end()


class SyncHTTP11Client:
    """Sends requests to any number of origins, each with a pool of its own; any thread may use it.

    Pools are as those of `HTTP11Client`. Idle connections are closed as other requests come along, not by a timer. A
    forked child starts with no connection; those of its parent are closed in it without a byte.

    Args:
        limits: see `Limits`.
        contexts: for https origins; by default those of the environment.
    """

    __slots__ = ("__weakref__", "_closed", "_contexts", "_limits", "_pools", "_sweep_at", "_sweeping")

    def __init__(self, *, limits: Limits = Limits(), contexts: TLSContexts | None = None) -> None:  # noqa: B008
        self._limits = limits
        self._contexts = contexts or TLSContexts()
        self._pools: dict[Origin | tuple[Origin, CircuitBreakers], SyncPool] = {}
        self._sweep_at = monotonic() + _SWEEP
        self._sweeping = Lock()
        self._closed = False
        _clients.add(self)

    def send(
        self,
        origin: Origin,
        request: UpstreamRequest,
        body: Iterator[bytes] | bytes | None = None,
        deadline: float | None = None,
    ) -> SyncHTTP11Response:
        """Send a request; return when the head of the answer is there.

        Args:
            body: ignored when `request.body` is None; else as long as that says. When the head is there before its
                end, the rest is sent as the answer is read, and no more of it once the answer is complete.
            deadline: monotonic time for all of the exchange; by default `request.timeout` from now.

        Raises:
            UpstreamConnectError: no connection, or one lost before the answer began.
            UpstreamOverloaded: over a limit of `circuit_breakers`.
            UpstreamTimeout: the deadline, or the time without a byte, passed before the head was complete.
            UpstreamProtocolError: the request must not be written as it is, or the answer is not clean HTTP/1.1.
            ClientError: the body is longer or shorter than `request.body` says.
            Exception: whatever `body` raised; the request was cut off then, not completed.
        """
        data = encode_head(request)
        upload: SyncUpload | None = None
        if request.body is not None:
            if request.body.length == 0 and not isinstance(body, bytes | None):
                # Without waiting for its end: the upstream has the whole of it at once, and may have answered before.
                body = b"".join(body)
            if isinstance(body, bytes | None):
                data += encode_body(body or b"", request.body)
            else:
                upload = body, request.body.length
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
            # The upstream may have closed the idle connection just as it was taken.
            if not connection.reused or not request.replayable or upload is not None:
                raise
            connection = self._acquire(origin, request, deadline, fresh=True)
            connection.exchange(data, head_only, deadline, upload, options)
        return _response(connection)

    def _acquire(
        self, origin: Origin, request: UpstreamRequest, deadline: float, *, fresh: bool = False
    ) -> SyncConnection:
        options = request.options
        if options.idle_timeout is not None:
            # No byte goes anywhere while the request waits for a connection.
            deadline = min(deadline, monotonic() + options.idle_timeout)
        return self._pool(origin, options.circuit_breakers).acquire(deadline, request.connect_timeout, fresh=fresh)

    def close(self) -> None:
        """Close every connection; whoever still waits for an answer gets UpstreamConnectError."""
        self._closed = True
        for pool in list(self._pools.values()):
            pool.close()

    def _pool(self, origin: Origin, breakers: CircuitBreakers | None = None) -> SyncPool:
        key = origin if breakers is None else (origin, breakers)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools.setdefault(key, SyncPool(origin, self._limits, self._contexts, breakers))
            if self._closed:
                # Perhaps since others were closed, which did not see this one.
                pool.close()
        return pool

    def _sweep(self, now: float) -> None:
        """Close what was idle for too long, and forget the origins that nothing is left of."""
        if not self._sweeping.acquire(blocking=False):
            # One thread at a time: who deletes must not meet the pool that was made after another had deleted.
            return
        try:
            self._sweep_at = now + _SWEEP
            for key, pool in list(self._pools.items()):
                if pool.sweep(now):
                    del self._pools[key]
        finally:
            self._sweeping.release()

    def abandon(self) -> None:
        """In a forked child: what is open belongs to the parent."""
        pools, self._pools = self._pools, {}
        self._sweeping = Lock()
        for pool in pools.values():
            pool.abandon()


def _response(connection: SyncConnection) -> SyncHTTP11Response:
    """An answer that is complete already needs its connection no more."""
    head = connection.head
    assert head is not None
    if not connection.complete:
        return SyncHTTP11Response(head, None, connection)
    rest = connection.take_pieces()
    connection.release()
    return SyncHTTP11Response(head, rest, None)


def _abandon_all() -> None:
    for client in list(_clients):
        client.abandon()


_clients: "WeakSet[SyncHTTP11Client]" = WeakSet()
after_fork(_abandon_all)
