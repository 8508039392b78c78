"""Where the states of releases lie: a folder that is named, the run folder, or the memory of this process."""

import errno
import fcntl
import os
from collections.abc import Callable
from typing import Literal, NamedTuple

from canary_mw.control.rollouts.latch import Latches
from canary_mw.control.rollouts.memory import MemoryStore
from canary_mw.control.rollouts.store import StateStore
from canary_mw.run_folder.folder import Folder

Kind = Literal["named", "run folder", "memory"]
_LOCK_TEST = "lock-test"


class Opened(NamedTuple):
    """A place that is in use.

    Attributes:
        folder: None for the memory of this process.
    """

    kind: Kind
    folder: Folder | None
    store: StateStore
    latches: Latches

    @property
    def where(self) -> str:
        """The place, in words."""
        if self.folder is None:
            return "the memory of this process"
        return f"{'the folder' if self.kind == 'named' else 'the run folder'} {self.folder.path}"


class Place:
    """Where the states lie.

    Args:
        named: the setting.
        run_folder: returns the run folder as it is now, None without one.
    """

    def __init__(self, named: str | None, run_folder: Callable[[], Folder | None]) -> None:
        # An app may change its directory later.
        self.named = None if named is None else os.path.abspath(named)
        self._run_folder = run_folder
        self._memory = MemoryStore()
        self._opened: Opened | None = None
        self._named_folder: Folder | None = None

    def open(self) -> Opened:
        """What is in use; what was opened before, unless it is another folder by now.

        Raises:
            OSError: the folder that is named cannot be used.
        """
        folder = self.folder()
        opened = self._opened
        if opened is None or opened.folder is not folder:
            if opened is not None:
                opened.store.close()
            opened = self._opened = self._open(folder)
        return opened

    def folder(self) -> Folder | None:
        """The folder as it is now, None for the memory of this process; raises OSError as `open` does."""
        if self.named is None:
            return self._run_folder()
        if self._named_folder is None or self._named_folder.lost:
            folder = Folder(self.named)
            _check_locks(folder)
            self._named_folder = folder
        return self._named_folder

    def _open(self, folder: Folder | None) -> Opened:
        if folder is None:
            return Opened("memory", None, self._memory, Latches(None))
        # Here, so that SQLite is loaded where a release is driven, and nowhere else.
        from canary_mw.control.rollouts.sqlite import SQLiteStore

        kind: Kind = "run folder" if self.named is None else "named"
        return Opened(kind, folder, SQLiteStore(folder), Latches(folder))

    def close(self) -> None:
        """Close what is open."""
        if self._opened is not None:
            self._opened.store.close()


def _check_locks(folder: Folder) -> None:
    """Check that two processes exclude each other by locks; over NFS a process does not even exclude itself.

    Raises:
        OSError: they do not.
    """
    # A name of its own for each process: two that test at once are no fault of the folder.
    name = f"{_LOCK_TEST}.{os.getpid()}"
    try:
        descriptors = [folder.open(name, os.O_RDWR | os.O_CREAT) for _ in range(2)]
        folder.remove(name)
    except OSError as exc:
        if exc.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            # What lies there can be read, and nothing is raised.
            return
        raise
    try:
        fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(descriptors[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        raise OSError(errno.ENOTSUP, "it has no locks that processes can rely on; name a folder on a disk of this host")
    finally:
        for each in descriptors:
            os.close(each)
