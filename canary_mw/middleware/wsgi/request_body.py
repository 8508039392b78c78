"""The body of a request behind `wsgi.input` (PEP 3333)."""

from collections.abc import Iterator
from typing import Any

from canary_mw.exceptions import ClientDisconnected, LengthRequired
from canary_mw.types import Environ
from canary_mw.upstreams.body_buffer import SyncReplayBuffer

# Bytes of a body that are read at once. Servers return when they have all of them, or the body ends.
CHUNK_SIZE = 65536


class RequestBody:
    """The body of a request as an iterator over its chunks.

    Args:
        length: bytes, by Content-Length; None for a body whose end the server reports (`wsgi.input_terminated`).

    Raises:
        LengthRequired: the length is None, and the server does not report the end.
    """

    def __init__(self, environ: Environ, length: int | None) -> None:
        if length is None and not environ.get("wsgi.input_terminated"):
            raise LengthRequired("a body without length, and the server does not say where it ends")
        self._read = environ["wsgi.input"].read
        self._left = length

    def open(self) -> "bytes | RequestBody":
        """The body, as bytes when it is one chunk.

        Raises:
            ClientDisconnected: the client disconnected before the body was complete; iterating raises it too.
        """
        if self._left is None or self._left > CHUNK_SIZE:
            return self
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._left == 0:
            raise StopIteration
        chunk = self._read_chunk(CHUNK_SIZE if self._left is None else min(CHUNK_SIZE, self._left))
        if self._left is not None:
            self._left -= len(chunk)
        elif not chunk:
            self._left = 0
            raise StopIteration
        return chunk

    def _read_chunk(self, size: int) -> bytes:
        try:
            chunk: bytes = self._read(size)
        except OSError as exc:
            raise ClientDisconnected("the client left before its body was complete") from exc
        if self._left is not None and not chunk:
            raise ClientDisconnected("the client left before its body was complete")
        return chunk


class RecordingInput:
    """A `wsgi.input` that feeds what the app reads to a buffer.

    Args:
        length: bytes of the body; None for one whose end the server reports.
    """

    def __init__(self, source: Any, buffer: SyncReplayBuffer, length: int | None) -> None:
        self._source = source
        self._buffer = buffer
        self._left = length

    def read(self, size: int = -1) -> bytes:
        """See PEP 3333, also for the methods."""
        return self._feed(self._source.read() if size is None or size < 0 else self._source.read(size), size == 0)

    def readline(self, size: int = -1) -> bytes:
        line = self._source.readline() if size is None or size < 0 else self._source.readline(size)
        return self._feed(line, size == 0)

    def readlines(self, hint: int = -1) -> list[bytes]:
        lines: list[bytes] = []
        while (hint < 1 or sum(map(len, lines)) < hint) and (line := self.readline()):
            lines.append(line)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __getattr__(self, name: str) -> Any:
        # The app may read by a method that only this server has. Such reads are not recorded, so there is no copy.
        self._buffer.close()
        return getattr(self._source, name)

    def _feed(self, chunk: bytes, empty_read: bool) -> bytes:
        if self._left is not None:
            self._left -= len(chunk)
        ended = not chunk and not empty_read
        self._buffer.feed(chunk, last=ended if self._left is None else self._left == 0)
        return chunk
