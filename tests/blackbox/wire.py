"""Raw bytes, and an upstream that keeps all bytes it gets and parses them strictly.

Requests are identified by a token, a word that no other request contains.
"""

import contextlib
import json
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

TOKEN = re.compile(rb"tk[0-9a-f]{12}")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
TIMEOUT = 20.0


def new_token() -> bytes:
    """A word for one request."""
    return b"tk" + secrets.token_hex(6).encode()


class Line:
    """One connection, from either end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(TIMEOUT)
        self.got = bytearray()
        self._taken = 0
        # Where each message that was read began.
        self.starts: list[int] = []

    def send(self, data: bytes) -> None:
        """All of it, or what the other side takes before it leaves."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def more(self) -> bytes:
        """What comes next, b"" when the other side has left."""
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            data = b""
        self.got += data
        return data

    def begin(self) -> None:
        """A message begins here."""
        self.starts.append(self._taken)

    def until(self, mark: bytes) -> bytes:
        """All up to a mark and with it; raises EOFError when it does not come."""
        while (at := self.got.find(mark, self._taken)) < 0:
            if not self.more():
                raise EOFError(f"no {mark!r} in {bytes(self.got[self._taken :])!r}")
        start, self._taken = self._taken, at + len(mark)
        return bytes(self.got[start : self._taken])

    def exactly(self, count: int) -> bytes:
        """So many bytes, or EOFError."""
        while len(self.got) < self._taken + count:
            if not self.more():
                raise EOFError(f"{count} bytes expected")
        start, self._taken = self._taken, self._taken + count
        return bytes(self.got[start : self._taken])

    def rest(self) -> bytes:
        """All until the other side leaves."""
        while self.more():
            pass
        start, self._taken = self._taken, len(self.got)
        return bytes(self.got[start:])

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        """Leave, also where a thread is reading."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class Head(NamedTuple):
    """The head of a request as an upstream reads it."""

    line: bytes
    headers: list[tuple[bytes, bytes]]

    def all(self, name: bytes) -> list[bytes]:
        """Values of a header."""
        return [value for key, value in self.headers if key.lower() == name]


def parse(head: bytes) -> Head:
    """Split a head into its fields."""
    line, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = [field.partition(b":") for field in fields]
    return Head(line, [(name, value.strip(b" \t")) for name, _, value in pairs])


def faults(raw: bytes) -> list[str]:
    """What a second parser might read differently in the bytes of one forwarded request."""
    head, end, body = raw.partition(b"\r\n\r\n")
    request = parse(head)
    lengths, codings = request.all(b"content-length"), request.all(b"transfer-encoding")
    found = {
        "no end of the head": not end,
        "a control byte": bool(set(head.replace(b"\r\n", b"")) & ({*range(32), 127} - {9})),
        "a folded line": b"\r\n " in head or b"\r\n\t" in head,
        "a name that is no token": any(not _NAME.fullmatch(name) for name, _ in request.headers),
        "not one Host": len(request.all(b"host")) != 1,
        "two framings": len(lengths) + len(codings) > 1,
        "a length that is no number": any(not value.isdigit() for value in lengths),
        "a coding besides chunked": any(value != b"chunked" for value in codings),
        "bytes behind the body": bool(lengths) and len(body) > int(lengths[0]) if not codings else False,
        "a body that nobody announced": bool(body) and not lengths and not codings,
    }
    return [fault for fault, there in found.items() if there]


def chunked(line: Line) -> Iterator[bytes]:
    """The chunks of a chunked body, until its regular end."""
    while size := int(line.until(b"\r\n"), 16):
        yield line.exactly(size)
        assert line.exactly(2) == b"\r\n"
    assert line.exactly(2) == b"\r\n", "trailers came through"


def body_of(line: Line, head: Head) -> bytes:
    """The whole body of a request; EOFError when the other side left before its end."""
    if head.all(b"transfer-encoding"):
        return b"".join(chunked(line))
    return line.exactly(int((head.all(b"content-length") or [b"0"])[0]))


Script = Callable[[Line, Head], object]


class Origin:
    """An upstream that answers every request with what it got, unless a script says otherwise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scripts: dict[bytes, Script] = {}
        self.lines: list[Line] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line = Line(self._listener.accept()[0])
                self.lines.append(line)
                self._threads.append(threading.Thread(target=self._serve, args=(line,)))
                self._threads[-1].start()

    def _serve(self, line: Line) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                line.begin()
                head = line.until(b"\r\n\r\n")
                token = TOKEN.search(head)
                self.scripts.get(token[0] if token else b"", self._echo)(line, parse(head))
        line.close()

    def _echo(self, line: Line, head: Head) -> None:
        body = body_of(line, head)
        echo: dict[str, Any] = {"who": self.name, "line": head.line.decode("latin-1"), "body": body.decode("latin-1")}
        echo["headers"] = [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in head.headers]
        body = json.dumps(echo).encode()
        sent = b"" if head.line.startswith(b"HEAD") else body
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), sent))

    def requests(self, token: bytes) -> list[bytes]:
        """The bytes of each request with the token, up to the next request that was read or the end."""
        found = []
        for line in tuple(self.lines):
            raw = bytes(line.got)
            starts = tuple(line.starts)
            messages = [raw[start:end] for start, end in zip(starts, (*starts[1:], None), strict=False)]
            found += [message for message in messages if token in message]
        return found

    def close(self) -> None:
        """Stop, with all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self.lines:
            line.close()
        for thread in self._threads:
            thread.join()
