"""Cutting the bytes of an HTTP/2 connection into frames (RFC 9113, section 4.1), in front of h2.

h2 takes GOAWAY for the end of the connection and refuses every frame behind it. A server that shuts down in peace goes
on with the calls that it has begun, so GOAWAY is read here. And h2 checks the length of a frame only once it has all of
it, which lets a server fill 16 MiB of memory.
"""

from typing import NamedTuple

from canary_mw.exceptions import UpstreamProtocolError

# The largest frame that we take: the default of the protocol, which is never changed here.
MAX_FRAME = 16384
# Small frames that a server may send, such as PING and WINDOW_UPDATE: on a new connection, for each call, for each part
# of a request, and at most. Each costs more time than it took to send it.
_CREDIT, CREDIT_OF_CALL, CREDIT_OF_PART, _MAX_CREDIT = 1000, 100, 10, 2000
_SMALL = 1024
_HEADER = 9
_GOAWAY = 7
# Of the text that a server may send with GOAWAY.
_MAX_DEBUG = 200


class GoAway(NamedTuple):
    """The server takes no more calls on the connection (RFC 9113, section 6.8).

    Attributes:
        last_stream: the last call that it may have begun.
        text: what it says about it, for the log.
    """

    last_stream: int
    code: int
    text: str


class FrameSplitter:
    """Holds the bytes of a frame that has not arrived whole."""

    __slots__ = ("_authority", "_credit", "_rest", "_started")

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._rest = b""
        self._started = False
        self._credit = _CREDIT

    def allow(self, small_frames: int) -> None:
        """Let the server send more of them."""
        self._credit = min(self._credit + small_frames, _MAX_CREDIT)

    def feed(self, data: bytes) -> list[bytes | GoAway]:
        """Take received bytes; return whole frames, as many together as there are between two GOAWAY.

        Raises:
            UpstreamProtocolError: a frame is too long, there are too many, or the server does not speak HTTP/2.
        """
        data = self._rest + data if self._rest else data
        found: list[bytes | GoAway] = []
        begin = at = 0
        while len(data) - at >= _HEADER:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > MAX_FRAME:
                raise self._too_long(data, length)
            end = at + _HEADER + length
            if end > len(data):
                break
            if length < _SMALL:
                self._credit -= 1
            if self._credit < 0:
                raise UpstreamProtocolError(f"{self._authority}: sends frames that nobody has asked for", sent=True)
            self._started = True
            if data[at + 3] == _GOAWAY:
                found += [data[begin:at], self._go_away(data[at:end])]
                begin = end
            at = end
        found.append(data[begin:at])
        self._rest = data[at:]
        return [each for each in found if each]

    def _go_away(self, frame: bytes) -> GoAway:
        payload = frame[_HEADER:]
        if len(payload) < 8 or any(frame[5:_HEADER]):
            raise UpstreamProtocolError(f"{self._authority}: sent a GOAWAY that is none", sent=True)
        last_stream = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        text = payload[8 : 8 + _MAX_DEBUG].decode("ascii", "backslashreplace")
        return GoAway(last_stream, int.from_bytes(payload[4:8], "big"), text)

    def _too_long(self, data: bytes, length: int) -> UpstreamProtocolError:
        if not self._started and data.startswith(b"HTTP/"):
            return UpstreamProtocolError(f"{self._authority}: answers HTTP/1, not HTTP/2: no gRPC server", sent=True)
        text = f"{self._authority}: sent a frame of {length} bytes, longer than {MAX_FRAME}: HTTP/2 is expected"
        return UpstreamProtocolError(text, sent=True)
