"""The HTTP/1.1 client of the upstream leg: pooled, streaming both ways, one deadline per exchange (RFC 9112).

It passes heads and bodies on as bytes and decides nothing about them but their framing.
"""

import asyncio
import math
from collections.abc import AsyncIterator

from canary_mw.client.aio.connection import Connection, Upload
from canary_mw.client.aio.pool import Pool
from canary_mw.client.limits import Limits
from canary_mw.client.response import BaseResponse
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.request_writer import encode_body, encode_head
from canary_mw.rules.upstream import CircuitBreakers, Origin


class HTTP11Response(BaseResponse[Connection]):
    """See `BaseResponse`; deadlines are loop times."""

    __slots__ = ()

    async def read(self) -> bytes:
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
            await connection.wait()
        return self._taken_at_end()


class HTTP11Client:
    """Sends requests to any number of origins, each with a pool of its own; belongs to one event loop.

    Requests under limits of `circuit_breakers` share a pool with those under the same limits only, as Envoy's clusters.

    Args:
        limits: see `Limits`.
        contexts: for https origins; by default those of the environment.
    """

    __slots__ = ("_alive", "_closed", "_contexts", "_limits", "_pools")

    def __init__(self, *, limits: Limits = Limits(), contexts: TLSContexts | None = None) -> None:  # noqa: B008
        self._limits = limits
        self._contexts = contexts or TLSContexts()
        self._pools: dict[Origin | tuple[Origin, CircuitBreakers], Pool] = {}
        self._alive: set[Connection] = set()
        self._closed = False

    async def send(
        self,
        origin: Origin,
        request: UpstreamRequest,
        body: AsyncIterator[bytes] | bytes | None = None,
        deadline: float | None = None,
        *,
        fresh: bool = False,
    ) -> HTTP11Response:
        """Send a request; return when the head of the answer is there, even if the body is still on its way up.

        Args:
            body: ignored when `request.body` is None; else as long as that says. An answer that is complete before it
                cancels the iterator, which takes a turn of the loop.
            deadline: loop time for all of the exchange; by default `request.timeout` from now.
            fresh: over a connection that nothing was sent on before.

        Raises:
            UpstreamConnectError: no connection, or one lost before the answer began.
            UpstreamOverloaded: over a limit of `circuit_breakers`.
            UpstreamTimeout: the deadline, or the time without a byte, passed before the head was complete.
            UpstreamProtocolError: the request must not be written as it is, or the answer is not clean HTTP/1.1.
            ClientError: the body is longer or shorter than `request.body` says.
            Exception: whatever `body` raised; the request was cut off then, not completed.
        """
        data = encode_head(request)
        upload: Upload | None = None
        if request.body is not None:
            if isinstance(body, bytes | None):
                data += encode_body(body or b"", request.body)
            else:
                upload = body, request.body.length
        if deadline is None:
            deadline = math.inf if request.timeout is None else asyncio.get_running_loop().time() + request.timeout
        options = request.options
        connection = None if fresh else self._pool(origin, options.circuit_breakers).take()
        if connection is None:
            connection = await self._acquire(origin, request, deadline, fresh=fresh)
        head_only = request.method == "HEAD"
        try:
            await connection.exchange(data, head_only, deadline, upload, options)
        except UpstreamConnectError:
            # The upstream may have closed the idle connection just as it was taken.
            if not connection.reused or not request.replayable or upload is not None:
                raise
            connection = await self._acquire(origin, request, deadline, fresh=True)
            await connection.exchange(data, head_only, deadline, upload, options)
        return _response(connection)

    def idle(self, origin: Origin) -> Connection | None:
        """An idle connection, now the caller's, or None; without limits of `circuit_breakers`."""
        pool = self._pools.get(origin)
        return None if pool is None else pool.take()

    async def _acquire(
        self, origin: Origin, request: UpstreamRequest, deadline: float, *, fresh: bool = False
    ) -> Connection:
        options = request.options
        if options.idle_timeout is not None:
            # No byte goes anywhere while the request waits for a connection.
            deadline = min(deadline, asyncio.get_running_loop().time() + options.idle_timeout)
        return await self._pool(origin, options.circuit_breakers).acquire(
            deadline, request.connect_timeout, fresh=fresh
        )

    async def aclose(self) -> None:
        """Close every connection; whoever still waits for an answer gets UpstreamConnectError."""
        self._closed = True
        error = UpstreamConnectError("the client was closed")
        for pool in list(self._pools.values()):
            pool.close(error)
        for connection in list(self._alive):
            connection.fail(error)
        while self._alive:
            await next(iter(self._alive)).wait_closed()

    def _pool(self, origin: Origin, breakers: CircuitBreakers | None = None) -> Pool:
        key = origin if breakers is None else (origin, breakers)
        pool = self._pools.get(key)
        if pool is None:
            if self._closed:
                raise UpstreamConnectError("the client was closed")
            pool = Pool(origin, self._limits, self._contexts, self._alive, self._drop, breakers)
            self._pools[key] = pool
        return pool

    def _drop(self, pool: Pool) -> None:
        # A request that found the pool before it was dropped may fill and empty it once more.
        key = pool.origin if pool.breakers is None else (pool.origin, pool.breakers)
        if self._pools.get(key) is pool:
            del self._pools[key]


def _response(connection: Connection) -> HTTP11Response:
    """An answer that is complete already needs its connection no more."""
    head = connection.head
    assert head is not None
    if not connection.complete:
        return HTTP11Response(head, None, connection)
    rest = connection.take_pieces()
    connection.release()
    return HTTP11Response(head, rest, None)
