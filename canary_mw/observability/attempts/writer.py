"""The evidence of one worker: its arms, the keys that it knows, and the attempts of the releases in force."""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dict
from contextlib import suppress
from typing import NamedTuple

from canary_mw.observability.attempts.arms import ArmCounter, GrayKeys, MeasureCounter, SentArmCounter
from canary_mw.observability.attempts.keys import KeyLog, Touched, nothing
from canary_mw.observability.attempts.layout import ARM_CELLS, COUNT_CELLS, SEEN, TIMES, Arm
from canary_mw.observability.attempts.measures import FirstTimes, FirstValues, Measure, measures_of
from canary_mw.observability.attempts.register import Attempt, Attempts, change, is_on, limit_of, next_attempts, read
from canary_mw.observability.attempts.union import times_of
from canary_mw.observability.figures.layout import Kind
from canary_mw.observability.figures.storage import Storage
from canary_mw.observability.figures.writer import FiguresWriter
from canary_mw.rollout.key_sample import FAILED_CAP, SEEN_CAP
from canary_mw.routing.assignment import Assigned
from canary_mw.rules.epoch import Epoch
from canary_mw.rules.plan import NO_ALLOWANCE
from canary_mw.rules.release import STABLE

# Variants in epochs of the attempts in force, and what is counted of each, that one worker keeps.
_MAX_ARMS = 1024
_MAX_MEASURES = 32
_MAX_FIRST_KEYS = 4096

Key = tuple[str, ...]


class Logs(NamedTuple):
    """What a worker knows of the keys of an attempt."""

    touched: Touched
    by_measure: dict[str, KeyLog]


class EvidenceWriter:
    """The evidence of one worker.

    Args:
        figures: where it lies.

    Attributes:
        attempts: of the releases in force.
        tell: is called when something happens to a key of gray for the first time in a step.
        finds_limits: whether the thresholds of releases with steps are found here; else their states say them.
    """

    def __init__(self, figures: FiguresWriter) -> None:
        self.tell: Callable[[], object] = nothing
        self.finds_limits = True
        self._figures = figures
        self._storage: Storage | None = None
        self._resets = -1
        self.attempts: Attempts = {}
        self._measures: dict[str, tuple[Measure, ...]] = {}
        self._logs: dict[tuple[str, int], Logs] = {}
        self._arms: dict[Key, ArmCounter] = {}

    def reloaded(self, epochs: Dict[str, Epoch], now: float) -> None:
        """Rules with these epochs are in force; call it in a thread that may wait."""
        with self._figures.lock:
            # What is counted may be another thing now.
            self._arms = {}
        self._measures = {name: measures_of(epoch.analysis)[:_MAX_MEASURES] for name, epoch in epochs.items()}
        attempts = self._shared(lambda known: next_attempts(known, epochs, now), self.attempts)
        self._adopt({name: attempts[name] for name in epochs if name in attempts})

    def tick(self) -> None:
        """Take over thresholds, or find them where enough first answers are known."""
        missing = {name: self._without_limit(name, each) for name, each in self.attempts.items() if each.on}
        missing = {name: each for name, each in missing.items() if each}
        if missing:
            self._adopt({**self.attempts, **self._with_limits(missing)})

    def add_limits(self, release: str, number: int, limits: Dict[str, float]) -> None:
        """Go on with the thresholds of before a restart, which are fixed for the whole attempt."""
        known = self.attempts[release]
        if known.number == number:
            self._adopt({**self.attempts, release: known._replace(limits={**known.limits, **limits})})

    def _without_limit(self, name: str, attempt: Attempt) -> list[Measure]:
        measures = self._measures.get(name, ())
        return [each for each in measures if each.quantile and each.name not in attempt.limits]

    def _with_limits(self, missing: dict[str, list[Measure]]) -> Attempts:
        folder = self._figures.open_folder()
        known = self.attempts if folder is None else read(folder.descriptor)
        found = {}
        for name, measures in missing.items():
            attempt = self.attempts[name]
            shared = known.get(name)
            if shared is not None and shared.number == attempt.number:
                attempt = shared
            found_here = self.finds_limits or not attempt.stored
            wanted = [each for each in measures if found_here and each.name not in attempt.limits]
            if limits := self._found_limits(name, attempt, wanted):
                settled = self._shared(_settled(name, attempt.number, limits), self.attempts).get(name)
                attempt = settled if settled is not None and settled.number == attempt.number else attempt
            found[name] = attempt
        return found

    def _found_limits(self, name: str, attempt: Attempt, measures: list[Measure]) -> dict[str, float]:
        return limits_by({each.times: self._times_of(name, attempt, each.times) for each in measures}, measures)

    def _times_of(self, name: str, attempt: Attempt, times: str) -> list[float]:
        figures, folder = self._figures, self._figures.open_folder()
        with figures.lock:
            storage = figures.storage
            private = folder is None or storage is None or not storage.name
            content = storage.content() if storage is not None and private else None
        key = name, str(attempt.number), times
        return times_of(folder.descriptor if folder is not None else None, content, key)

    def _shared(self, step: Callable[[Attempts], Attempts], own: Attempts) -> Attempts:
        folder = self._figures.open_folder()
        if folder is not None:
            with suppress(OSError):
                return change(folder.descriptor, step)
        return step(own)

    def _adopt(self, attempts: Attempts) -> None:
        with self._figures.lock:
            known, self.attempts = self.attempts, attempts
            current = {(name, str(each.number)) for name, each in attempts.items()}
            self._logs = {key: logs for key, logs in self._logs.items() if (key[0], str(key[1])) in current}
            self._arms = {key: arm for key, arm in self._arms.items() if key[:2] in current}
            for key, arm in self._arms.items():
                arm.set_limits(attempts[key[0]].limits)
            if any(name in known and known[name].number < each.number for name, each in attempts.items()):
                # Their counters and logs are forgotten above.
                self._figures.release(self._is_over)

    def _is_over(self, key: Key) -> bool:
        """Whether a record is of an attempt that another one has followed."""
        attempt = self.attempts.get(key[0])
        return attempt is not None and int(key[1]) < attempt.number

    def arm(self, release: str, variant: str, epoch: Epoch | None, now: float) -> ArmCounter | None:
        """What counts the drawn requests of a variant; None where nothing is compared. Call it with the lock held."""
        self._forget_others()
        attempt = self.attempts.get(release)
        if attempt is None or epoch is None or not is_on(epoch) or not _is_of(epoch, attempt):
            return None
        key = release, str(attempt.number), epoch.weights, variant, str(epoch.step)
        if key not in self._arms:
            arm = self._new_arm(key, epoch, attempt, now)
            if arm is not None:
                self._arms[key] = arm
        return self._arms.get(key)

    def sent_arm(self, release: str, variant: str, epoch: Epoch | None, now: float) -> SentArmCounter | None:
        """The same for requests that another process has drawn, and counts; None where no app records anything."""
        if epoch is None or not any(each.event for each in measures_of(epoch.analysis)):
            return None
        arm = self.arm(release, variant, epoch, now)
        return None if arm is None else arm.recorded

    def _new_arm(self, key: Key, epoch: Epoch, attempt: Attempt, now: float) -> ArmCounter | None:
        numbers = self._arm_cells(key, now)
        if numbers is None:
            return None
        measures = measures_of(epoch.analysis)[:_MAX_MEASURES]
        counters = [self._counter(each, key, numbers, epoch) for each in measures]
        missing = [each for each in measures if each.quantile and each.name not in attempt.limits]
        times = {each.times: each for each in missing if each.kind != "value"}
        gray = key[3] != STABLE
        arm = ArmCounter(
            numbers,
            [each for each in counters if each is not None],
            self._logs_of(key).touched.keys,
            gray=gray,
            seen=self._log(key, SEEN, SEEN_CAP) if epoch.analysis is not None else None,
            first_keys=self._first_keys(key, epoch),
            first_times=[self._first_times(key, each, gray=gray) for each in times.values()],
            first_values=self._first_values(key, {each.event: each for each in missing if each.kind == "value"}, gray),
        )
        arm.set_limits(attempt.limits)
        return arm

    def _arm_cells(self, key: Key, now: float) -> memoryview | None:
        known = self._figures.views(Kind.ARM)
        if key not in known and len(known) >= _MAX_ARMS:
            return None
        cells = self._figures.record(Kind.ARM, key, ARM_CELLS * 8)
        if cells is None:
            return None
        numbers = cells.cast("Q")
        if not numbers[Arm.BEGIN]:
            used = {each.cast("Q")[Arm.NUMBER] for each in known.values()}
            numbers[Arm.BEGIN] = int(now * 1e6)
            numbers[Arm.NUMBER] = next(number for number in range(1, _MAX_ARMS + 1) if number not in used)
        return numbers

    def _counter(self, measure: Measure, key: Key, arm: memoryview, epoch: Epoch) -> MeasureCounter | None:
        cells = self._figures.record(Kind.MEASURE, (*key, measure.name), COUNT_CELLS * 8)
        if cells is None:
            return None
        numbers, log = cells.cast("Q"), self._log(key, measure.name, FAILED_CAP)
        if key[3] != STABLE and epoch.analysis is not None:
            log.watch(arm[Arm.NUMBER], self.tell)
        keyless = epoch.analysis is not None
        return MeasureCounter(measure, numbers, log, arm[Arm.NUMBER], epoch.step, keyless=keyless)

    def _first_times(self, key: Key, measure: Measure, *, gray: bool) -> FirstTimes:
        cells = self._figures.record(Kind.TIMES, (*key[:2], measure.times), 8 + 4 * TIMES)
        return FirstTimes(cells, measure.allow if gray else NO_ALLOWANCE)

    def _first_values(self, key: Key, measures: dict[str, Measure], gray: bool) -> dict[str, FirstValues]:
        size = 8 + 8 * TIMES
        found = {
            name: self._figures.record(Kind.VALUES, (*key[:2], each.times), size) for name, each in measures.items()
        }
        return {name: FirstValues(cells, gray=gray) for name, cells in found.items() if cells is not None}

    def _first_keys(self, key: Key, epoch: Epoch) -> GrayKeys | None:
        if epoch.analysis is None or key[3] == STABLE:
            return None
        most = min(epoch.analysis.minimum_keys, _MAX_FIRST_KEYS)
        cells = self._figures.record(Kind.GRAY_KEYS, (*key[:2], key[4], key[3], str(most)), 8 + 8 * most)
        return None if cells is None else GrayKeys(cells)

    def _logs_of(self, key: Key) -> Logs:
        return self._logs.setdefault((key[0], int(key[1])), Logs(Touched(), {}))

    def _log(self, key: Key, name: str, cap: int) -> KeyLog:
        touched, logs = self._logs_of(key)
        if name not in logs:
            logs[name] = KeyLog(self._figures, (*key[:2], name), cap, Touched() if name == SEEN else touched)
        return logs[name]

    def event(self, assigned: Assigned, name: str, client: str | None, thousandths: int, now: float) -> None:
        """Count an event, or a value, of a drawn request that is under way; call it with the lock held."""
        arm = self.arm(assigned.name, assigned.variant or STABLE, assigned.epoch, now)
        if arm is not None:
            arm.record(assigned.digest, name, client, thousandths)

    def _forget_others(self) -> None:
        """In a forked child, forget the keys that the parent has counted; and cells of memory that is used no more."""
        if self._storage is not self._figures.storage:
            self._storage = self._figures.storage
            self._arms = {}
        if self._resets != self._figures.resets:
            self._resets = self._figures.resets
            self._logs = {}


def _is_of(epoch: Epoch, attempt: Attempt) -> bool:
    if epoch.attempt or attempt.stored:
        return epoch.attempt == attempt.stored
    return epoch.subject == attempt.subject


def limits_by(times: Dict[str, list[float]], measures: Sequence[Measure]) -> dict[str, float]:
    """The thresholds of measures that enough first answers or values are known for, by the name of the measure."""
    found = {each.name: limit_of(times[each.times], each.quantile) for each in measures}
    return {name: limit for name, limit in found.items() if limit is not None}


def _settled(name: str, number: int, limits: dict[str, float]) -> Callable[[Attempts], Attempts]:
    def step(known: Attempts) -> Attempts:
        attempt = known.get(name)
        if attempt is None or attempt.number != number:
            return known
        return {**known, name: attempt._replace(limits={**limits, **attempt.limits})}

    return step
