"""A folder of files that belong to this user alone. Every file is reached by the descriptor of the folder."""

import errno
import os
import stat
from contextlib import suppress
from weakref import finalize

# What all files of a folder may take together, in bytes.
MAX_BYTES = 32 << 20

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """An open run folder. Every call raises OSError when the folder is gone, full or not writable.

    Args:
        path: it is made where there is none; the folder that it lies in has to exist.

    Raises:
        OSError: it cannot be made or opened, or others may use it.

    Attributes:
        path: where it was when it was opened.
        descriptor: its descriptor, open as long as this object lives.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        self.descriptor = os.open(path, _OPEN_FOLDER)
        closing = finalize(self, os.close, self.descriptor)
        closing.atexit = False
        try:
            _check_owner(self.descriptor)
        except OSError:
            closing()
            raise

    @property
    def lost(self) -> bool:
        """Whether it was removed; one that is made anew at its path is another folder."""
        return os.fstat(self.descriptor).st_nlink == 0

    def names(self) -> list[str]:
        """The names of its files, in no order."""
        return os.listdir(self.descriptor)

    def create(self, name: str) -> int:
        """Make a file, and open it for reading and writing.

        Raises:
            FileExistsError: there is one.
        """
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN_FILE, 0o600, dir_fd=self.descriptor)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open a file.

        Args:
            flags: `os.O_RDWR` to write, with `os.O_CREAT` to make it where there is none.
        """
        return os.open(name, flags | _OPEN_FILE, 0o600, dir_fd=self.descriptor)

    def rename(self, name: str, new: str) -> None:
        """Give a file another name; one that has it is replaced."""
        os.rename(name, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=self.descriptor)

    def stat(self, name: str) -> os.stat_result:
        """What the system knows of a file."""
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """The whole file.

        Raises:
            OSError: it has more than `limit` bytes.
        """
        with os.fdopen(self.open(name), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
        return data

    def replace(self, name: str, data: bytes) -> None:
        """Write a file as a whole: whoever reads it sees all of the old one or all of the new one."""
        temporary = f".{name}.{os.getpid()}"
        try:
            handle = self.create(temporary)
        except FileExistsError:
            # A process that was killed left it.
            self.remove(temporary)
            handle = self.create(temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            self.rename(temporary, name)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise


def remove_folder(path: str) -> None:
    """Remove a folder of this user with all of its files; nothing happens where that cannot be done."""
    with suppress(OSError):
        folder = Folder(path)
        for name in folder.names():
            with suppress(OSError):
                folder.remove(name)
        os.rmdir(path)


def _check_owner(descriptor: int) -> None:
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"it belongs to user {found.st_uid}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise PermissionError(errno.EPERM, f"others may use it, its mode is {mode:04o} and not 0700")
