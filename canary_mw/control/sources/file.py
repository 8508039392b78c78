"""Rules from files and directories, also from volumes of Kubernetes."""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import cache
from importlib import import_module

from canary_mw.config.document import EMPTY_DIRECTORY, Document, document_in_error
from canary_mw.control.sources.directory import DATA_LINK, entries_of, is_rule_file, read_directory
from canary_mw.control.sources.partial import PartialFiles
from canary_mw.control.sources.text_file import TextFile, printable, read_link, read_text_file, unreadable
from canary_mw.control.sources.volume import is_deleted, is_mounted_alone, mount_points, volume_line
from canary_mw.host import HostLogger
from canary_mw.locks import Latch

logger = HostLogger(logging.getLogger("canary_mw.sources"))

# Seconds between two checks of a path that cannot be watched.
_POLL_INTERVAL = 0.5
# Seconds after which a watched path is checked for being another directory than before.
_WATCH_TIMEOUT = 0.25
# Seconds that a native thread has to end.
_END_OF_THREAD = 0.5


class FileSource:
    """Files, and directories of files, on disk.

    In a directory, names without suffix and `*.yaml`, `*.yml`, `*.json` are read in sorted order, and sub-directories,
    but not links to directories. Names that begin with "." are skipped. In a Kubernetes volume, all keys of one load
    belong to the same update: they are read from the target of `..data`, and again if that changed meanwhile.

    Args:
        path: a file or a directory; it need not exist yet.
        more: further ones, read in this order.
        recheck: seconds after which the documents are compared without a reported change, because some network and
            virtual file systems report none.
    """

    def __init__(self, path: str | os.PathLike[str], *more: str | os.PathLike[str], recheck: float = 10.0) -> None:
        self._paths = [os.fspath(each) for each in (path, *more)]
        self.name = ", ".join(self._paths)
        self._recheck = recheck
        self._polling = False
        self._partial = PartialFiles()
        # It takes 50 ms, and only this source needs it. It is not left to the thread that watches: a fork during the
        # import or the first call would leave the child with a lock that is held forever.
        _initialize_watchfiles()
        _silence("watchfiles.main")
        self._subpath_warned: set[str] = set()
        # Read with the first load: a file is mounted before the process starts.
        self._mounts: frozenset[str] | None = None

    def missing(self) -> list[str]:
        """The paths that do not exist at the moment."""
        return [path for path in self._paths if not os.path.exists(path)]

    def load(self) -> list[Document]:
        """Read everything again; each file is opened once.

        What is missing, unreadable, no regular file, larger than 64 MiB or no text is a Document in error, and so is
        a directory without any rule file (`EMPTY_DIRECTORY`). What may be only a part of a file, because it is written
        in place, is marked as partial; see `PartialFiles`.
        """
        documents = self._partial.check([file for path in self._paths for file in _load(path)])
        if self._mounts is None:
            self._mounts = mount_points()
        for document in documents:
            self._warn_about_subpath(document.name, self._mounts)
        return documents

    def volume_lines(self) -> list[str]:
        """What is known of the volumes of the paths, a line each."""
        found = ((path, volume_line(path, self._mounts or frozenset())) for path in self._paths)
        return [f"{printable(path)}: {line}" for path, line in found if line is not None]

    def _warn_about_subpath(self, name: str, mounts: frozenset[str]) -> None:
        if name in self._subpath_warned:
            return
        if is_deleted(name):
            text = "%s will never change: it is mounted alone (subPath); mount the whole volume as a directory"
        elif is_mounted_alone(name, mounts):
            text = "%s is mounted alone (subPath): updates of its volume never arrive; mount the volume as a directory"
        else:
            return
        self._subpath_warned.add(name)
        logger.warning(text, name)

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """Watch by inotify, or poll every half second if that fails; see `ConfigSource.changes`."""
        while not stop.is_set():
            try:
                yield from self._watch(stop)
            except (OSError, RuntimeError) as exc:
                self._warn_about_polling(exc)
                if not stop.wait(_POLL_INTERVAL):
                    yield

    def _warn_about_polling(self, error: Exception) -> None:
        # `load` reports a missing path.
        if isinstance(error, FileNotFoundError) or self._polling:
            return
        self._polling = True
        logger.warning("cannot watch %s, looking every %s s instead: %s", ", ".join(self._paths), _POLL_INTERVAL, error)

    def _watch(self, stop: threading.Event) -> Iterator[None]:
        """Watch until one of the watched directories is replaced."""
        import watchfiles

        watched = self._watched_directories()
        batches = watchfiles.watch(
            *watched,
            watch_filter=None,
            recursive=False,
            step=30,
            debounce=200,
            stop_event=stop,
            rust_timeout=max(1, int(1000 * min(_WATCH_TIMEOUT, self._recheck))),
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        due = 0.0
        with closing(batches):
            for batch in batches:
                if batch or time.monotonic() >= min(due, self._partial.due):
                    due = time.monotonic() + self._recheck
                    yield
                # The next directory may get the same inode number at once, so the deletion is checked, too.
                if any(change == watchfiles.Change.deleted and name in watched for change, name in batch):
                    return
                if watched != (self._watched_directories() if batch else _inodes(watched)):
                    return

    def _watched_directories(self) -> dict[str, tuple[int, int]]:
        return _inodes({name for path in self._paths for name in _directories(os.path.abspath(path))})


@cache
def _initialize_watchfiles() -> None:
    """Import watchfiles, and call it once: its native part initializes itself under locks at the first call.

    That call has a native thread, which ends a moment later. It is waited for: a server may fork next.
    """
    ended, before = Latch(), _threads()
    ended.set()
    for _ in import_module("watchfiles").watch(step=1, force_polling=True, stop_event=ended):
        raise AssertionError("it was stopped before")
    deadline = time.monotonic() + _END_OF_THREAD
    while _threads() > before and time.monotonic() < deadline:
        time.sleep(0.001)


def _threads() -> int:
    """How many threads the process has, native ones included; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _load(path: str) -> list[TextFile]:
    try:
        files = read_directory(path) if os.path.isdir(path) else [read_text_file(path, path)]
    except OSError as exc:
        return [unreadable(path, path, exc)]
    hint = "put a .yaml file with Mappings into it"
    message = "the directory is empty: it holds no rule file"
    return files or [TextFile(path, document_in_error(printable(path), message, code=EMPTY_DIRECTORY, hint=hint))]


def _directories(path: str) -> Iterator[str]:
    """The directories whose entries decide what a load of an absolute path reads."""
    chain = _links(path)
    if not os.path.isdir(path):
        # The content of the target of `..data` never changes.
        yield from (top for top in map(os.path.dirname, chain) if os.path.basename(top) != DATA_LINK)
        return
    yield from map(os.path.dirname, chain[:-1])
    entries = entries_of(path)
    yield path
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and is_rule_file(entry)):
            # Whoever lets us read it changes its entry in this directory.
            with suppress(PermissionError):
                yield from _directories(entry.path)


def _links(path: str) -> list[str]:
    """The path and the targets of its links, one after the other."""
    chain = [path]
    while (target := read_link(chain[-1])) is not None and len(chain) < 40:
        chain.append(os.path.join(os.path.dirname(chain[-1]), target))
    return chain


def _inodes(directories: Iterable[str]) -> dict[str, tuple[int, int]]:
    """(device, inode) of directories; raises OSError if one is missing."""
    status = {name: os.stat(name) for name in directories}
    return {name: (each.st_dev, each.st_ino) for name, each in status.items()}


def _silence(name: str) -> None:
    # It logs each batch at INFO. A level that the application set is kept.
    if logging.getLogger(name).level == logging.NOTSET:
        logging.getLogger(name).setLevel(logging.WARNING)
