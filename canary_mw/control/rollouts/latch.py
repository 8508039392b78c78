"""Memory that all workers of a host share: which attempts were taken back, and whether somebody controls.

A latch is read wherever a release would pick gray. So what is rolled back in one worker is off in all of them with the
next request, before any of them has read the state, and also where the state cannot be written.
"""

import fcntl
import mmap
import os
from hashlib import blake2b
from time import monotonic

from canary_mw.locks import Latch, new_lock, wait_for
from canary_mw.routing.releases.override import LatchCell
from canary_mw.run_folder.folder import Folder

NAME = "latches"
# Seconds after which nobody waits for a controller that is silent: to roll back, nobody is needed.
SILENCE = 10.0
_MAGIC = int.from_bytes(b"cmwltch1", "little")
# Numbers of 64 bits: those of all, then two for each release, its hash and the attempt that was taken back.
_HEARTBEAT, _CONTROLLER, _LOOKS, _FIRST = 1, 2, 3, 8
_RELEASES = 1024
_BYTES = 8 * (_FIRST + 2 * _RELEASES)
_PATIENCE = 0.2
_PAUSE = 0.005


class Latches:
    """The latches of a folder; without one, or where its file cannot be used, those of this process.

    Args:
        folder: None for those of this process.

    Attributes:
        error: why the file cannot be used, None where it is.
    """

    def __init__(self, folder: Folder | None) -> None:
        self.error: OSError | None = None
        self._descriptor: int | None = None
        self._cells = memoryview(bytearray(_BYTES)).cast("Q")
        self._own: dict[str, LatchCell] = {}
        self._lock = new_lock()
        if folder is not None:
            try:
                self._open(folder)
            except OSError as exc:
                self.error = exc

    def _open(self, folder: Folder) -> None:
        descriptor = folder.open(NAME, os.O_RDWR | os.O_CREAT)
        try:
            # Room is made now: memory of a file without it ends a process that writes there.
            os.posix_fallocate(descriptor, 0, _BYTES)
            memory = mmap.mmap(descriptor, _BYTES)
        except BaseException:
            os.close(descriptor)
            raise
        cells = memoryview(memory).cast("Q")
        if cells[0] not in (0, _MAGIC):
            os.close(descriptor)
            raise OSError("its format is that of another version of canary-mw")
        cells[0] = _MAGIC
        self._cells, self._descriptor = cells, descriptor

    def cell(self, name: str) -> LatchCell:
        """The latch of a release: the same object each time."""
        with self._lock:
            found = self._own.get(name)
            if found is None:
                place = self._place(_hash(name))
                cells = memoryview(bytearray(8)).cast("Q") if place is None else self._cells[place : place + 1]
                found = self._own[name] = LatchCell(cells)
            return found

    def set(self, name: str, attempt: int) -> None:
        """Take an attempt of a release back, in all workers; nothing undoes that."""
        cells = self.cell(name).cells
        cells[0] = max(cells[0], attempt)

    def is_set(self, name: str, attempt: int) -> bool:
        """Whether an attempt was taken back."""
        return self.cell(name).cells[0] >= attempt > 0

    def beat(self) -> None:
        """Note that this process controls."""
        self._cells[_CONTROLLER] = os.getpid()
        self._cells[_HEARTBEAT] = int(monotonic() * 1e3) + 1

    def hear(self, seconds: float) -> None:
        """Note that a process of another host controls, and was heard so many seconds ago."""
        self._cells[_CONTROLLER] = 0
        heard = max(1, int((monotonic() - seconds) * 1e3) + 1)
        # Evidence that was asked for may be newer than what was seen of the Lease.
        if self.silence() is None or heard > self._cells[_HEARTBEAT]:
            self._cells[_HEARTBEAT] = heard

    def is_beaten(self) -> bool:
        """Whether somebody controls."""
        silence = self.silence()
        return silence is not None and silence <= SILENCE

    def silence(self) -> float | None:
        """Seconds for which nobody has controlled; None where nobody ever has since the host began."""
        beaten = self._cells[_HEARTBEAT]
        seconds = monotonic() - beaten / 1e3
        # The clock begins anew with the host, and the file may be older.
        return max(seconds, 0.0) if beaten and seconds > -1 else None

    @property
    def controller(self) -> int:
        """The number of the process that controls, or did so last; 0 for none."""
        return self._cells[_CONTROLLER]

    def ask_to_look(self) -> None:
        """Ask the controller to look at the evidence now. Of two that ask at once, one may get lost."""
        self._cells[_LOOKS] = (self._cells[_LOOKS] + 1) & 0xFFFFFFFF

    @property
    def looks(self) -> int:
        """Changes when somebody asks for a look."""
        return self._cells[_LOOKS]

    def _place(self, number: int) -> int | None:
        """The index of the attempt of a release; None where there is no room, or no lock."""
        for index in range(_RELEASES):
            place = _FIRST + 2 * ((number + index) % _RELEASES)
            if self._cells[place] == 0 and not self._take(place, number):
                return None
            if self._cells[place] == number:
                return place + 1
        return None

    def _take(self, place: int, number: int) -> bool:
        """Give a free place to a release unless somebody was faster; False where the lock cannot be had."""
        if self._descriptor is None:
            self._cells[place] = number
            return True
        limit = monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if monotonic() >= limit:
                    return False
                wait_for(Latch(), _PAUSE)
        try:
            self._cells[place] = self._cells[place] or number
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return True


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") or 1
