"""Counts the drawn requests of a release by variant and epoch, and keeps the keys that fail and those that are slow."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from contextlib import suppress

from canary_mw.observability.attempts import layout
from canary_mw.observability.attempts.layout import CHUNK, ENTRY, FAILED, SLOW, TIMES, Arm, arm_id
from canary_mw.observability.attempts.register import Attempt, Attempts, change, is_on, limits_of, next_attempts, read
from canary_mw.observability.attempts.union import times_of
from canary_mw.observability.figures.layout import Kind
from canary_mw.observability.figures.writer import FiguresWriter
from canary_mw.rollout.key_sample import FAILED_CAP
from canary_mw.rules.epoch import Epoch

_FIRST_CHUNK, _LARGEST_CHUNK = 64, 4096
# Variants in epochs that one worker keeps.
_MAX_ARMS = 1024


class KeyLog:
    """The keys of an attempt that have failed or were slow; those of all workers are added up by readers.

    Attributes:
        known: by the kind of entry.
        limits: see `Attempt`.
        full: whether this worker has enough times.
    """

    def __init__(self, figures: FiguresWriter, release: str, attempt: Attempt) -> None:
        self.known: tuple[dict[int, int], ...] = ({}, {}, {})
        self.limits = attempt.limits
        self.full = False
        self._figures = figures
        self._key = release, str(attempt.number)
        self._level = 0
        self._chunks = 0

    def add(self, kind: int, digest: int, arm: int) -> None:
        """Keep a key with the arm in which this happened first."""
        known = self.known[kind]
        if digest & ((1 << self._level) - 1):
            return
        known[digest] = arm
        self._write(digest, arm, kind)
        if len(known) > FAILED_CAP:
            self._thin()

    def _write(self, digest: int, arm: int, kind: int) -> None:
        # Looked up each time: the memory of figures moves where their file was removed.
        chunk = self._record(self._chunks - 1) if self._chunks else None
        count = CHUNK.unpack_from(chunk)[1] if chunk is not None else 0
        if chunk is None or CHUNK.size + (count + 1) * ENTRY.size > len(chunk):
            chunk, count = self._record(self._chunks), 0
            self._chunks += 1
        if chunk is not None:
            ENTRY.pack_into(chunk, CHUNK.size + count * ENTRY.size, digest, arm, kind)
            CHUNK.pack_into(chunk, 0, self._level, count + 1)

    def _record(self, number: int) -> memoryview | None:
        entries = min(_FIRST_CHUNK << number, _LARGEST_CHUNK)
        return self._figures.record(Kind.SAMPLE, (*self._key, str(number)), CHUNK.size + entries * ENTRY.size)

    def _thin(self) -> None:
        """Keep half of the keys, and write them anew."""
        self._level += 1
        mask = (1 << self._level) - 1
        self.known = tuple({key: arm for key, arm in known.items() if not key & mask} for known in self.known)
        for number in range(self._chunks):
            chunk = self._record(number)
            if chunk is not None:
                CHUNK.pack_into(chunk, 0, self._level, 0)
        self._chunks = 0
        for kind, known in enumerate(self.known):
            for key, arm in known.items():
                self._write(key, arm, kind)

    def add_time(self, seconds: float) -> None:
        """Keep the time of a first answer, from which the thresholds will follow."""
        cells, count = self._figures.record(Kind.TIMES, self._key, 8 + 4 * TIMES), 0
        if cells is not None:
            head, values = cells[:8].cast("Q"), cells[8:].cast("I")
            count = head[0]
            if count < TIMES:
                values[count] = min(int(seconds * 1e6), 0xFFFFFFFF)
                head[0] = count + 1
        self.full = cells is None or count + 1 >= TIMES


class ArmCounter:
    """Counts the drawn requests of a variant in an epoch; call it with the lock of the figures held."""

    __slots__ = ("_cells", "_id", "_log")

    def __init__(self, cells: memoryview, identity: int, log: KeyLog) -> None:
        self._cells = cells
        self._id = identity
        self._log = log

    def add(self, digest: int | None, first_byte: float, *, failed: bool) -> None:
        """Count a request.

        Args:
            digest: of its key, None for a request that is its own key.
            first_byte: seconds up to the head of its answer, or to its end without one.
        """
        cells, log = self._cells, self._log
        cells[0] += 1
        if failed:
            cells[Arm.ERRORS] += 1
        if failed or log.known[FAILED]:
            self._count_once(digest, FAILED, Arm.REPEATS, Arm.FAILED, happened=failed)
        limits = log.limits
        if not limits:
            if not log.full:
                log.add_time(first_byte)
            return
        cells[3] += 1
        if first_byte > limits[0] or log.known[SLOW]:
            for index, limit in enumerate(limits):
                self._count_once(
                    digest, SLOW + index, Arm.SLOW_REPEATS + index, Arm.SLOW + index, happened=first_byte > limit
                )

    def _count_once(self, digest: int | None, kind: int, repeats: int, first: int, *, happened: bool) -> None:
        cells = self._cells
        if digest is None:
            if happened:
                cells[first] += 1
        elif digest in self._log.known[kind]:
            cells[repeats] += 1
        elif happened:
            self._log.add(kind, digest, self._id)


class EvidenceWriter:
    """The evidence of one worker.

    Args:
        figures: where it lies.

    Attributes:
        attempts: of the releases in force.
    """

    def __init__(self, figures: FiguresWriter) -> None:
        self._figures = figures
        self._storage_resets = -1
        self.attempts: Attempts = {}
        self._logs: dict[tuple[str, int], KeyLog] = {}
        self._arms = 0

    def reloaded(self, epochs: Dict[str, Epoch], now: float) -> None:
        """Rules with these epochs are in force; call it in a thread that may wait."""
        attempts = self._shared(lambda known: next_attempts(known, epochs, now), self.attempts)
        self._adopt({name: attempts[name] for name in epochs if name in attempts})

    def tick(self) -> None:
        """Take over thresholds, or find them where enough first answers are known."""
        missing = [name for name, each in self.attempts.items() if each.on and not each.limits]
        if missing:
            self._adopt({**self.attempts, **self._with_limits(missing)})

    def _with_limits(self, names: list[str]) -> Attempts:
        folder = self._figures.open_folder()
        known = self.attempts if folder is None else read(folder.descriptor)
        found = {}
        for name in names:
            attempt = self.attempts[name]
            shared = known.get(name)
            if shared is not None and shared.number == attempt.number and shared.limits:
                found[name] = shared
            elif limits := limits_of(self._times_of(name, attempt)):
                settle = _settled(name, attempt.number, limits)
                attempts = self._shared(settle, self.attempts)
                if name in attempts and attempts[name].number == attempt.number:
                    found[name] = attempts[name]
        return found

    def _times_of(self, name: str, attempt: Attempt) -> list[float]:
        figures, folder = self._figures, self._figures.open_folder()
        with figures.lock:
            storage = figures.storage
            private = folder is None or storage is None or not storage.name
            content = storage.content() if storage is not None and private else None
        return times_of(folder.descriptor if folder is not None else None, content, name, attempt.number)

    def _shared(self, step: Callable[[Attempts], Attempts], own: Attempts) -> Attempts:
        folder = self._figures.open_folder()
        if folder is not None:
            with suppress(OSError):
                return change(folder.descriptor, step)
        return step(own)

    def _adopt(self, attempts: Attempts) -> None:
        with self._figures.lock:
            self.attempts = attempts
            for name, attempt in attempts.items():
                log = self._logs.get((name, attempt.number))
                if log is not None:
                    log.limits = attempt.limits
            current = {(name, each.number) for name, each in attempts.items()}
            self._logs = {key: log for key, log in self._logs.items() if key in current}

    def arm(self, release: str, variant: str, epoch: Epoch | None, now: float) -> ArmCounter | None:
        """What counts the drawn requests of a variant; None where nothing is compared. Call it with the lock held."""
        self._forget_parent()
        attempt = self.attempts.get(release)
        if attempt is None or epoch is None or epoch.subject != attempt.subject or not is_on(epoch):
            return None
        key = release, str(attempt.number), epoch.weights, variant
        if self._arms >= _MAX_ARMS:
            return None
        cells = self._figures.record(Kind.ARM, key, layout.ARM_CELLS * 8)
        if cells is None:
            return None
        numbers = cells.cast("Q")
        if not numbers[Arm.BEGIN]:
            numbers[Arm.BEGIN] = int(now * 1e6)
            self._arms += 1
        log = self._logs.get((release, attempt.number))
        if log is None:
            log = self._logs[release, attempt.number] = KeyLog(self._figures, release, attempt)
        return ArmCounter(numbers, arm_id(key), log)

    def _forget_parent(self) -> None:
        """In a forked child, forget the keys that the parent has counted."""
        if self._storage_resets != self._figures.resets:
            self._storage_resets = self._figures.resets
            self._logs.clear()
            self._arms = 0


def _settled(name: str, number: int, limits: tuple[float, ...]) -> Callable[[Attempts], Attempts]:
    def step(known: Attempts) -> Attempts:
        attempt = known.get(name)
        if attempt is None or attempt.number != number or attempt.limits:
            return known
        return {**known, name: attempt._replace(limits=limits)}

    return step
