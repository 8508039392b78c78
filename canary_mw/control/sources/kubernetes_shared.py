"""One set of watches for all workers of a server: one of them watches, and writes into the run folder what it knows.

There are two files for each address. The snapshot holds the documents of the last complete lists, and is written when
they change. The status is written every second: it says how it goes, and that somebody still watches.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from time import monotonic, time
from typing import Any, NamedTuple

from canary_mw.config.document import Document
from canary_mw.control.sources.kubernetes_cache import as_json, from_json
from canary_mw.locks import Latch
from canary_mw.observability.source_status import SourceStatus
from canary_mw.run_folder.folder import Folder
from canary_mw.run_folder.lock import FolderLock
from canary_mw.run_folder.opened import give_up

# Seconds between two writes of the status, and of silence after which nobody is taken to watch: a process that holds
# the lock may be stopped.
STATUS_INTERVAL, MAX_SILENCE = 1.0, 10.0
# Bytes of a snapshot. The folder has 32 MiB for everything.
_MAX_SNAPSHOT, _MAX_STATUS = 16 << 20, 1 << 20

Stamp = tuple[int, int, int]


class Snapshot(NamedTuple):
    """What is known of an address.

    Attributes:
        documents: None as long as there was no complete list.
        problem: why there are none.
    """

    documents: tuple[Document, ...] | None
    problem: str


class SharedFiles:
    """The files of one address, and the lock of the process that writes them.

    Args:
        folder: see `run_folder`.
        key: what the documents depend on; another key is another set of files.
    """

    def __init__(self, folder: Callable[[], Folder | None], key: dict[str, Any]) -> None:
        text = json.dumps(key, sort_keys=True)
        name = f"kubernetes-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.lock = FolderLock(folder, f"{name}.lock")
        self._snapshot, self._status = f"{name}.json", f"{name}.status"
        self._written: Stamp | None = None
        self._mine = False

    def acquire(self) -> bool:
        """Whether this process is the one that watches; see `FolderLock.acquire`."""
        before = self.lock.folder
        self._mine = self.lock.acquire()
        if self.lock.folder is not before:
            self._written = None
        return self._mine

    def release(self) -> None:
        """Let another process watch."""
        self._mine = False
        self.lock.release()

    def write(self, snapshot: Snapshot | None, status: Sequence[SourceStatus], *, changed: bool) -> None:
        """Write what is known, by the process that watches.

        Args:
            snapshot: None as long as there is neither a document nor a reason why not.
            changed: whether the snapshot differs from the last one; it is written too where its file is gone.
        """
        folder = self.lock.folder
        if folder is None or not self._mine:
            return
        try:
            in_place = self._written is not None and self._written == _stamp(folder, self._snapshot)
            if snapshot is not None and (changed or not in_place):
                folder.replace(self._snapshot, _snapshot_text(snapshot))
                self._written = _stamp(folder, self._snapshot)
            folder.replace(self._status, _status_text(status))
        except OSError as exc:
            # Nobody follows what cannot be written. The lock is given up with the folder, and others find out, too.
            give_up(folder, exc)

    def remove_leftovers(self) -> None:
        """Remove what a process that was killed has half written."""
        folder = self.lock.folder
        with suppress(OSError):
            for name in folder.names() if folder is not None else ():
                if name.startswith((f".{self._snapshot}.", f".{self._status}.")) and folder is not None:
                    folder.remove(name)

    def snapshot_if_new(self, last: Stamp | None) -> tuple[Stamp, Snapshot] | None:
        """The snapshot and its stamp, None if it is that of the last stamp, or cannot be read."""
        folder = self.lock.folder
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            stamp = None if folder is None else _stamp(folder, self._snapshot)
            if folder is not None and stamp is not None and stamp != last:
                return stamp, _snapshot(json.loads(folder.read(self._snapshot, _MAX_SNAPSHOT)))
        return None

    def status_stamp(self) -> Stamp | None:
        """When the status was written, None where there is none."""
        folder = self.lock.folder
        return None if folder is None else _stamp(folder, self._status)

    def status(self) -> list[SourceStatus]:
        """How it goes with the watches, by the process that watches."""
        folder = self.lock.folder
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            if folder is not None:
                body = json.loads(folder.read(self._status, _MAX_STATUS))
                return [_aged(SourceStatus(**each), time() - body["written"]) for each in body["status"]]
        return []


class FollowedView:
    """What the process that watches says it knows; the counterpart of `ClusterView`.

    Args:
        known: documents that are known from before, None for nothing.
    """

    def __init__(self, files: SharedFiles, known: tuple[Document, ...] | None) -> None:
        self.documents = known
        self.settled, self.moved = Latch(), Latch()
        self.problem = "the worker that watches for all has not answered yet"
        if known is not None:
            self.settled.set()
        self._files = files
        self._snapshot: Stamp | None = None
        self._status: Stamp | None = None
        self._heard = monotonic()

    @property
    def silent(self) -> bool:
        """Whether nobody seems to watch."""
        return monotonic() - self._heard > MAX_SILENCE

    def look(self) -> None:
        """Read what was written since the last look."""
        status = self._files.status_stamp()
        if status != self._status:
            self._status, self._heard = status, monotonic()
        found = self._files.snapshot_if_new(self._snapshot)
        if found is not None:
            self._snapshot, snapshot = found
            self._take(snapshot)

    def _take(self, snapshot: Snapshot) -> None:
        if snapshot.documents is not None:
            self.documents = snapshot.documents
        self.problem = snapshot.problem
        moved, self.moved = self.moved, Latch()
        moved.set()
        self.settled.set()

    def status(self) -> list[SourceStatus]:
        """See `ClusterView.status`."""
        return self._files.status()


def _stamp(folder: Folder, name: str) -> Stamp | None:
    """What changes with every write of a file."""
    with suppress(OSError):
        found = folder.stat(name)
        return found.st_ino, found.st_mtime_ns, found.st_size
    return None


def _snapshot_text(snapshot: Snapshot) -> bytes:
    documents = None if snapshot.documents is None else as_json(snapshot.documents)
    body = {"documents": documents, "problem": snapshot.problem}
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(text) > _MAX_SNAPSHOT:
        raise OSError(f"the rules of the cluster have more than {_MAX_SNAPSHOT >> 20} MiB")
    return text


def _snapshot(body: dict[str, Any]) -> Snapshot:
    documents = None if body["documents"] is None else from_json(body["documents"])
    return Snapshot(documents, str(body["problem"]))


def _status_text(status: Sequence[SourceStatus]) -> bytes:
    return json.dumps({"written": time(), "status": [asdict(each) for each in status]}).encode()


def _aged(status: SourceStatus, seconds: float) -> SourceStatus:
    """A status as it is some time after it was written."""
    contact, cache = status.last_contact, status.cache_age
    return replace(
        status,
        last_contact=None if contact is None else max(0.0, contact + seconds),
        cache_age=None if cache is None else max(0.0, cache + seconds),
    )
