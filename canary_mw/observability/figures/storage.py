"""The memory of one worker's figures: a file of the run folder that is mapped in segments, or private memory."""

import errno
import fcntl
import os
import secrets
from contextlib import suppress
from mmap import mmap
from typing import Protocol

from canary_mw.observability.figures.layout import (
    EVIDENCE,
    FORMAT,
    HEAD,
    MAX_BYTES,
    MAX_KEY,
    PAGE,
    PREFIX,
    Header,
    key_text,
    mark_unused,
    record_size,
    rewrite_record,
    write_filler,
    write_record,
)

_SEGMENT = 16 * PAGE
_LARGEST_SEGMENT = 256 * PAGE
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenedFolder(Protocol):
    """A run folder; its descriptor is open as long as this object lives."""

    @property
    def descriptor(self) -> int:
        """The descriptor."""


class Storage:
    """Memory that grows by segments, and never moves.

    Every part of a file is allocated before it is mapped: a write into a hole of a full disk would end the process
    (SIGBUS). The file has its name only when it is complete and locked; the lock lasts as long as the process.

    Args:
        folder: the run folder; None for private memory.

    Attributes:
        header: the cells of the first page.
        name: of the file, "" for private memory.
        limit: bytes that it may have.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: OpenedFolder | None = None) -> None:
        self.name = ""
        self.limit = MAX_BYTES
        self._folder = folder
        self._file: int | None = None
        # A file of its own: maps keep a copy of the descriptor that they are made of, in forked children too.
        self._lock: int | None = None
        self._segments: list[mmap] = []
        self._size = 0
        self._free = memoryview(b"")
        # Records of evidence, and those that are given up.
        self._records: dict[tuple[int, tuple[str, ...]], memoryview] = {}
        self._unused: list[memoryview] = []
        if folder is None:
            self.header = self._grow(PAGE).cast("Q")
        else:
            self._create(folder.descriptor)
        self.header[Header.FORMAT] = FORMAT
        self.header[Header.USED] = PAGE
        self.header[Header.ID] = secrets.randbits(63)
        if folder is not None:
            self._publish(folder.descriptor)

    def _create(self, folder: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            raise OSError(errno.ENOSYS, "this system cannot allocate files")
        name = secrets.token_hex(8)
        self.name = f".{PREFIX}{name}"
        self._file = os.open(self.name, _FLAGS, 0o600, dir_fd=folder)
        try:
            self._lock = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.header = self._grow(PAGE).cast("Q")
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Give the file up, and remove it."""
        self.close()
        if self._folder is not None:
            with suppress(OSError):
                os.unlink(self.name, dir_fd=self._folder.descriptor)

    def _publish(self, folder: int) -> None:
        name = self.name.removeprefix(".")
        try:
            os.rename(self.name, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            self.discard()
            raise
        self.name = name

    @property
    def size(self) -> int:
        """Bytes that it has."""
        return self._size

    def exists(self) -> bool:
        """Whether the file has its name still; private memory always exists."""
        if self._file is None or self._folder is None:
            return True
        try:
            found = os.stat(self.name, dir_fd=self._folder.descriptor, follow_symlinks=False)
        except OSError:
            return False
        mine = os.fstat(self._file)
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    def allocate(self, kind: int, key: tuple[str, ...], cells: int) -> memoryview | None:
        """The cells of a new record, all 0, which readers see from now on; None where there is no room.

        Args:
            cells: their size in bytes.
        """
        text = key_text(kind, key)
        if len(text) > MAX_KEY:
            return None
        size = record_size(text, cells)
        # Histories know rows and counters by their order in the file.
        unused = self._take_unused(size) if kind in EVIDENCE else None
        if unused is not None:
            view = rewrite_record(unused, kind, text, cells)
            self._note(unused, kind, key, size)
            return view
        # What is left of a segment is marked as unused, and the mark needs room, too.
        fits = len(self._free) == size or len(self._free) >= size + 16
        if not fits and not self._next_segment(size + 16):
            return None
        view = write_record(self._free, kind, text, cells)
        if kind in EVIDENCE:
            self._records[kind, key] = self._free[:size]
        self._free = self._free[size:]
        write_filler(self._free)
        self.header[Header.USED] = self._size - len(self._free)
        return view

    def _take_unused(self, size: int) -> memoryview | None:
        """The smallest unused record that has room."""
        fitting = [place for place, each in enumerate(self._unused) if len(each) >= size]
        best = min(fitting, key=lambda place: len(self._unused[place]), default=None)
        # By its place: equal views of different memory are equal.
        return None if best is None else self._unused.pop(best)

    def _note(self, unused: memoryview, kind: int, key: tuple[str, ...], size: int) -> None:
        """Keep where a record lies, and what it has left over."""
        rest = len(unused) - size
        if rest >= HEAD:
            unused, left = unused[:size], unused[size:]
            self._unused.append(left)
        self._records[kind, key] = unused

    def release(self, kind: int, key: tuple[str, ...]) -> None:
        """Give the memory of a record of evidence to later ones; nobody may use its cells any more."""
        record = self._records.pop((kind, key), None)
        if record is not None:
            mark_unused(record)
            self._unused.append(record)

    def _next_segment(self, size: int) -> bool:
        # Each map has a descriptor, so that a file with many records has larger ones.
        wanted = max(_SEGMENT, min(self._size // 4, _LARGEST_SEGMENT), size)
        length = wanted + PAGE - 1 & ~(PAGE - 1)
        if self._size + length > self.limit:
            return False
        try:
            self._free = self._grow(length)
        except OSError:
            return False
        return True

    def _grow(self, length: int) -> memoryview:
        if self._file is None:
            segment = mmap(-1, length)
        else:
            os.posix_fallocate(self._file, self._size, length)
            segment = mmap(self._file, length, offset=self._size)
        self._segments.append(segment)
        self._size += length
        return memoryview(segment)

    def content(self) -> memoryview:
        """A copy of what is published."""
        used = self.header[Header.USED]
        return memoryview(b"".join(bytes(each) for each in self._segments)[:used])

    def close(self) -> None:
        """Give the file up, with its lock; memory that is still referred to stays."""
        for file in (self._file, self._lock):
            if file is not None:
                with suppress(OSError):
                    os.close(file)
        self._file = self._lock = None
        self._segments = []
