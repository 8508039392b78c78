"""HTTP/1.1 messages by the letter of RFC 9112, to judge by: what is left open there is refused here.

It is slow and short, and shares nothing with the package.
"""

import re
from typing import NamedTuple

Headers = tuple[tuple[bytes, bytes], ...]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Blanks may be several (section 3).
_REQUEST_LINE = re.compile(rb"(%b) +([\x21-\x7e]+) +HTTP/(1\.[01])" % _TOKEN)
# The phrase is anything within the line: nobody is to read it (section 4).
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_FIELD = re.compile(
    rb"(%b):[ \t]*([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?[ \t]*" % _TOKEN
)
_REFUSED_TRAILER = re.compile(rb"content-length:|transfer-encoding:[ \t]*\r\n", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class Unclear(Exception):
    """Two parsers could read it in two ways, or one of them not at all."""


class Incomplete(Exception):
    """It may become a message with more bytes behind it."""


class Message(NamedTuple):
    """A request or an answer; header names in lower case.

    Attributes:
        line: of a request method, target and version; of an answer version and status.
        headers: without those of trailers.
        end: where the next message begins.
        open: its body goes on to the end of the connection.
    """

    line: tuple[bytes, ...]
    headers: Headers
    body: bytes
    end: int
    open: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """The values of a header, in order."""
        return [value for key, value in self.headers if key == name]


def request(data: bytes, at: int = 0) -> Message:
    """The request that begins at a place, behind any blank lines.

    Raises:
        Unclear, Incomplete: there is none.
    """
    line, headers, end = _head(data, at, _REQUEST_LINE)
    sized = _framing(headers, line[2])
    body, end = (b"", end) if sized is None else _body(data, end, sized)
    return Message(line, headers, body, end)


def requests(data: bytes) -> list[Message]:
    """All requests up to the first that is none."""
    found: list[Message] = []
    try:
        while True:
            found.append(request(data, found[-1].end if found else 0))
    except (Unclear, Incomplete):
        return found


def answer(data: bytes, method: bytes, at: int = 0) -> Message:
    """The final answer that begins at a place, behind any informational ones.

    Args:
        method: of the request.

    Raises:
        Unclear, Incomplete: there is none.
    """
    line, headers, end = _head(data, at, _STATUS_LINE)
    status = int(line[1])
    if status == 101:
        raise Unclear("nobody asked for another protocol")
    sized = _framing(headers, line[0])
    if status < 200:
        return answer(data, method, end)
    if method == b"HEAD" or status in (204, 304):
        return Message(line, headers, b"", end)
    if sized is None:
        return Message(line, headers, data[end:], len(data), open=True)
    body, end = _body(data, end, sized)
    return Message(line, headers, body, end)


def _head(data: bytes, at: int, first: "re.Pattern[bytes]") -> tuple[tuple[bytes, ...], Headers, int]:
    # Section 2.2 asks for patience with an empty line in front.
    while data[at : at + 1] in (b"\r", b"\n"):
        at += 1
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        raise Incomplete
    start, *fields = data[at:end].split(b"\r\n")
    found = first.fullmatch(start)
    if found is None:
        raise Unclear(start)
    return found.groups(), tuple(map(_field, fields)), end + 4


def _field(line: bytes) -> tuple[bytes, bytes]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise Unclear(line)
    return found[1].lower(), found[2] or b""


def _framing(headers: Headers, version: bytes) -> int | str | None:
    """Length of the body, "chunked", or None where nothing says it."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if len(codings) + len(lengths) > 1:
        raise Unclear("several framings")
    if codings:
        if codings[0].lower() != b"chunked" or version == b"1.0":
            raise Unclear(codings[0])
        return "chunked"
    if lengths and not re.fullmatch(rb"[0-9]{1,19}", lengths[0]):
        raise Unclear(lengths[0])
    return int(lengths[0]) if lengths else None


def _body(data: bytes, at: int, sized: int | str) -> tuple[bytes, int]:
    if isinstance(sized, int):
        if len(data) < at + sized:
            raise Incomplete
        return data[at : at + sized], at + sized
    body = b""
    while True:
        size, at = _chunk_size(data, at)
        if not size:
            return body, _trailers(data, at)
        if len(data) < at + size + 2:
            raise Incomplete
        if data[at + size : at + size + 2] != b"\r\n":
            raise Unclear("a chunk is longer than it says")
        body += data[at : at + size]
        at += size + 2


def _chunk_size(data: bytes, at: int) -> tuple[int, int]:
    line, at = _line(data, at)
    found = _CHUNK.fullmatch(line)
    if found is None:
        raise Unclear(line)
    return int(found[1], 16), at


def _trailers(data: bytes, at: int) -> int:
    while True:
        if _REFUSED_TRAILER.match(data, at):
            # The body is complete (section 8), and whoever sends this is not listened to any longer.
            return at
        line, at = _line(data, at)
        if not line:
            return at
        _field(line)


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Incomplete
    return data[at:end], end + 2
