"""Requests as they go out, framing included (RFC 9112)."""

from collections.abc import Generator, Iterator
from typing import Protocol

from canary_mw.exceptions import ClientError, UpstreamProtocolError
from canary_mw.http.headers import are_tokens
from canary_mw.http.messages import BodyFraming

_TARGET = bytes(range(0x21, 0x7F))


class OutgoingRequest(Protocol):
    """A request, as far as its head tells of it."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: BodyFraming | None


def encode_head(request: OutgoingRequest) -> bytes:
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


def encode_body(body: bytes, framing: BodyFraming) -> bytes:
    """A body that is there whole, as it goes out.

    Raises:
        ClientError: it is longer or shorter than `framing` says.
    """
    if framing.length is None:
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    if len(body) != framing.length:
        raise length_mismatch(framing.length)
    return body


class BodyEncoder:
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
            raise length_mismatch(self._length)
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
            raise length_mismatch(self._length)
        return self._last


def iter_encoded(body: Iterator[bytes], length: int | None) -> Generator[bytes, None, bytes]:
    """The body in pieces as they go out; the last is what the generator returns, so that nobody asks for one more.

    Raises:
        ClientError: see `Framing`.
    """
    framing = BodyEncoder(length)
    for piece in body:
        if data := framing.add(piece):
            yield data
    return framing.end()


def length_mismatch(length: int) -> ClientError:
    """What is raised for a body that is not as long as its head says."""
    return ClientError(f"the body of the request is not {length} bytes long, as its Content-Length says")
