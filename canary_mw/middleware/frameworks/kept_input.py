"""A `wsgi.input` that can be read again: functions before ours may have read a form."""

from collections.abc import Iterator
from typing import Any


class KeptInput:
    """Keeps the beginning of what is read.

    Args:
        limit: bytes. Where more is read, nothing is kept any more.
    """

    def __init__(self, source: Any, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._kept: list[bytes] | None = []
        self._length = 0

    def read(self, size: int = -1) -> bytes:
        """See PEP 3333, also for the methods."""
        return self._keep(self._source.read() if size is None or size < 0 else self._source.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._keep(self._source.readline() if size is None or size < 0 else self._source.readline(size))

    def readlines(self, hint: int = -1) -> list[bytes]:
        lines: list[bytes] = []
        while (hint < 1 or sum(map(len, lines)) < hint) and (line := self.readline()):
            lines.append(line)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def again(self) -> Any:
        """The input from its beginning; as it is where too much was read. Nothing is kept from now on."""
        kept, self._kept = self._kept, None
        return _Again(b"".join(kept), self._source) if kept else self._source

    def _keep(self, data: bytes) -> bytes:
        if self._kept is not None:
            self._length += len(data)
            self._kept.append(data)
            if self._length > self._limit:
                self._kept = None
        return data


class _Again:
    """What was kept, and then what is left."""

    def __init__(self, kept: bytes, source: Any) -> None:
        self._kept = kept
        self._source = source

    def read(self, size: int | None = -1) -> bytes:
        """See PEP 3333, also for the methods."""
        if size is None or size < 0:
            kept, self._kept = self._kept, b""
            return kept + bytes(self._source.read())
        kept, self._kept = self._kept[:size], self._kept[size:]
        return kept or (bytes(self._source.read(size)) if size else b"")

    def readline(self, size: int | None = -1) -> bytes:
        limit = len(self._kept) if size is None or size < 0 else size
        end = min(self._kept.find(b"\n") + 1 or len(self._kept), limit)
        line, self._kept = self._kept[:end], self._kept[end:]
        if self._kept or line.endswith(b"\n") or (size is not None and 0 <= size <= len(line)):
            return line
        left = -1 if size is None or size < 0 else size - len(line)
        return line + bytes(self._source.readline(left) if left > 0 else self._source.readline())

    def readlines(self, hint: int = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")
