"""The HTTP/1.1 client of the upstream leg: pooled, streaming both ways, one deadline per exchange (RFC 9112).

It passes heads and bodies on as bytes and decides nothing about them but their framing.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator

from .connection import TIMER_SLACK, Connection, Upload, wrong_length
from .exceptions import UpstreamConnectError, UpstreamProtocolError
from .messages import Body, Breakers, Origin, ResponseHead, UpstreamRequest
from .pool import Limits, Pool

__all__ = ["TIMER_SLACK", "HTTP11Client", "Limits", "Response"]

# What may stand within a line, of a header value say; then in a target; then in a name or method.
_INNER = bytes(c for c in range(256) if c not in b"\r\n\0")
_TARGET = bytes(range(0x21, 0x7F))
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Response:
    """An answer whose head is there; its body is read once, by `take` or `read`.

    Attributes:
        head: status and headers, as received.
    """

    __slots__ = ("_connection", "_rest", "head")

    def __init__(self, head: ResponseHead, rest: bytes | None, connection: Connection | None) -> None:
        self.head = head
        self._rest = rest
        self._connection = connection

    def take(self) -> bytes | None:
        """All of the body that was not read yet if the answer is complete, else None; never waits."""
        connection = self._connection
        if connection is None:
            rest, self._rest = self._rest, self._rest and b""
            return rest
        if not connection.complete:
            return None
        data = connection.take_pieces()
        self._rest = b""
        self._connection = None
        connection.release()
        return data

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
        data_at_end = self.take()
        if data_at_end is None:
            raise UpstreamProtocolError("the answer was closed before its end", sent=True)
        return data_at_end

    def close(self) -> None:
        """Done with the answer, read or not; the connection is used again only if nothing of it is missing."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.release()

    def move_deadline(self, when: float) -> None:
        """Put the deadline off to loop time `when`."""
        if self._connection is not None:
            self._connection.move_deadline(when)

    def cancel_deadline(self) -> None:
        """End the deadline here: an event stream lasts as long as it wants."""
        self.move_deadline(math.inf)


class HTTP11Client:
    """Sends requests to any number of origins, each with a pool of its own; belongs to one event loop.

    Requests under limits of `circuit_breakers` share a pool with those under the same limits only, as Envoy's clusters.

    Args:
        limits: see `Limits`.
        ssl_context: for https origins; by default the system's authorities and full verification.
    """

    __slots__ = ("_alive", "_closed", "_limits", "_pools", "_ssl")

    def __init__(self, *, limits: Limits = Limits(), ssl_context: ssl.SSLContext | None = None) -> None:  # noqa: B008
        self._limits = limits
        self._ssl = ssl_context
        self._pools: dict[Origin | tuple[Origin, Breakers], Pool] = {}
        self._alive: set[Connection] = set()
        self._closed = False

    async def send(
        self,
        origin: Origin,
        request: UpstreamRequest,
        body: AsyncIterator[bytes] | bytes | None = None,
        deadline: float | None = None,
    ) -> Response:
        """Send a request; return when the head of the answer is there, even if the body is still on its way up.

        Args:
            body: ignored when `request.body` is None; else as long as that says. An answer that is complete before it
                cancels the iterator, which takes a turn of the loop.
            deadline: loop time for all of the exchange; by default `request.timeout` from now.

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
                data += _encode_body(body or b"", request.body)
            else:
                upload = body, request.body.length
        if deadline is None:
            deadline = math.inf if request.timeout is None else asyncio.get_running_loop().time() + request.timeout
        options = request.options
        connection = self._pool(origin, options.breakers).take()
        if connection is None:
            connection = await self._acquire(origin, request, deadline)
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

    async def _acquire(
        self, origin: Origin, request: UpstreamRequest, deadline: float, *, fresh: bool = False
    ) -> Connection:
        options = request.options
        if options.idle_timeout is not None:
            # No byte goes anywhere while the request waits for a connection.
            deadline = min(deadline, asyncio.get_running_loop().time() + options.idle_timeout)
        return await self._pool(origin, options.breakers).acquire(deadline, request.connect_timeout, fresh=fresh)

    async def aclose(self) -> None:
        """Close every connection; whoever still waits for an answer gets UpstreamConnectError."""
        self._closed = True
        error = UpstreamConnectError("the client was closed")
        for pool in list(self._pools.values()):
            pool.close(error)
        for connection in list(self._alive):
            connection.fail(error)
        while self._alive:
            await next(iter(self._alive)).gone()

    def _pool(self, origin: Origin, breakers: Breakers | None = None) -> Pool:
        key = origin if breakers is None else (origin, breakers)
        pool = self._pools.get(key)
        if pool is None:
            if self._closed:
                raise UpstreamConnectError("the client was closed")
            pool = Pool(origin, self._limits, self._context(origin), self._alive, self._drop, breakers)
            self._pools[key] = pool
        return pool

    def _drop(self, pool: Pool) -> None:
        # A request that found the pool before it was dropped may fill and empty it once more.
        key = pool.origin if pool.breakers is None else (pool.origin, pool.breakers)
        if self._pools.get(key) is pool:
            del self._pools[key]

    def _context(self, origin: Origin) -> ssl.SSLContext | None:
        if origin.scheme != "https":
            return None
        if self._ssl is None:
            self._ssl = ssl.create_default_context()
        return self._ssl


def _response(connection: Connection) -> Response:
    """An answer that is complete already needs its connection no more."""
    head = connection.head
    assert head is not None
    if not connection.complete:
        return Response(head, None, connection)
    rest = connection.take_pieces()
    connection.release()
    return Response(head, rest, None)


def encode_head(request: UpstreamRequest) -> bytes:
    """The head as it goes out, framing included.

    Raises:
        UpstreamProtocolError: a name is not a token, or a byte would end its line early (RFC 9110, section 5.5).
    """
    method = request.method.encode("latin-1", "replace")
    names = [name for name, _ in request.headers]
    names.append(method)
    lines = [b"%b %b HTTP/1.1" % (method, request.target)]
    lines.extend(map(b": ".join, request.headers))
    if request.body is not None:
        length = request.body.length
        lines.append(b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length)
    ends = len(lines) + 1
    lines += (b"", b"")
    head = b"\r\n".join(lines)
    if (
        head.translate(None, _INNER) != b"\r\n" * ends
        or b"\n: " in head
        or not method
        or not request.target
        or b"".join(names).translate(None, _TOKEN)
        or request.target.translate(None, _TARGET)
    ):
        raise UpstreamProtocolError("the request head holds a byte that must not be sent; nothing was")
    return head


def _encode_body(body: bytes, framing: Body) -> bytes:
    if framing.length is None:
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    if len(body) != framing.length:
        raise wrong_length(framing.length)
    return body
