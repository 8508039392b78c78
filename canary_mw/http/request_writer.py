"""Requests encoded as bytes, framing included (RFC 9112)."""

from collections.abc import Generator, Iterator
from typing import Protocol

from canary_mw.exceptions import ClientError, UpstreamProtocolError
from canary_mw.http.headers import are_tokens
from canary_mw.http.messages import BodyFraming

_TARGET = bytes(range(0x21, 0x7F))


class OutgoingRequest(Protocol):
    """What the head of a request is encoded from; `body` is None for none."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: BodyFraming | None


def encode_head(request: OutgoingRequest) -> bytes:
    """The head as bytes, framing included.

    Raises:
        UpstreamProtocolError: a name is not a token, or a value holds CR, LF or NUL (RFC 9110, section 5.5).
    """
    method = request.method.encode("latin-1", "replace")
    names = [name for name, _ in request.headers]
    names.append(method)
    lines = [b"%b %b HTTP/1.1" % (method, request.target)]
    lines.extend(map(b": ".join, request.headers))
    if request.body is not None:
        length = request.body.length
        lines.append(b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length)
    line_ends = len(lines) + 1
    lines += (b"", b"")
    head = b"\r\n".join(lines)
    if (
        head.count(b"\n") != line_ends
        or head.count(b"\r") != line_ends
        or b"\0" in head
        or not request.target
        or request.target.translate(None, _TARGET)
        or not are_tokens(names)
    ):
        raise UpstreamProtocolError("the request head holds a byte that must not be sent; nothing was")
    return head


def encode_body(body: bytes, framing: BodyFraming) -> bytes:
    """A complete body as bytes.

    Raises:
        ClientError: its length is not that of `framing`.
    """
    if framing.length is None:
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    if len(body) != framing.length:
        raise length_mismatch(framing.length)
    return body


class BodyEncoder:
    """Encodes a request body chunk by chunk, and checks its length.

    Args:
        length: bytes of the body, None for the chunked coding.
    """

    __slots__ = ("_last", "_left", "_length")

    def __init__(self, length: int | None) -> None:
        self._length = length
        self._left = length or 0
        self._last = b""

    def encode(self, chunk: bytes) -> bytes:
        """The bytes to send for a chunk.

        The chunk that completes the length is held back until `finish`, since more may follow it.

        Raises:
            ClientError: the body is too long; what was sent so far is not a complete body.
        """
        if self._length is None:
            return b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        self._left -= len(chunk)
        if self._left > 0:
            return chunk
        if self._left:
            raise length_mismatch(self._length)
        self._last = chunk or self._last
        return b""

    def finish(self) -> bytes:
        """The bytes to send after the last chunk.

        Raises:
            ClientError: the body is too short.
        """
        if self._length is None:
            return b"0\r\n\r\n"
        if self._left:
            raise length_mismatch(self._length)
        return self._last


def iter_encoded(body: Iterator[bytes], length: int | None) -> Generator[bytes, None, bytes]:
    """Yield the encoded body; the last part is returned, so that the caller knows it as the last.

    Raises:
        ClientError: see `BodyEncoder`.
    """
    encoder = BodyEncoder(length)
    for chunk in body:
        if data := encoder.encode(chunk):
            yield data
    return encoder.finish()


def length_mismatch(length: int) -> ClientError:
    """The error for a body whose length is not that of its head."""
    return ClientError(f"the body of the request is not {length} bytes long, as its Content-Length says")
