"""A gRPC stream of messages to a service, on a connection of its own, for a thread of its own."""

from math import inf
from time import monotonic

from canary_mw.client.grpc.call import Call
from canary_mw.client.grpc.requests import call_headers, check_protocol
from canary_mw.client.sync.connect import connect
from canary_mw.client.sync.grpc_connection import SyncGrpcConnection
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError, UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import Origin


class GrpcStream:
    """Connects when it is made.

    Args:
        method: the target of the call.
        limit: seconds for the connection.

    Raises:
        UpstreamConnectError: no connection.
    """

    def __init__(self, origin: Origin, contexts: TLSContexts, method: bytes, limit: float) -> None:
        try:
            sock = connect(origin, contexts(origin), monotonic() + limit)
        except (OSError, ValueError, OverflowError) as exc:
            raise UpstreamConnectError(f"{origin.authority}: {exc or 'no connection in time'}") from exc
        self._authority = origin.authority
        self._connection = SyncGrpcConnection(self, origin.authority, sock)
        selected = getattr(sock, "selected_alpn_protocol", None)
        try:
            check_protocol(origin, selected() if selected else None)
        except UpstreamError as exc:
            self._connection.fail(exc)
            raise
        request = UpstreamRequest(origin.authority, "POST", method, [])
        self._call = Call(origin.authority, call_headers(origin, request, inf), None)
        self._connection.begin(self._call)

    def is_open(self) -> bool:
        """Whether the server has not ended it, as far as that has arrived."""
        self._connection.hear()
        return not self._call.ended

    def send(self, message: bytes, limit: float) -> None:
        """Send a message; return when the system has taken all of it.

        Args:
            limit: seconds, after which the stream is of no use any more.

        Raises:
            UpstreamError: the stream is over.
        """
        self._connection.push(self._call, message, monotonic() + limit)
        if self._call.ended:
            error = self._call.error or self._ended()
            self._connection.fail(error)
            raise error

    def close(self, limit: float) -> None:
        """End the stream, and wait until the server has read it; `limit` is in seconds."""
        self._connection.finish(self._call, monotonic() + limit)

    def release(self, connection: SyncGrpcConnection) -> None:
        """See `Owner`: there is no pool."""

    def discard(self, connection: SyncGrpcConnection) -> None:
        """See `Owner`."""

    def _ended(self) -> UpstreamError:
        answer = self._call.answer
        said = "" if answer is None else f" with status {answer.status} {answer.text}".rstrip()
        return UpstreamConnectError(f"{self._authority}: has ended the stream{said}", sent=True)
