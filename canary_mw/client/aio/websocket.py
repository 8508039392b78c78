"""The upstream side of a websocket tunnel: opening handshake and connection (RFC 6455, section 4.1)."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.frames import DATA_OPCODES, Frame
from websockets.http11 import Request, Response
from websockets.protocol import Event, State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from canary_mw.client.aio.connect import open_connection
from canary_mw.client.limits import CLOSE_TIMEOUT
from canary_mw.client.tls import ConnectionSecurity
from canary_mw.exceptions import UpstreamConnectError, UpstreamProtocolError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.headers import fold_underscores
from canary_mw.http.messages import RawHeaders, ResponseHead
from canary_mw.rules.upstream import Origin

MAX_MESSAGE = 16 * 2**20
# Of one message; each costs far more than its bytes until the message is complete.
MAX_FRAGMENTS = 65536
# Headers of the opening handshake, which is made anew on each side of the tunnel.
_HANDSHAKE_PREFIX = b"sec-websocket-"
NO_STATUS_RCVD = 1005


class Close(NamedTuple):
    """The content of a Close frame."""

    code: int
    reason: str = ""


UPSTREAM_LOST = Close(1011, "upstream connection lost")


class Handshake(NamedTuple):
    """The response of an upstream to the upgrade request.

    Attributes:
        head: status and headers.
        body: of the response that rejects the upgrade.
        connection: None when the upgrade was rejected.
    """

    head: ResponseHead
    body: bytes
    connection: "WebSocketConnection | None"


class WebSocketConnection(ClientConnection):
    """A client connection that limits the time of the closing handshake, and the fragments of a message."""

    _fragments = 0

    def process_event(self, event: Event) -> None:
        """Take a frame of the upstream."""
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self._fragments = 0 if event.fin else self._fragments + 1
            if self._fragments >= MAX_FRAGMENTS:
                self.transport.abort()
                return
        super().process_event(event)

    def data_received(self, data: bytes) -> None:
        """Receive bytes. After the Close frames, the upstream has to close the connection (RFC 6455, section 7.1.1)."""
        expected = self.protocol.close_expected()
        super().data_received(data)
        if not expected and self.protocol.close_expected():
            self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    async def close_gracefully(self, close: Close) -> None:
        """Send a Close frame and wait for that of the upstream. Does nothing on a closed connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.close(*close)


class _Protocol(ClientProtocol):
    """Sends the upgrade request with the target and headers of an UpstreamRequest, Host included."""

    def __init__(self, request: UpstreamRequest, subprotocols: Sequence[str]) -> None:
        offered = [Subprotocol(each) for each in subprotocols] or None
        super().__init__(WebSocketURI(False, "", 80, "/", ""), subprotocols=offered, max_size=MAX_MESSAGE)
        self._upgrade_request = request

    def connect(self) -> Request:
        own = super().connect().headers
        del own["Host"]
        pairs = [pair for pair in self._upgrade_request.headers if not _is_of_handshake(pair[0])]
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs])
        headers.update(own)
        return Request(self._upgrade_request.target.decode("ascii"), headers)


async def open_websocket(
    origin: Origin, request: UpstreamRequest, subprotocols: Sequence[str], security: ConnectionSecurity
) -> Handshake:
    """Open a connection and request the upgrade. It succeeds only with 101 and a valid Sec-WebSocket-Accept.

    Args:
        request: gives target and headers; its `Sec-WebSocket-*` headers are not sent. The caller validates the head,
            and enforces its `timeout`.
        subprotocols: those offered to the upstream.
        security: TLS settings of the connection.

    Raises:
        UpstreamConnectError: no connection, or it was lost before the response.
        UpstreamProtocolError: the response is neither a valid upgrade nor a rejection in HTTP/1.1.
    """
    connection = await _connect(origin, request, subprotocols, security)
    try:
        await connection.handshake(user_agent_header=None)
    except InvalidStatus as exc:
        connection.transport.abort()
        return _rejection(origin, exc.response)
    except BaseException as exc:
        connection.transport.abort()
        if isinstance(exc, InvalidHandshake | ConnectionClosed | OSError):
            raise _upstream_error(origin, exc) from exc
        raise
    # Else its task would wait for the first ping of a connection that is lost.
    if connection.protocol.state is State.OPEN:
        connection.start_keepalive()
    assert connection.response is not None
    return Handshake(_accepted_head(connection.response), b"", connection)


async def _connect(
    origin: Origin, request: UpstreamRequest, subprotocols: Sequence[str], security: ConnectionSecurity
) -> WebSocketConnection:
    def factory() -> WebSocketConnection:
        # A queue of one message: backpressure reaches the upstream when the client reads slowly.
        return WebSocketConnection(_Protocol(request, subprotocols), close_timeout=CLOSE_TIMEOUT, max_queue=1)

    try:
        async with asyncio.timeout(request.connect_timeout):
            return await open_connection(factory, origin, security)
    except (OSError, ValueError, OverflowError) as exc:
        raise UpstreamConnectError(f"{origin.authority}: cannot connect: {exc or 'no connection in time'}") from exc


def _rejection(origin: Origin, response: Response) -> Handshake:
    if response.status_code < 200:
        raise UpstreamProtocolError(f"{origin.authority}: answered the upgrade with {response.status_code}", sent=True)
    return Handshake(_head(response), bytes(response.body), None)


def _upstream_error(origin: Origin, exc: BaseException) -> UpstreamConnectError | UpstreamProtocolError:
    lost = isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError)
    if lost or not isinstance(exc, InvalidHandshake):
        return UpstreamConnectError(f"{origin.authority}: closed the connection before it answered", sent=True)
    return UpstreamProtocolError(f"{origin.authority}: no websocket handshake: {exc}", sent=True)


def _head(response: Response) -> ResponseHead:
    pairs = response.headers.raw_items()
    return ResponseHead(response.status_code, [(n.lower().encode(), v.encode("latin-1")) for n, v in pairs])


def _accepted_head(response: Response) -> ResponseHead:
    """Without `server`: it would name the library that spoke to us, and the client has a handshake of its own."""
    head = _head(response)
    return ResponseHead(head.status, [pair for pair in head.headers if pair[0] != b"server"])


def _is_of_handshake(name: bytes) -> bool:
    # In each spelling that an upstream behind CGI or WSGI takes for the same name.
    return fold_underscores(name).startswith(_HANDSHAKE_PREFIX)


def end_to_end(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The headers of an upgrade response, without those that are generated anew for the client."""
    return [pair for pair in headers if not pair[0].startswith(_HANDSHAKE_PREFIX) and pair[0] != b"content-length"]


def close_received(exc: ConnectionClosed) -> Close:
    """The Close frame for the client after the upstream closed: that of the upstream, if it sent one."""
    if exc.rcvd is None:
        return UPSTREAM_LOST
    return Close(1000) if exc.rcvd.code == NO_STATUS_RCVD else Close(exc.rcvd.code, exc.rcvd.reason)
