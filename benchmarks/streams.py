"""Large bodies: a server that sends and takes them, `python -m benchmarks.streams PORT`, and a client for it.

Both use blocking sockets and one buffer, so that neither is what limits a proxy between them.
"""

import socket
import sys
from threading import Thread
from time import perf_counter

from .processes import Failed

_BUFFER = 1 << 20
_PATIENCE = 120.0


def serve(port: int) -> None:
    """GET `/down-SIZE` is answered with so many bytes; of all else the body is read, and the service named."""
    with socket.create_server(("127.0.0.1", port), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            Thread(target=_conversation, args=(connection,), daemon=True).start()


def _conversation(connection: socket.socket) -> None:
    with connection:
        while (head := _head(connection)) is not None:
            lines, rest = head
            method, target, _ = lines[0].split(b" ")
            _take(connection, _length(lines) - len(rest))
            if method == b"GET" and target.startswith(b"/down-"):
                _answer(connection, int(target.removeprefix(b"/down-")))
            else:
                service = b"gray" if b"gray: true" in lines else b"stable"
                body = b'{"service": "%b"}' % service
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def _answer(connection: socket.socket, size: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    _send(connection, size)


def download(port: int, path: str, size: int) -> float:
    """Seconds for a body of `size` bytes from `path`, which ends with its size.

    Raises:
        Failed: the answer is another one.
    """
    return _exchange(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, size)


def upload(port: int, path: str, size: int) -> float:
    """Seconds for a body of `size` bytes to `path`, until it is answered.

    Raises:
        Failed: the answer is another one.
    """
    return _exchange(port, f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n", size, None)


def _exchange(port: int, head: str, sent: int, expected: int | None) -> float:
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as connection:
        began = perf_counter()
        connection.sendall(head.encode())
        _send(connection, sent)
        answer = _head(connection)
        if answer is None or not answer[0][0].startswith(b"HTTP/1.1 200"):
            raise Failed(f"answered {answer and answer[0][0]!r} to {head.partition(chr(13))[0]}")
        size = _length(answer[0])
        if expected is not None and size != expected:
            raise Failed(f"announced {size} bytes, not {expected}")
        _take(connection, size - len(answer[1]))
        return perf_counter() - began


def _head(connection: socket.socket) -> tuple[list[bytes], bytes] | None:
    """Lines of a head, and what came of the body with it; None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return [first, *(line.lower() for line in lines)], rest


def _length(lines: list[bytes]) -> int:
    return next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)


def _take(connection: socket.socket, size: int) -> None:
    buffer = bytearray(_BUFFER)
    while size > 0:
        count = connection.recv_into(buffer, min(size, _BUFFER))
        if not count:
            raise Failed(f"the connection ended {size} bytes too early")
        size -= count


def _send(connection: socket.socket, size: int) -> None:
    block = memoryview(bytes(_BUFFER))
    while size > 0:
        connection.sendall(block[:size])
        size -= _BUFFER


if __name__ == "__main__":
    serve(int(sys.argv[1]))
