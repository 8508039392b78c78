"""What the two HTTP/1.1 clients, asyncio's and the blocking one, have in common besides `Answer` (RFC 9112)."""

import math
from collections.abc import Generator, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from .exceptions import (
    ClientError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from .headernames import are_tokens
from .messages import Body, Breakers, Origin, ResponseHead, UpstreamRequest

_TARGET = bytes(range(0x21, 0x7F))


class Limits(NamedTuple):
    """Bounds of a client, per origin where not said otherwise.

    Attributes:
        max_connections: open connections.
        max_pending: requests that wait for one of them.
        keepalive_idle: seconds that an unused connection is kept; 0 keeps none.
        max_head: bytes of the head of one answer.
    """

    max_connections: int = 1024
    max_pending: int = 1024
    keepalive_idle: float = 60.0
    max_head: int = 102400


def narrowed(limits: Limits, breakers: Breakers | None) -> Limits:
    """The limits under breakers, which never widen them; as in Envoy, one connection is always allowed."""
    if breakers is None:
        return limits
    connections = min(limits.max_connections, max(breakers.max_connections, 1))
    pending = min(limits.max_pending, breakers.max_pending_requests)
    return limits._replace(max_connections=connections, max_pending=pending)


# Why a connection was closed that no exchange was on.
CERTIFICATES_CHANGED = "the certificates have changed"
IDLE_TOO_LONG = "the connection was idle for too long"
MADE_ROOM = "made room for a fresh connection"


def check_pending(pending: int, limits: Limits, origin: Origin, breakers: Breakers | None) -> None:
    """Raise UpstreamConnectError when so many requests wait that no other may: UpstreamOverloaded under breakers."""
    if pending < limits.max_pending:
        return
    kind = UpstreamConnectError if breakers is None else UpstreamOverloaded
    raise kind(
        f"{origin.authority}: too many requests waiting ({limits.max_pending}) for one of "
        f"{limits.max_connections} connections"
    )


def waited_in_vain(origin: Origin) -> UpstreamTimeout:
    """What is raised for a request whose deadline passes before it has a connection."""
    return UpstreamTimeout(f"{origin.authority}: the deadline passed while waiting for a free connection")


def not_connected(exc: Exception, origin: Origin, connect_timeout: float, *, at_deadline: bool) -> UpstreamError:
    """What it means that a connection could not be opened.

    Args:
        connect_timeout: seconds that it was given.
        at_deadline: the request's deadline was to come before they were over.
    """
    # The system's own ETIMEDOUT is a TimeoutError too, but has a number.
    if not isinstance(exc, TimeoutError) or exc.errno is not None:
        return UpstreamConnectError(f"{origin.authority}: cannot connect: {exc}")
    if at_deadline:
        return UpstreamTimeout(f"{origin.authority}: the deadline passed while connecting")
    return UpstreamConnectError(f"{origin.authority}: no connection within {connect_timeout:g} s")


class Carrier(Protocol):
    """The connection that an answer comes in on."""

    complete: bool

    def take_pieces(self) -> bytes:
        """What has come of the body and was not taken yet."""

    def release(self) -> None:
        """Back to the pool if nothing of the exchange is missing, else close."""

    def move_deadline(self, when: float) -> None:
        """Put the deadline off."""


C = TypeVar("C", bound=Carrier)


class BaseResponse(Generic[C]):
    """An answer whose head is there; its body is read once, by `take` or `read`.

    Attributes:
        head: status and headers, as received.
    """

    __slots__ = ("_connection", "_rest", "head")

    def __init__(self, head: ResponseHead, rest: bytes | None, connection: C | None) -> None:
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

    def close(self) -> None:
        """Done with the answer, read or not; the connection is used again only if nothing of it is missing."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.release()

    def move_deadline(self, when: float) -> None:
        """Put the deadline off to `when`, on the clock that the deadline was given by."""
        if self._connection is not None:
            self._connection.move_deadline(when)

    def cancel_deadline(self) -> None:
        """End the deadline here: an event stream lasts as long as it wants."""
        self.move_deadline(math.inf)

    def _taken_at_end(self) -> bytes:
        data = self.take()
        if data is None:
            raise UpstreamProtocolError("the answer was closed before its end", sent=True)
        return data


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
        head.count(b"\n") != ends
        or head.count(b"\r") != ends
        or b"\0" in head
        or not request.target
        or request.target.translate(None, _TARGET)
        or not are_tokens(names)
    ):
        raise UpstreamProtocolError("the request head holds a byte that must not be sent; nothing was")
    return head


def encode_body(body: bytes, framing: Body) -> bytes:
    """A body that is there whole, as it goes out.

    Raises:
        ClientError: it is longer or shorter than `framing` says.
    """
    if framing.length is None:
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    if len(body) != framing.length:
        raise wrong_length(framing.length)
    return body


class Framing:
    """A request body as it goes out, piece by piece, and no longer or shorter than its head says.

    Args:
        length: bytes of the body, None for chunks.
    """

    __slots__ = ("_last", "_left", "_length")

    def __init__(self, length: int | None) -> None:
        self._length = length
        self._left = length or 0
        self._last = b""

    def add(self, piece: bytes) -> bytes:
        """What goes out for a piece; the one that completes a length waits for the end, lest more follows it.

        Raises:
            ClientError: the body is too long; it does not look complete then.
        """
        if self._length is None:
            return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        self._left -= len(piece)
        if self._left > 0:
            return piece
        if self._left:
            raise wrong_length(self._length)
        self._last = piece or self._last
        return b""

    def end(self) -> bytes:
        """What goes out when no piece is left.

        Raises:
            ClientError: the body is too short.
        """
        if self._length is None:
            return b"0\r\n\r\n"
        if self._left:
            raise wrong_length(self._length)
        return self._last


def framed(body: Iterator[bytes], length: int | None) -> Generator[bytes, None, bytes]:
    """The body in pieces as they go out; the last is what the generator returns, so that nobody asks for one more.

    Raises:
        ClientError: see `Framing`.
    """
    framing = Framing(length)
    for piece in body:
        if data := framing.add(piece):
            yield data
    return framing.end()


def wrong_length(length: int) -> ClientError:
    """What is raised for a body that is not as long as its head says."""
    return ClientError(f"the body of the request is not {length} bytes long, as its Content-Length says")
