"""The evidence of all workers: their counts in sum, and of each key what happened to it first."""

from collections.abc import Iterable, Iterator, Sequence

from canary_mw.observability.attempts.layout import (
    ARM_CELLS,
    CHUNK,
    ENTRY,
    FAILED,
    SLOW,
    TIMES,
    Arm,
    arm_id,
    entries,
    times,
)
from canary_mw.observability.attempts.register import QUANTILES, Attempts
from canary_mw.observability.evidence import ArmCounts, EpochKey, Evidence, Threshold
from canary_mw.observability.figures.files import retired_content, worker_files
from canary_mw.observability.figures.layout import Kind, Record, records
from canary_mw.rollout.key_sample import FAILED_CAP, Entry, KeySample

Key = tuple[str, ...]


class Arms:
    """The arms of some files, in sum.

    Attributes:
        counts: cells by key.
        samples: by release and attempt, for each kind the keys with the moment and the arm of the first time.
    """

    def __init__(self, found: Iterable[Record]) -> None:
        self.counts: dict[Key, list[int]] = {}
        self.samples: dict[Key, dict[int, KeySample]] = {}
        self._ids: dict[int, Key] = {}
        chunks = []
        for record in found:
            if record.kind == Kind.ARM:
                self._add_arm(record.key, list(record.cells.cast("Q")))
            elif record.kind == Kind.SAMPLE:
                chunks.append(record)
        self._numbers = {arm_id(key): number for number, key in enumerate(self.counts)}
        for record in chunks:
            self._add_chunk(record)

    def _add_arm(self, key: Key, cells: list[int]) -> None:
        known = self.counts.get(key)
        self._ids[arm_id(key)] = key
        if known is None:
            self.counts[key] = cells
            return
        begins = [each[Arm.BEGIN] for each in (known, cells) if each[Arm.BEGIN]]
        self.counts[key] = [a + b for a, b in zip(known, cells, strict=True)]
        self.counts[key][Arm.BEGIN] = min(begins, default=0)

    def _add_chunk(self, record: Record) -> None:
        level, found = entries(record.cells)
        samples = self.samples.setdefault(record.key[:2], {})
        chunk: dict[int, KeySample] = {}
        for digest, arm, kind in found:
            key = self._ids.get(arm)
            if key is not None:
                sample = chunk.setdefault(kind, _sample(level))
                sample.add(digest, Entry(self.counts[key][Arm.BEGIN], self._numbers[arm]))
        for kind, sample in chunk.items():
            samples.setdefault(kind, KeySample(FAILED_CAP)).update(sample)

    def of(self, release: str, attempt: int) -> dict[Key, list[int]]:
        """The arms of an attempt."""
        return {key: cells for key, cells in self.counts.items() if key[:2] == (release, str(attempt))}

    def firsts(self, release: str, attempt: int, kind: int) -> dict[Key, int]:
        """For each arm, the keys that failed first in it, or were slow."""
        keys, found = list(self.counts), dict[Key, int]()
        sample = self.samples.get((release, str(attempt)), {}).get(kind)
        for entry in sample.values() if sample is not None else ():
            key = keys[entry.arm]
            found[key] = found.get(key, 0) + 1
        return found

    def level(self, release: str, attempt: int) -> int:
        """The level of the samples of an attempt."""
        samples = self.samples.get((release, str(attempt)), {})
        return max((sample.level for sample in samples.values()), default=0)


def _sample(level: int) -> KeySample:
    sample = KeySample(FAILED_CAP)
    sample.level = level
    return sample


def evidence_of(found: Iterable[Record], attempts: Attempts) -> dict[str, Evidence]:
    """The evidence of the present attempt of each release."""
    arms = Arms(found)
    return {name: _evidence(arms, name, attempts) for name in attempts if arms.of(name, attempts[name].number)}


def _evidence(arms: Arms, name: str, attempts: Attempts) -> Evidence:
    attempt = attempts[name]
    limits = tuple(map(Threshold, QUANTILES, attempt.limits))
    own = arms.of(name, attempt.number)
    kinds = [FAILED, *(SLOW + index for index in range(len(limits)))]
    firsts = [arms.firsts(name, attempt.number, kind) for kind in kinds]
    epochs: dict[EpochKey, dict[str, ArmCounts]] = {}
    level = arms.level(name, attempt.number)
    for key in sorted(own, key=lambda key: own[key][Arm.BEGIN]):
        counts = _counts(own[key], [each.get(key, 0) for each in firsts], level)
        epochs.setdefault(EpochKey(name, attempt.number, key[2]), {})[key[3]] = counts
    return Evidence(attempt.number, limits, epochs, level, attempt.since)


def _counts(cells: Sequence[int], firsts: Sequence[int], level: int) -> ArmCounts:
    """The value of an arm; of requests that are keys of their own the same part counts as of the others."""
    slow = range(len(firsts) - 1)
    return ArmCounts(
        cells[Arm.REQUESTS],
        cells[Arm.ERRORS],
        cells[Arm.REQUESTS] - cells[Arm.REPEATS],
        tuple(cells[Arm.JUDGED] - cells[Arm.SLOW_REPEATS + index] for index in slow),
        (cells[Arm.FAILED] >> level) + firsts[0],
        tuple((cells[Arm.SLOW + index] >> level) + firsts[1 + index] for index in slow),
    )


def times_of(folder: int | None, content: memoryview | None, release: str, attempt: int) -> list[float]:
    """The times of the first answers of an attempt in all workers.

    Args:
        folder: the descriptor of the run folder, None without one.
        content: of the memory of this process, where it shares nothing.
    """
    contents = [content] if content is not None else []
    if folder is not None and content is None:
        past = retired_content(folder)
        contents = [each.content for each in worker_files(folder)[0]] + ([past] if past is not None else [])
    found = (record for each in contents for record in records(each) if record.kind == Kind.TIMES)
    return [second for record in found if record.key == (release, str(attempt)) for second in times(record.cells)]


def merged(found: Sequence[Record]) -> Iterator[tuple[Kind, Key, bytes]]:
    """Records that hold what all of these hold, of the newest attempt of each release."""
    newest: dict[str, int] = {}
    for record in found:
        if record.kind in (Kind.ARM, Kind.SAMPLE, Kind.TIMES):
            newest[record.key[0]] = max(newest.get(record.key[0], 0), int(record.key[1]))
    current = [each for each in found if len(each.key) > 1 and newest.get(each.key[0]) == _number(each.key[1])]
    arms = Arms(current)
    for key, cells in arms.counts.items():
        yield Kind.ARM, key, b"".join(cell.to_bytes(8, "little") for cell in cells[:ARM_CELLS])
    for key in arms.samples:
        yield Kind.SAMPLE, (*key, "0"), _chunk(arms, key)
    for name, number in newest.items():
        own = [each for each in current if each.kind == Kind.TIMES and each.key[0] == name]
        known = [second for record in own for second in times(record.cells)]
        if known:
            micros = b"".join(int(each * 1e6).to_bytes(4, "little") for each in known[:TIMES])
            yield Kind.TIMES, (name, str(number)), min(len(known), TIMES).to_bytes(8, "little") + micros


def _chunk(arms: Arms, key: Key) -> bytes:
    keys = list(arms.counts)
    level = arms.level(key[0], int(key[1]))
    packed = [
        ENTRY.pack(digest, arm_id(keys[entry.arm]), kind)
        for kind, sample in arms.samples[key].items()
        for digest, entry in sample.items()
        if not digest & ((1 << level) - 1)
    ]
    return CHUNK.pack(level, len(packed)) + b"".join(packed)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
