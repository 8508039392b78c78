"""The files of a run folder: those of workers that run, of workers that have ended, and what was added up of these.

Who gets the lock of a file knows that its worker has ended. Its counts are then added to the file of all ended ones,
which names what it holds: where the process ends between that and the removal of the worker's file, nothing counts
twice.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from canary_mw.observability.figures.layout import (
    LOCK,
    MAX_BYTES,
    MIN_BYTES,
    OLD_RETIRED,
    PREFIX,
    RETIRED,
    Header,
    header_cells,
    is_readable,
)

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# Seconds for which a reader waits for who adds up; then it reads without the lock.
_PATIENCE = 1.0
_PAUSE = 0.005


class WorkerFile(NamedTuple):
    """The content of a worker's file, and whether the worker runs."""

    name: str
    content: memoryview
    alive: bool


@contextmanager
def folder_lock(folder: int, *, exclusive: bool, patience: float = _PATIENCE) -> Iterator[bool]:
    """Hold the lock of the figures of a folder; gives whether it is held."""
    try:
        file = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError:
        yield False
        return
    try:
        yield _try_lock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, time.monotonic() + patience)
    finally:
        os.close(file)


def _try_lock(file: int, kind: int, limit: float) -> bool:
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= limit:
                return False
            time.sleep(_PAUSE)
        else:
            return True


def worker_files(folder: int, *, only_dead: bool = False) -> tuple[list[WorkerFile], list[str]]:
    """The readable files of workers, and the names of the others with the reason; call it with the folder's lock.

    Args:
        only_dead: those of workers that have ended; the folder's lock is held alone.
    """
    found, skipped = [], []
    for name in sorted(_names(folder)):
        with _opened(folder, name) as file:
            if file is None:
                continue
            # Two readers may look at the same time.
            alive = not _try_lock(file, fcntl.LOCK_EX if only_dead else fcntl.LOCK_SH, 0.0)
            if alive and only_dead:
                continue
            content = _content(file)
        if is_readable(content):
            found.append(WorkerFile(name, content, alive))
        else:
            skipped.append(f"{name}: its format is that of another version of canary-mw")
    return found, skipped


def retired_content(folder: int, name: str = RETIRED) -> memoryview | None:
    """The file of all ended workers, None without one."""
    with _opened(folder, name) as file:
        content = _content(file) if file is not None else memoryview(b"")
    return content if is_readable(content) else None


def retired_contents(folder: int) -> list[memoryview]:
    """The files of all ended workers: that which this code writes, and that of the format before."""
    found = [retired_content(folder, name) for name in (RETIRED, OLD_RETIRED)]
    return [each for each in found if each is not None]


def read_text(folder: int, name: str) -> bytes | None:
    """The content of a file of the folder, None without one."""
    with _opened(folder, name) as file:
        return None if file is None else bytes(_content(file))


def write_text_file(folder: int, target: str, content: bytes) -> None:
    """Replace a file of the folder at once; raises OSError."""
    name = f".{target}-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(file, "wb") as writer:
            writer.write(content)
        os.rename(name, target, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise


def remove(folder: int, name: str) -> None:
    """Remove a file that may be gone already."""
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


class Room(NamedTuple):
    """How large figures may become.

    Attributes:
        file: bytes of the file of one worker.
        histories: bytes that all workers may still use for histories.
    """

    file: int
    histories: int


def room_in(folder: int, own: str) -> Room:
    """The room in a folder: each worker has its share for what it counts, and histories take what is left of most.

    Args:
        own: the name of the worker's file.
    """
    names = [name for name in _names(folder) if name != own]
    size = 0
    for name in (*names, own, RETIRED, OLD_RETIRED):
        with suppress(OSError):
            size += os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    return Room(max(MAX_BYTES // (len(names) + 1), MIN_BYTES), MAX_BYTES // 4 * 3 - size)


def file_id(content: memoryview) -> int:
    """What tells a file from all others."""
    number: int = header_cells(content)[Header.ID]
    return number


def _names(folder: int) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.startswith(PREFIX)]
    except OSError:
        return []


@contextmanager
def _opened(folder: int, name: str) -> Iterator[int | None]:
    try:
        file = os.open(name, _FLAGS, dir_fd=folder)
    except OSError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _content(file: int) -> memoryview:
    """What is in a file now. It is copied, never mapped: its worker may cut it, and reading a hole ends a process."""
    size, content = os.fstat(file).st_size, b""
    while len(content) < size and (piece := os.pread(file, size - len(content), len(content))):
        content = content + piece if content else piece
    return memoryview(content)
