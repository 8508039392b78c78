"""One gRPC call over HTTP/2, with one message or several there and one back (grpc PROTOCOL-HTTP2.md)."""

from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from canary_mw.exceptions import UpstreamError, UpstreamProtocolError

RawHeaders = Iterable[tuple[bytes, bytes]]

# Bytes of the message in an answer. Those of the services that are asked are small.
MAX_MESSAGE = 1024 * 1024
# A flag for compression, and the length as a 32-bit number.
_PREFIX = 5
# Characters of the text beside a status.
_MAX_TEXT = 1024


class Answer(NamedTuple):
    """The answer to a call.

    Attributes:
        status: 0 for OK; the others are errors of the service (grpc `statuscodes.md`).
        text: what the service says about the status.
        message: empty unless the status is 0.
    """

    status: int
    text: str
    message: bytes


class Call:
    """One call. The session of its connection feeds it; it ends once, with `answer` or `error`.

    Args:
        authority: the name of the server, for messages.
        headers: of the request, pseudo headers first.
        message: of the request; None for a stream, whose messages come by `Session.push`.

    Attributes:
        on_end: is called at the end.
        stream: its number on the connection; 0 before it is opened.
        unsent: what is left of the request.
        begun: a part of the answer was received.
        is_open: more messages may follow.
    """

    __slots__ = (
        "_authority",
        "_received",
        "_status",
        "_text",
        "answer",
        "begun",
        "error",
        "headers",
        "is_open",
        "on_end",
        "stream",
        "unsent",
    )

    def __init__(self, authority: str, headers: list[tuple[bytes, bytes]], message: bytes | None) -> None:
        self._authority = authority
        self._received = bytearray()
        self._status: int | None = None
        self._text = ""
        self.headers = headers
        self.is_open = message is None
        self.unsent = memoryview(b"" if message is None else framed(message))
        self.stream = 0
        self.on_end: Callable[[], object] | None = None
        self.begun = False
        self.answer: Answer | None = None
        self.error: UpstreamError | None = None

    @property
    def ended(self) -> bool:
        """Whether there is an answer or an error."""
        return self.answer is not None or self.error is not None

    def take_headers(self, headers: RawHeaders) -> None:
        """Take the headers of the answer; those of an answer without a message hold its status.

        Raises:
            UpstreamProtocolError: it is no answer of a gRPC server.
        """
        self.begun = True
        fields = dict(headers)
        status = fields.get(b":status", b"")
        if status != b"200":
            raise self._fault(f"answered HTTP status {_shown(status)}: no gRPC server, or not this service")
        content_type = fields.get(b"content-type", b"")
        if not content_type.lower().startswith(b"application/grpc"):
            raise self._fault(f"answered {_shown(content_type) or 'without content-type'}, not application/grpc")
        self.take_trailers(fields.items())

    def take_data(self, data: bytes) -> None:
        """Take bytes of the message.

        Raises:
            UpstreamProtocolError: the message is too long, compressed, or not the only one.
        """
        received = self._received
        received += data
        if len(received) < _PREFIX:
            return
        if received[0]:
            raise self._fault("sent a compressed message, which nobody asked for")
        length = int.from_bytes(received[1:_PREFIX], "big")
        if length > MAX_MESSAGE:
            raise self._fault(f"sent a message of {length} bytes, longer than {MAX_MESSAGE}")
        if len(received) > _PREFIX + length:
            raise self._fault("sent more than one message")

    def take_trailers(self, headers: RawHeaders) -> None:
        """Take the status of the answer.

        Raises:
            UpstreamProtocolError: it is no number.
        """
        for name, value in headers:
            if name == b"grpc-status":
                if not (value.isdigit() and len(value) <= 3):
                    raise self._fault(f"sent grpc-status {_shown(value)}, which is no status")
                self._status = int(value)
            elif name == b"grpc-message":
                self._text = unquote_to_bytes(value[:_MAX_TEXT]).decode("utf-8", "replace")

    def finish(self) -> None:
        """The answer has ended.

        Raises:
            UpstreamProtocolError: it is not complete.
        """
        received = self._received
        if self._status is None:
            raise self._fault("ended its answer without grpc-status")
        if self._status:
            self._end(Answer(self._status, self._text, b""), None)
            return
        if len(received) < _PREFIX or len(received) != _PREFIX + int.from_bytes(received[1:_PREFIX], "big"):
            raise self._fault("ended its answer before the end of the message")
        self._end(Answer(0, self._text, bytes(received[_PREFIX:])), None)

    def fail(self, error: UpstreamError) -> None:
        """End with an error, unless it has ended."""
        if not self.ended:
            self._end(None, error)

    def _end(self, answer: Answer | None, error: UpstreamError | None) -> None:
        self.answer, self.error = answer, error
        self.unsent = memoryview(b"")
        self._received.clear()
        if self.on_end is not None:
            self.on_end()

    def _fault(self, text: str) -> UpstreamProtocolError:
        return UpstreamProtocolError(f"{self._authority}: {text}", sent=True)


def framed(message: bytes) -> bytes:
    """A message as it is sent, without compression."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _shown(value: bytes) -> str:
    return value[:80].decode("ascii", "backslashreplace")
