"""Where rules come from: files and directories as Kubernetes mounts them, or a fixed text."""

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

_DATA = "..data"
_TRIES = 10
# How often a place is looked at that cannot be watched, and a watched one for being another directory than before.
_POLL = 0.5
_TICK = 0.25


class FileSource:
    """Files, and directories of files, on disk.

    Of a directory, names without suffix and `*.yaml`, `*.yml`, `*.json` are read, sorted, real sub-directories too (not
    linked ones); names that begin with "." are left out. In a Kubernetes volume all keys of one load belong to the same
    update: they are read through what `..data` led to, and again when it led elsewhere meanwhile.

    Args:
        path: a file or a directory; it need not exist yet.
        more: further ones, read in this order.
        recheck: seconds after which the texts are compared even without a sign of change, because some network and
            virtual file systems report none.
    """

    def __init__(self, path: str | os.PathLike[str], *more: str | os.PathLike[str], recheck: float = 10.0) -> None:
        self._paths = [os.fspath(each) for each in (path, *more)]
        self._recheck = recheck
        self._polling = False
        # It costs 50 ms, which only a user of files has to pay; and it is not left to the thread that watches, since a
        # fork during its import, or its first call, would give the child one that never ends.
        _prepare()
        self._frozen: set[str] = set()

    def load(self) -> list[Document]:
        """Read everything anew; each file through one open.

        Raises:
            SourceError: something is missing, unreadable, no regular file, too large (64 MiB) or not UTF-8.
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
            self._warn_of_subpath(document.name)
        return documents

    def _warn_of_subpath(self, name: str) -> None:
        if name in self._frozen or not _is_unlinked(name):
            return
        self._frozen.add(name)
        text = "%s will never change: it is mounted alone (subPath); mount the whole volume as a directory"
        logger.warning(text, name)

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """Watch by inotify, or look every half second where that is not to be had; see `ConfigSource.changes`."""
        while not stop.is_set():
            try:
                yield from self._watch(stop)
            except (OSError, RuntimeError) as exc:
                self._warn_of_polling(exc)
                if not stop.wait(_POLL):
                    yield

    def _warn_of_polling(self, trouble: Exception) -> None:
        # What is missing is for `load` to report.
        if isinstance(trouble, FileNotFoundError) or self._polling:
            return
        self._polling = True
        logger.warning("cannot watch %s, looking every %s s instead: %s", ", ".join(self._paths), _POLL, trouble)

    def _watch(self, stop: threading.Event) -> Iterator[None]:
        """One watch, until what it is tied to has moved."""
        import watchfiles

        _quieten("watchfiles.main")
        watched = self._watched()
        batches = watchfiles.watch(
            *watched,
            watch_filter=None,
            recursive=False,
            step=30,
            debounce=200,
            stop_event=stop,
            rust_timeout=max(1, int(1000 * min(_TICK, self._recheck))),
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        due = 0.0
        with closing(batches):
            for batch in batches:
                if batch or time.monotonic() >= due:
                    due = time.monotonic() + self._recheck
                    yield
                # An inode number can return at once with the next directory, so its end is looked for as well.
                if any(change == watchfiles.Change.deleted and name in watched for change, name in batch):
                    return
                if watched != (self._watched() if batch else _inodes(watched)):
                    return

    def _watched(self) -> dict[str, tuple[int, int]]:
        return _inodes({name for path in self._paths for name in _directories(os.path.abspath(path))})


@cache
def _prepare() -> None:
    """Import watchfiles, and watch nothing once: its native part sets things up at its first call, behind locks."""
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
    for _ in range(_TRIES):
        pinned = _read_link(os.path.join(root, _DATA))
        try:
            documents = [_read(path, name) for name, path in _rule_files(root, pinned)]
        except FileNotFoundError as exc:
            gone = exc.filename
        else:
            if pinned == _read_link(os.path.join(root, _DATA)):
                return documents
            gone = _DATA
        time.sleep(0.01)
    raise SourceError(f"{gone} is missing, or is replaced too fast to be read", file=root)


def _rule_files(root: str, pinned: str | None) -> list[tuple[str, str]]:
    """(name to show, path to open) of each rule file, by name."""
    files = list(_walk(root, root))
    if pinned is not None:
        files += _walk(os.path.join(root, pinned), root)
    return sorted(files)


def _walk(top: str, shown: str) -> Iterator[tuple[str, str]]:
    for entry in _entries(top):
        name = os.path.join(shown, entry.name)
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
    # A key of the volume: it is read through the pinned generation.
    return not entry.is_symlink() or not (os.readlink(entry.path).startswith(_DATA + "/") or entry.is_dir())


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


def _is_unlinked(path: str) -> bool:
    try:
        return os.stat(path).st_nlink == 0
    except OSError:
        return False


def _directories(path: str) -> Iterator[str]:
    """Absolute path -> directories where an entry may change that alters what a load reads."""
    chain = _links(path)
    if not os.path.isdir(path):
        # The content of one generation of a volume never changes.
        yield from (top for top in map(os.path.dirname, chain) if os.path.basename(top) != _DATA)
        return
    yield from map(os.path.dirname, chain[:-1])
    yield path
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and _is_rule_file(entry)):
            yield from _directories(entry.path)


def _links(path: str) -> list[str]:
    """The path and what it leads to, link by link."""
    chain = [path]
    while (target := _read_link(chain[-1])) is not None and len(chain) < 40:
        chain.append(os.path.join(os.path.dirname(chain[-1]), target))
    return chain


def _inodes(directories: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Raises OSError where one is missing."""
    status = {name: os.stat(name) for name in directories}
    return {name: (each.st_dev, each.st_ino) for name, each in status.items()}


def _quieten(name: str) -> None:
    # It reports each batch at INFO; a level that the application chose is left alone.
    if logging.getLogger(name).level == logging.NOTSET:
        logging.getLogger(name).setLevel(logging.WARNING)
