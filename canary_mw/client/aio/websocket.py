"""The upstream's leg of a websocket: its opening handshake and its connection (RFC 6455, section 4.1)."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from canary_mw.client.tls import ConnectionSecurity
from canary_mw.exceptions import UpstreamConnectError, UpstreamProtocolError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import RawHeaders, ResponseHead
from canary_mw.rules.upstream import Origin

MAX_MESSAGE = 16 * 2**20
# Seconds that the upstream has for its part of the closing handshake; RFC 6455 names no number.
CLOSE_TIMEOUT = 2.0
_OF_THE_LEG = b"sec-websocket-"
NO_STATUS_RCVD = 1005


class Close(NamedTuple):
    """Why a websocket ends, as its Close frame says it."""

    code: int
    reason: str = ""


UPSTREAM_LOST = Close(1011, "upstream connection lost")


class Handshake(NamedTuple):
    """How an upstream answered; `connection` is None when it refused, and `body` what it said then."""

    head: ResponseHead
    body: bytes
    connection: "WebSocketConnection | None"


class WebSocketConnection(ClientConnection):
    """A client connection that does not wait for ever when the upstream leaves the closing handshake unfinished."""

    def data_received(self, data: bytes) -> None:
        """Take bytes; behind a Close frame it is the upstream's turn to close (RFC 6455, section 7.1.1)."""
        expected = self.protocol.close_expected()
        super().data_received(data)
        if not expected and self.protocol.close_expected():
            self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    async def close_gracefully(self, close: Close) -> None:
        """Send a Close frame, and wait for the upstream's; nothing happens when it is closed already."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.close(*close)


class _Protocol(ClientProtocol):
    """Asks for the upgrade under a head that is made already, its Host and target included."""

    def __init__(self, request: UpstreamRequest, subprotocols: Sequence[str]) -> None:
        offered = [Subprotocol(each) for each in subprotocols] or None
        super().__init__(WebSocketURI(False, "", 80, "/", ""), subprotocols=offered, max_size=MAX_MESSAGE)
        self._asking = request

    def connect(self) -> Request:
        own = super().connect().headers
        del own["Host"]
        pairs = [pair for pair in self._asking.headers if not pair[0].startswith(_OF_THE_LEG)]
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs])
        headers.update(own)
        return Request(self._asking.target.decode("ascii"), headers)


async def open_websocket(
    origin: Origin, request: UpstreamRequest, subprotocols: Sequence[str], security: ConnectionSecurity
) -> Handshake:
    """Open a connection and ask for the upgrade; tunnels only after 101 with the right Sec-WebSocket-Accept.

    Args:
        request: its head, without what `Sec-WebSocket-*` says and checked as every head that leaves. Its `timeout` is
            the caller's to keep.
        security: of the connection.

    Raises:
        UpstreamConnectError: no connection, or one that was lost before the answer.
        UpstreamProtocolError: the answer is neither a right upgrade nor a refusal in HTTP/1.1.
    """
    connection = await _connected(origin, request, subprotocols, security)
    try:
        await connection.handshake(user_agent_header=None)
    except InvalidStatus as exc:
        connection.transport.abort()
        return _refusal(origin, exc.response)
    except BaseException as exc:
        connection.transport.abort()
        if isinstance(exc, InvalidHandshake | ConnectionClosed | OSError):
            raise _translated(origin, exc) from exc
        raise
    connection.start_keepalive()
    assert connection.response is not None
    return Handshake(_head(connection.response), b"", connection)


async def _connected(
    origin: Origin, request: UpstreamRequest, subprotocols: Sequence[str], security: ConnectionSecurity
) -> WebSocketConnection:
    def factory() -> WebSocketConnection:
        # A queue of one: what the client has not taken stays with the upstream.
        return WebSocketConnection(_Protocol(request, subprotocols), close_timeout=CLOSE_TIMEOUT, max_queue=1)

    try:
        async with asyncio.timeout(request.connect_timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                factory,
                origin.address or origin.host,
                origin.port,
                ssl=security.context,
                server_hostname=security.name,
            )
    except (OSError, ValueError, OverflowError) as exc:
        raise UpstreamConnectError(f"{origin.authority}: cannot connect: {exc or 'no connection in time'}") from exc
    return connection


def _refusal(origin: Origin, response: Response) -> Handshake:
    if response.status_code < 200:
        raise UpstreamProtocolError(f"{origin.authority}: answered the upgrade with {response.status_code}", sent=True)
    return Handshake(_head(response), bytes(response.body), None)


def _translated(origin: Origin, exc: BaseException) -> UpstreamConnectError | UpstreamProtocolError:
    lost = isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError)
    if lost or not isinstance(exc, InvalidHandshake):
        return UpstreamConnectError(f"{origin.authority}: closed the connection before it answered", sent=True)
    return UpstreamProtocolError(f"{origin.authority}: no websocket handshake: {exc}", sent=True)


def _head(response: Response) -> ResponseHead:
    pairs = response.headers.raw_items()
    return ResponseHead(response.status_code, [(n.lower().encode(), v.encode("latin-1")) for n, v in pairs])


def end_to_end(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Headers of an acceptance without those that are written anew on each leg."""
    return [pair for pair in headers if not pair[0].startswith(_OF_THE_LEG) and pair[0] != b"content-length"]


def close_received(exc: ConnectionClosed) -> Close:
    """What the client is told of an upstream that left: its own words, if there were any."""
    if exc.rcvd is None:
        return UPSTREAM_LOST
    return Close(1000) if exc.rcvd.code == NO_STATUS_RCVD else Close(exc.rcvd.code, exc.rcvd.reason)
