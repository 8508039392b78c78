"""Rules from files and directories, also from volumes of Kubernetes."""

import logging
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cache
from importlib import import_module

from canary_mw.config.document import Document
from canary_mw.control.sources.base import EmptySource
from canary_mw.exceptions import SourceError

logger = logging.getLogger("canary_mw.sources")

MAX_BYTES = 64 * 1024 * 1024
SUFFIXES = frozenset({".yaml", ".yml", ".json", ""})

_DATA_LINK = "..data"
_READ_ATTEMPTS = 10
# Seconds between two checks of a path that cannot be watched.
_POLL_INTERVAL = 0.5
# Seconds after which a watched path is checked for being another directory than before.
_WATCH_TIMEOUT = 0.25


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
        self._recheck = recheck
        self._polling = False
        # It takes 50 ms, and only this source needs it. It is not left to the thread that watches: a fork during the
        # import or the first call would leave the child with a lock that is held forever.
        _initialize_watchfiles()
        self._subpath_warned: set[str] = set()

    def load(self) -> list[Document]:
        """Read everything again; each file is opened once.

        Raises:
            SourceError: a path is missing, unreadable, no regular file, larger than 64 MiB or not UTF-8.
            EmptySource: a directory without any rule file.
        """
        found = [(path, self._load(path)) for path in self._paths]
        documents = [document for _, some in found for document in some]
        for path, some in found:
            if not some:
                raise EmptySource(path, documents)
        return documents

    def _load(self, path: str) -> list[Document]:
        try:
            documents = _read_directory(path) if os.path.isdir(path) else [_read(path, path)]
        except OSError as exc:
            raise _unreadable(exc, path) from exc
        for document in documents:
            self._warn_about_subpath(document.name)
        return documents

    def _warn_about_subpath(self, name: str) -> None:
        if name in self._subpath_warned or not _is_deleted(name):
            return
        self._subpath_warned.add(name)
        text = "%s will never change: it is mounted alone (subPath); mount the whole volume as a directory"
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

        _silence("watchfiles.main")
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
                if batch or time.monotonic() >= due:
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
    """Import watchfiles, and call it once: its native part initializes itself under locks at the first call."""
    ended = threading.Event()
    ended.set()
    for _ in import_module("watchfiles").watch(step=1, force_polling=True, stop_event=ended):
        raise AssertionError("it was stopped before")


def _unreadable(exc: OSError, path: str) -> SourceError:
    hint = "see that the path is right and the volume is mounted" if isinstance(exc, FileNotFoundError) else None
    if isinstance(exc, PermissionError):
        hint = "let the user of this process read it: in a pod, defaultMode or fsGroup"
    return SourceError(f"cannot be read: {exc.strerror}", file=path, hint=hint)


def _read_directory(root: str) -> list[Document]:
    for _ in range(_READ_ATTEMPTS):
        data_dir = _read_link(os.path.join(root, _DATA_LINK))
        try:
            documents = [_read(path, name) for name, path in _rule_files(root, data_dir)]
        except FileNotFoundError as exc:
            missing = exc.filename
        else:
            if data_dir == _read_link(os.path.join(root, _DATA_LINK)):
                return documents
            missing = _DATA_LINK
        time.sleep(0.01)
    raise SourceError(f"{missing} is missing, or is replaced too fast to be read", file=root)


def _rule_files(root: str, data_dir: str | None) -> list[tuple[str, str]]:
    """(name in diagnostics, path to open) of each rule file, sorted by name."""
    files = list(_walk(root, root))
    if data_dir is not None:
        files += _walk(os.path.join(root, data_dir), root)
    return sorted(files)


def _walk(top: str, name_prefix: str) -> Iterator[tuple[str, str]]:
    for entry in _entries(top):
        name = os.path.join(name_prefix, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, name)
        elif _is_rule_file(entry):
            yield name, entry.path


def _entries(top: str) -> list[os.DirEntry[str]]:
    with os.scandir(top) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _is_rule_file(entry: os.DirEntry[str]) -> bool:
    if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
        return False
    # A link to `..data` is a key of the volume, which is read from the target of `..data`.
    return not entry.is_symlink() or not (os.readlink(entry.path).startswith(_DATA_LINK + "/") or entry.is_dir())


def _read_link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _read(path: str, name: str) -> Document:
    # Opening a FIFO must not wait for its writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("is neither a file nor a directory", file=name)
        if status.st_size > MAX_BYTES:
            raise SourceError(f"is larger than {MAX_BYTES >> 20} MiB", file=name, hint="split it into several files")
        data = file.read()
    try:
        return Document(data.decode("utf-8-sig"), name)
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise SourceError(f"is not UTF-8 at byte {exc.start}", file=name, line=line, hint="save it as UTF-8") from exc


def _is_deleted(path: str) -> bool:
    try:
        return os.stat(path).st_nlink == 0
    except OSError:
        return False


def _directories(path: str) -> Iterator[str]:
    """The directories whose entries decide what a load of an absolute path reads."""
    chain = _links(path)
    if not os.path.isdir(path):
        # The content of the target of `..data` never changes.
        yield from (top for top in map(os.path.dirname, chain) if os.path.basename(top) != _DATA_LINK)
        return
    yield from map(os.path.dirname, chain[:-1])
    yield path
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and _is_rule_file(entry)):
            yield from _directories(entry.path)


def _links(path: str) -> list[str]:
    """The path and the targets of its links, one after the other."""
    chain = [path]
    while (target := _read_link(chain[-1])) is not None and len(chain) < 40:
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
