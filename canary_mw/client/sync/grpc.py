"""The gRPC client for threads: the twin of `client.aio.grpc`, with the same errors and limits.

A call has a connection of its own while it runs: no thread reads what is for another one.
"""

import socket
import ssl
from time import monotonic

from canary_mw.client.grpc.call import Call
from canary_mw.client.grpc.requests import call_headers, check_protocol, may_repeat, message_of, response_head
from canary_mw.client.interfaces import SyncBody
from canary_mw.client.limits import Limits, tried_before
from canary_mw.client.sync.client import SyncHTTP11Response
from canary_mw.client.sync.grpc_connection import SyncGrpcConnection
from canary_mw.client.sync.pool import SyncPool
from canary_mw.client.sync.pools import SyncPools
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import Origin


class SyncGrpcClient(SyncPools[SyncGrpcConnection]):
    """Makes gRPC calls; see `SyncPools`. It is a `SyncTransport`: messages are bodies.

    Args:
        limits: see `Limits`.
        contexts: TLS settings of https origins; they offer `h2`.
    """

    __slots__ = ()

    def __init__(self, limits: Limits, contexts: TLSContexts) -> None:
        super().__init__(limits, contexts, _make_connection)

    def send(self, origin: Origin, request: UpstreamRequest, body: SyncBody, deadline: float) -> SyncHTTP11Response:
        """Make a call; return when it has ended. Its status may be an error of the service.

        A call that the server cannot have begun is made once more, on a new connection. So is one on a connection that
        had been used before and was lost: the server may have closed it at the moment it was taken.

        Args:
            deadline: monotonic time.

        Raises:
            UpstreamConnectError: no connection, or it was lost before the answer began.
            UpstreamOverloaded: a limit of the circuit breakers is reached.
            UpstreamTimeout: the deadline passed.
            UpstreamProtocolError: the answer is none of gRPC, or was not complete.
        """
        now = monotonic()
        if now >= self._sweep_at:
            self._sweep(now)
        message = message_of(body)
        connection = self._acquire(origin, request, deadline)
        was_reused = connection.reused
        call = _make_call(connection, origin, request, message, deadline)
        if (error := call.error) is not None:
            if not may_repeat(error, was_reused=was_reused):
                raise error
            with tried_before():
                connection = self._acquire(origin, request, deadline, fresh=True)
                call = _make_call(connection, origin, request, message, deadline)
                if call.error is not None:
                    raise call.error
        assert call.answer is not None
        return SyncHTTP11Response(response_head(call.answer), call.answer.message, None)


def _make_call(
    connection: SyncGrpcConnection, origin: Origin, request: UpstreamRequest, message: bytes, deadline: float
) -> Call:
    call = Call(origin.authority, call_headers(origin, request, deadline - monotonic()), message)
    connection.exchange(call, deadline, request.options)
    connection.release()
    return call


def _make_connection(pool: SyncPool[SyncGrpcConnection], sock: socket.socket) -> SyncGrpcConnection:
    if isinstance(sock, ssl.SSLSocket):
        try:
            check_protocol(pool.origin, sock.selected_alpn_protocol())
        except UpstreamError:
            sock.close()
            raise
    return SyncGrpcConnection(pool, pool.origin.authority, sock)
