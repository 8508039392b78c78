"""The evidence of other pods as it was given last, also of those that are gone: their users were hit.

With a run folder it lies there in a file for each pod, so that the next worker that controls goes on with it, and all
workers show the same.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from time import monotonic
from typing import NamedTuple

from canary_mw.exceptions import EvidenceRefused
from canary_mw.locks import new_lock
from canary_mw.observability.attempts.checkpoint import renumbered
from canary_mw.observability.attempts.register import Attempts
from canary_mw.observability.figures.files import read_text, remove, write_text_file
from canary_mw.observability.figures.storage import OpenedFolder
from canary_mw.observability.peers.wire import MOST_PACKED, Export, packed, unpacked

_STATUS = "peers.status"
PREFIX, SUFFIX = "peer-", ".evidence"
# Bytes of the evidence of all pods together, and how many pods are kept.
MOST_BYTES, MOST_PODS = 128 << 20, 2048
# Seconds between two looks for what another worker has written.
_LOOK = 1.0

Stamp = tuple[int, int, int]
Releases = dict[str, Export]


class _File(NamedTuple):
    """A file that was read."""

    stamp: Stamp
    pod: str


class PeerEvidence:
    """What other pods have seen. Any thread may call it.

    Args:
        open_folder: returns the run folder as it is now, None without one.
    """

    def __init__(self, open_folder: Callable[[], OpenedFolder | None]) -> None:
        self._open_folder = open_folder
        self._lock = new_lock()
        self._pods: dict[str, Releases] = {}
        self._files: dict[str, _File] = {}
        self._looked_at = -_LOOK
        self._renumbered: dict[tuple[str, str], tuple[memoryview, int, memoryview]] = {}

    def take(self, exports: Iterable[Export], own: str) -> None:
        """Take over what pods have given; what is older than what is known stays.

        Args:
            own: this pod, whose evidence is that of its own figures.

        Raises:
            EvidenceRefused: there is no room for it.
        """
        folder = self._open_folder()
        with self._lock:
            self._read(folder)
            for pod, releases in _by_pod(exports, own).items():
                self._take(folder, pod, releases)

    def restore(self, exports: Iterable[Export], own: str) -> None:
        """Take over what was stored before a restart, of pods and attempts of which nothing is known; see `take`."""
        folder = self._open_folder()
        with self._lock:
            self._read(folder)
            for pod, releases in _by_pod(exports, own).items():
                known = self._pods.get(pod, {})
                lost = {name: each for name, each in releases.items() if _is_lost(each, known.get(name))}
                self._take(folder, pod, lost)

    def _take(self, folder: OpenedFolder | None, pod: str, given: Releases) -> None:
        known = self._pods.get(pod, {})
        newer = {name: each for name, each in given.items() if _is_newer(each, known.get(name))}
        if not newer:
            return
        self._check_room(pod, newer)
        self._pods[pod] = {**known, **newer}
        if folder is not None:
            with suppress(OSError):
                self._write(folder.descriptor, pod)

    def _check_room(self, pod: str, newer: Releases) -> None:
        size = sum(len(each.content) for releases in self._pods.values() for each in releases.values())
        size += sum(len(each.content) for each in newer.values())
        if size > MOST_BYTES or (pod not in self._pods and len(self._pods) >= MOST_PODS):
            raise EvidenceRefused(f"there is no room for it beside that of {len(self._pods)} pods")

    def _write(self, folder: int, pod: str) -> None:
        name = _file_of(pod)
        write_text_file(folder, name, packed(pod, self._pods[pod].values()))
        self._files[name] = _File(_stamp(folder, name), pod)

    def contents(self, attempts: Attempts) -> list[memoryview]:
        """The evidence of these attempts, as files of figures that number them as these do."""
        folder = self._open_folder()
        with self._lock:
            if folder is not None and monotonic() - self._looked_at >= _LOOK:
                self._read(folder)
            self._drop_older(folder, attempts)
            found = [(pod, each) for pod, releases in self._pods.items() for each in releases.values()]
            present = [(pod, each) for pod, each in found if _is_in(each, attempts)]
            return [self._numbered(pod, each, attempts[each.name].number) for pod, each in present]

    def exports(self, name: str, attempt: int) -> list[Export]:
        """The evidence of an attempt, by pod.

        Args:
            attempt: as the state of the release has it.
        """
        with self._lock:
            found = [releases[name] for releases in self._pods.values() if name in releases]
            return [each for each in found if each.attempt.stored == attempt]

    def note(self, status: bytes) -> None:
        """Keep how it goes with the pods, for all workers of this pod, and for later ones."""
        folder = self._open_folder()
        if folder is not None:
            with suppress(OSError):
                write_text_file(folder.descriptor, _STATUS, status)

    def noted(self) -> bytes:
        """What was kept so; b"" for nothing."""
        folder = self._open_folder()
        return b"" if folder is None else read_text(folder.descriptor, _STATUS) or b""

    def _numbered(self, pod: str, export: Export, number: int) -> memoryview:
        place = pod, export.name
        known = self._renumbered.get(place)
        if known is None or known[0] is not export.content or known[1] != number:
            known = export.content, number, renumbered(export.content, export.name, number)
            self._renumbered[place] = known
        return known[2]

    def _drop_older(self, folder: OpenedFolder | None, attempts: Attempts) -> None:
        """Forget pods that have seen nothing but attempts that are over."""
        for pod, releases in list(self._pods.items()):
            if all(_is_over(each, attempts) for each in releases.values()):
                del self._pods[pod]
                self._renumbered = {key: each for key, each in self._renumbered.items() if key[0] != pod}
                if folder is not None:
                    self._files.pop(_file_of(pod), None)
                    remove(folder.descriptor, _file_of(pod))

    def _read(self, folder: OpenedFolder | None) -> None:
        """Take over what another worker of this pod has written."""
        self._looked_at = monotonic()
        if folder is None:
            return
        for name in _names(folder.descriptor):
            with suppress(OSError, EvidenceRefused):
                stamp = _stamp(folder.descriptor, name)
                known = self._files.get(name)
                if known is None or known.stamp != stamp:
                    pod, exports = unpacked(read_text(folder.descriptor, name) or b"")
                    self._files[name] = _File(stamp, pod)
                    releases = {each.name: each for each in exports}
                    self._pods[pod] = {**self._pods.get(pod, {}), **releases}


def _is_newer(given: Export, known: Export | None) -> bool:
    if known is None or given.attempt.stored > known.attempt.stored:
        return True
    return given.attempt.stored == known.attempt.stored and given.content != known.content


def _by_pod(exports: Iterable[Export], own: str) -> dict[str, Releases]:
    found: dict[str, Releases] = {}
    for each in exports:
        if each.pod != own:
            found.setdefault(each.pod, {})[each.name] = each
    return found


def _is_lost(given: Export, known: Export | None) -> bool:
    return known is None or given.attempt.stored > known.attempt.stored


def _is_in(export: Export, attempts: Attempts) -> bool:
    known = attempts.get(export.name)
    return known is not None and known.stored == export.attempt.stored


def _is_over(export: Export, attempts: Attempts) -> bool:
    known = attempts.get(export.name)
    return known is not None and known.stored > export.attempt.stored


def _file_of(pod: str) -> str:
    return f"{PREFIX}{sha256(pod.encode()).hexdigest()[:32]}{SUFFIX}"


def _names(folder: int) -> Sequence[str]:
    with suppress(OSError):
        return [name for name in os.listdir(folder) if name.startswith(PREFIX) and name.endswith(SUFFIX)]
    return ()


def _stamp(folder: int, name: str) -> Stamp:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if found.st_size > MOST_PACKED:
        raise EvidenceRefused("a file of the run folder is too long")
    return found.st_ino, found.st_size, found.st_mtime_ns
