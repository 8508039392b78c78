"""The gRPC client for asyncio, on HTTP/2: the twin of `client.sync.grpc`."""

import asyncio

from canary_mw.client.aio.client import HTTP11Response
from canary_mw.client.aio.grpc_channel import Channel
from canary_mw.client.aio.grpc_connection import GrpcConnection
from canary_mw.client.grpc.call import Call
from canary_mw.client.grpc.requests import call_headers, may_repeat, message_of, response_head
from canary_mw.client.interfaces import RequestBody
from canary_mw.client.limits import Limits, client_closed, tried_before
from canary_mw.client.tls import TLSContexts
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import CircuitBreakers, Origin


class GrpcClient:
    """Makes gRPC calls. Belongs to one event loop. It is a `Transport`: messages are bodies.

    Calls under circuit breakers share connections only with calls under the same limits, as in clusters of Envoy.

    Args:
        limits: see `Limits`.
        contexts: TLS settings of https origins; they offer `h2`.
    """

    def __init__(self, limits: Limits, contexts: TLSContexts) -> None:
        self._limits = limits
        self._contexts = contexts
        self._channels: dict[tuple[Origin, CircuitBreakers | None], Channel] = {}
        self._alive: set[GrpcConnection] = set()
        self._closed = False

    async def send(
        self, origin: Origin, request: UpstreamRequest, body: RequestBody, deadline: float
    ) -> HTTP11Response:
        """Make a call; return when it has ended. Its status may be an error of the service.

        A call that the server cannot have begun is made once more. So is one on a connection that had been used before
        and was lost: the server may have closed it at the moment it was taken.

        Args:
            deadline: loop time.

        Raises:
            UpstreamConnectError: no connection, or it was lost before the answer began.
            UpstreamOverloaded: a limit of the circuit breakers is reached.
            UpstreamTimeout: the deadline passed.
            UpstreamProtocolError: the answer is none of gRPC, or was not complete.
        """
        message = message_of(body)
        connection = await self._acquire(origin, request, deadline)
        was_reused = connection.calls_made > 0
        call = await _make_call(connection, origin, request, message, deadline)
        if (error := call.error) is not None:
            if not may_repeat(error, was_reused=was_reused):
                raise error
            with tried_before():
                connection = await self._acquire(origin, request, deadline)
                call = await _make_call(connection, origin, request, message, deadline)
                if call.error is not None:
                    raise call.error
        assert call.answer is not None
        return HTTP11Response(response_head(call.answer), call.answer.message, None)

    async def aclose(self) -> None:
        """Close every connection. Calls in progress raise UpstreamConnectError."""
        self._closed = True
        for channel in list(self._channels.values()):
            channel.close()
        for connection in list(self._alive):
            connection.fail(client_closed())
        while self._alive:
            await next(iter(self._alive)).wait_closed()

    def close_after_loop(self) -> None:
        """Close every connection after the event loop was closed, from any thread; nothing waits for them any more."""
        self._closed = True
        for connection in list(self._alive):
            connection.close_after_loop()
        self._alive.clear()
        self._channels.clear()

    async def _acquire(self, origin: Origin, request: UpstreamRequest, deadline: float) -> GrpcConnection:
        options = request.options
        channel = self._channel(origin, options.circuit_breakers)
        connection = await channel.acquire(deadline, request.connect_timeout, options)
        # It is removed when its last connection is closed, and this may have been a new one.
        self._channels.setdefault((origin, options.circuit_breakers), channel)
        return connection

    def _channel(self, origin: Origin, circuit_breakers: CircuitBreakers | None) -> Channel:
        key = origin, circuit_breakers
        channel = self._channels.get(key)
        if channel is None:
            if self._closed:
                raise client_closed()
            channel = Channel(origin, self._limits, self._contexts, self._alive, self._remove, circuit_breakers)
            self._channels[key] = channel
        return channel

    def _remove(self, channel: Channel) -> None:
        # Another one may have taken its place.
        key = channel.origin, channel.circuit_breakers
        if self._channels.get(key) is channel:
            del self._channels[key]


async def _make_call(
    connection: GrpcConnection, origin: Origin, request: UpstreamRequest, message: bytes, deadline: float
) -> Call:
    remaining = deadline - asyncio.get_running_loop().time()
    call = Call(origin.authority, call_headers(origin, request, remaining), message)
    await connection.exchange(call, deadline)
    return call
