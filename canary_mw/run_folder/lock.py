"""What one process does for all workers of a server: the one that holds a lock in the run folder does it.

A lock is held until its process ends. The system gives it up then, however the process ends; no number of a process is
compared, which another one might have by then.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.run_folder.folder import Folder
from canary_mw.run_folder.opened import give_up

# Seconds between two attempts at a lock, for those that wait: another one takes over within a second.
RETRY_INTERVAL = 0.25


class FolderLock:
    """A lock of a run folder, for one thread. It is tried, and never waited for.

    Args:
        folder: returns the run folder as it is now, see `run_folder`; None where this process has none.
        name: that of the file.

    Attributes:
        folder: the run folder of the last attempt; None where this process shares nothing.
    """

    def __init__(self, folder: Callable[[], Folder | None], name: str) -> None:
        self.folder: Folder | None = None
        self._find_folder = folder
        self._name = name
        self._descriptor: int | None = None
        _locks.add(self)

    def acquire(self) -> bool:
        """Take the lock if nobody holds it; returns whether this object holds it.

        It holds it as well where there is no folder that can be used: this process then acts for itself. A lock whose
        file is gone is lost, and taken anew if nobody was faster.
        """
        ensure_forked_hooks()
        # A folder that fails is given up. Then there is another one or none.
        for _ in range(2):
            self.folder = self._find_folder()
            if self.folder is None:
                break
            try:
                return self._in_place(self.folder) or self._take(self.folder)
            except OSError as exc:
                give_up(self.folder, exc)
        self.release()
        return self.folder is None

    def release(self) -> None:
        """Give the lock up, so that another process takes it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _in_place(self, folder: Folder) -> bool:
        """Whether it is held, and its file is the one that others try."""
        if self._descriptor is None:
            return False
        if not _is_file(folder, self._name, self._descriptor):
            self.release()
        return self._descriptor is not None

    def _take(self, folder: Folder) -> bool:
        descriptor = folder.open(self._name, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been removed between the two.
            taken = _is_file(folder, self._name, descriptor)
        except BlockingIOError:
            taken = False
        except BaseException:
            os.close(descriptor)
            raise
        if taken:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return taken


def _is_file(folder: Folder, name: str, descriptor: int) -> bool:
    """Whether a descriptor is one of the file that has the name now."""
    with suppress(FileNotFoundError):
        return os.path.samestat(folder.stat(name), os.fstat(descriptor))
    return False


_locks: WeakSet[FolderLock] = WeakSet()


def _after_fork() -> None:
    # The parent goes on holding it: a lock belongs to what is open, and this closes one of two descriptors of that.
    for lock in _locks:
        lock.release()


after_fork(_after_fork)
