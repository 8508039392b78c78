"""The HTTP/1.1 client for asyncio: pooled, streaming in both directions, one deadline per exchange (RFC 9112).

It passes heads and bodies on as bytes and changes only their framing.
"""

import asyncio
import math
from collections.abc import AsyncIterator

from canary_mw.client.aio.connection import Connection
from canary_mw.client.aio.pool import Pool
from canary_mw.client.aio.timed_parser import Upload
from canary_mw.client.held import Held, held_by
from canary_mw.client.limits import Limits, client_closed, tried_before
from canary_mw.client.response import BaseResponse
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.request_writer import encode_body, encode_head
from canary_mw.rules.upstream import CircuitBreakers, Origin


class HTTP11Response(BaseResponse[Connection]):
    """See `BaseResponse`. Deadlines are loop times."""

    __slots__ = ()

    async def read(self) -> bytes:
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
            await connection.wait()
        return self._take_complete()


class HTTP11Client:
    """Sends requests to any number of origins, with a pool for each. Belongs to one event loop.

    Requests under circuit breakers share a pool only with requests under the same limits, as in clusters of Envoy.

    Args:
        limits: see `Limits`.
        contexts: TLS settings of https origins; by default those of the environment.
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
        """Send a request; return when the response head is received, even while the request body is still being sent.

        Args:
            body: of the length in `request.body`; ignored when that is None. A response that is complete before the
                end of the body cancels the iterator, in the next iteration of the loop.
            deadline: loop time for the whole exchange; by default `request.timeout` from now.
            fresh: use a new connection, not an idle one.

        Raises:
            UpstreamConnectError: no connection, or it was lost before the response began.
            UpstreamOverloaded: a limit of the circuit breakers is reached.
            UpstreamTimeout: the deadline, or the idle timeout, passed before the head was complete.
            UpstreamProtocolError: the request cannot be encoded safely, or the response is not valid HTTP/1.1.
            ClientError: the length of the body is not that of `request.body`.
            Exception: the error that `body` raised; the request is aborted, not completed.
        """
        data = encode_head(request)
        upload: Upload | None = None
        if request.body is not None:
            if isinstance(body, bytes | None):
                data += encode_body(body or b"", request.body)
            else:
                upload = body, request.body.length, request.timeout_after(body)
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
            # The upstream may have closed the idle connection at the moment it was taken.
            if not connection.reused or not request.replayable or upload is not None:
                raise
            with tried_before():
                connection = await self._acquire(origin, request, deadline, fresh=True)
                await connection.exchange(data, head_only, deadline, upload, options)
        return _response(connection)

    def take_idle(self, origin: Origin) -> Connection | None:
        """Take an idle connection of the pool without circuit breakers, or None."""
        pool = self._pools.get(origin)
        return None if pool is None else pool.take()

    def held(self) -> dict[Origin, Held]:
        """What is held, by origin; any thread may ask."""
        return held_by(list(self._pools.values()))

    async def _acquire(
        self, origin: Origin, request: UpstreamRequest, deadline: float, *, fresh: bool = False
    ) -> Connection:
        options = request.options
        if options.idle_timeout is not None:
            # Nothing is sent or received while the request waits for a connection.
            deadline = min(deadline, asyncio.get_running_loop().time() + options.idle_timeout)
        if request.timeout is not None and request.timeout_ends_at_head:
            deadline = min(deadline, asyncio.get_running_loop().time() + request.timeout)
        return await self._pool(origin, options.circuit_breakers).acquire(
            deadline, request.connect_timeout, fresh=fresh
        )

    async def aclose(self) -> None:
        """Close every connection. Exchanges in progress raise UpstreamConnectError."""
        self._closed = True
        error = client_closed()
        for pool in list(self._pools.values()):
            pool.close(error)
        for connection in list(self._alive):
            connection.fail(error)
        while self._alive:
            await next(iter(self._alive)).wait_closed()

    def close_after_loop(self) -> None:
        """Close every connection after the event loop was closed, from any thread; nothing waits for them any more."""
        self._closed = True
        for connection in list(self._alive):
            connection.close_after_loop()
        self._alive.clear()
        self._pools.clear()

    def _pool(self, origin: Origin, circuit_breakers: CircuitBreakers | None = None) -> Pool:
        key = origin if circuit_breakers is None else (origin, circuit_breakers)
        pool = self._pools.get(key)
        if pool is None:
            if self._closed:
                raise client_closed()
            pool = Pool(origin, self._limits, self._contexts, self._alive, self._remove_pool, circuit_breakers)
            self._pools[key] = pool
        return pool

    def _remove_pool(self, pool: Pool) -> None:
        # A request that got the pool before it was removed may fill it and empty it again.
        key = pool.origin if pool.circuit_breakers is None else (pool.origin, pool.circuit_breakers)
        if self._pools.get(key) is pool:
            del self._pools[key]


def _response(connection: Connection) -> HTTP11Response:
    """Build the response; when it is complete already, release the connection."""
    head = connection.head
    assert head is not None
    if not connection.complete:
        return HTTP11Response(head, None, connection)
    rest = connection.take_buffered()
    connection.release()
    return HTTP11Response(head, rest, None)
