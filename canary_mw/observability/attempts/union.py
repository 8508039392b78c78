"""The evidence of all workers: their counts in sum, and of each key what happened to it first."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add

from canary_mw.observability.attempts.layout import (
    CHUNK,
    ENTRY,
    SEEN,
    TIMES,
    VALUE,
    Arm,
    Count,
    Key,
    entries,
    first_values,
    gray_keys,
    of_both,
    times,
    values,
)
from canary_mw.observability.figures.files import retired_contents, worker_files
from canary_mw.observability.figures.layout import EVIDENCE, Kind, Record, records
from canary_mw.rollout.key_sample import FAILED_CAP, SEEN_CAP

# First failures a minute of one network of clients that count towards a rollback, and the seconds of that minute.
_MOST_OF_NETWORK = 50
_MINUTE = 60
_READ_FIRST: dict[int, Callable[[memoryview], Sequence[float]]] = {Kind.TIMES: times, Kind.VALUES: values}

# When it happened first, the number of the arm in the union, and the network of the client.
First = tuple[int, int, int]


class Keys:
    """The keys of all workers to which one thing has happened.

    Attributes:
        level: those are kept whose so many low bits are 0.
        by_step: for each step the keys to which it happened in that step, with the first time there.
    """

    def __init__(self, cap: int) -> None:
        self.level = 0
        self.by_step: dict[str, dict[int, First]] = {}
        self._cap = cap

    def add(self, level: int, found: Iterable[tuple[int, int, int, int]], arms: dict[int, tuple[int, str]]) -> None:
        """Add the entries of a chunk.

        Args:
            arms: by their numbers in the file, those in the union, and their steps.
        """
        self._thin(level)
        mask = (1 << self.level) - 1
        for digest, number, network, second in found:
            if number in arms and not digest & mask:
                arm, step = arms[number]
                known, new = self.by_step.setdefault(step, {}), (second, arm, network)
                if digest not in known or new < known[digest]:
                    known[digest] = new

    def settle(self) -> None:
        """Thin out what is too much."""
        while len(self.firsts()) > self._cap:
            self._thin(self.level + 1)

    def _thin(self, level: int) -> None:
        if level > self.level:
            self.level, mask = level, (1 << level) - 1
            for step, known in self.by_step.items():
                self.by_step[step] = {digest: first for digest, first in known.items() if not digest & mask}

    def firsts(self) -> dict[int, First]:
        """All keys with the first time of all steps."""
        steps = iter(self.by_step.values())
        found = dict(next(steps, {}))
        for known in steps:
            for digest, first in known.items():
                if digest not in found or first < found[digest]:
                    found[digest] = first
        return found


def by_arm(firsts: Iterable[First]) -> dict[int, int]:
    """How many there are of each arm."""
    found: dict[int, int] = {}
    for _, arm, _ in firsts:
        found[arm] = found.get(arm, 0) + 1
    return found


def capped(firsts: dict[int, First]) -> list[First]:
    """The first ones of each minute and network of clients; of one second those that no draw has chosen."""
    seen: dict[tuple[int, int], int] = {}
    found = []
    # The low bits of a digest say nothing of the variant.
    for _, first in sorted(firsts.items(), key=lambda item: (item[1][0], item[0] & 0xFFFFFFFF)):
        place = first[0] // _MINUTE, first[2]
        seen[place] = seen.get(place, 0) + 1
        if seen[place] <= _MOST_OF_NETWORK:
            found.append(first)
    return found


class Union:
    """What the records of some files say together.

    Args:
        files: the records of each.

    Attributes:
        arms: cells by key, in the order in which the arms began.
        counts: cells by the key of the arm, and the name of the measure.
        arms_of: keys of arms, by release and attempt.
        counts_of: keys of counts, by release, attempt and name of the measure.
        keys: by release, attempt and name of the measure.
        gray_keys: by release, attempt, step and variant.
        times: by release, attempt and what was taken off, or the name of the values.
    """

    def __init__(self, files: Iterable[Sequence[Record]]) -> None:
        self.arms: dict[Key, list[int]] = {}
        self.counts: dict[Key, list[int]] = {}
        self.keys: dict[Key, Keys] = {}
        self.gray_keys: dict[Key, set[int]] = {}
        self.times: dict[Key, list[float]] = {}
        files = [[record for record in file if record.kind in EVIDENCE] for file in files]
        numbers = [self._add_arms(file) for file in files]
        self.arms = dict(sorted(self.arms.items(), key=lambda item: (item[1][Arm.BEGIN], item[0])))
        self.arms_of = _grouped((key[:2], key) for key in self.arms)
        self.places = {key: place for place, key in enumerate(self.arms)}
        for file, known in zip(files, numbers, strict=True):
            arms = {number: (self.places[key], key[4]) for number, key in known.items()}
            requests = {each.key: each.cells.cast("Q")[Arm.REQUESTS] for each in file if each.kind == Kind.ARM}
            for record in file:
                if record.kind == Kind.MEASURE:
                    _add_cells(self.counts, record.key, _judged(record, requests))
                else:
                    self._add(record, arms)
        self.counts_of = _grouped(((*key[:2], key[5]), key) for key in self.counts if key[:5] in self.arms)
        for each in self.keys.values():
            each.settle()

    def _add_arms(self, file: Sequence[Record]) -> dict[int, Key]:
        """Add the arms of a file; returns their keys by their numbers there."""
        found = {}
        for record in file:
            if record.kind == Kind.ARM:
                cells = list(record.cells.cast("Q"))
                found[cells[Arm.NUMBER]] = record.key
                begins = [each[Arm.BEGIN] for each in (self.arms.get(record.key), cells) if each and each[Arm.BEGIN]]
                _add_cells(self.arms, record.key, cells)
                self.arms[record.key][Arm.BEGIN] = min(begins, default=0)
        return found

    def _add(self, record: Record, arms: dict[int, tuple[int, str]]) -> None:
        if record.kind == Kind.KEYS:
            cap = SEEN_CAP if record.key[2] == SEEN else FAILED_CAP
            self.keys.setdefault(record.key[:3], Keys(cap)).add(*entries(record.cells), arms)
        elif record.kind == Kind.GRAY_KEYS:
            self.gray_keys.setdefault(record.key[:4], set()).update(gray_keys(record.cells))
        elif record.kind in _READ_FIRST:
            self.times.setdefault(record.key, []).extend(_READ_FIRST[record.kind](record.cells))


def _judged(record: Record, requests: dict[Key, int]) -> list[int]:
    """The cells of a measure; of one that has no limit yet no request of its arm is judged."""
    cells: list[int] = record.cells.cast("Q").tolist()
    if not cells[Count.BEGUN]:
        cells[Count.UNJUDGED] = requests.get(record.key[:5], 0)
    return cells


def _grouped(pairs: Iterable[tuple[Key, Key]]) -> dict[Key, list[Key]]:
    found: dict[Key, list[Key]] = {}
    for group, key in pairs:
        found.setdefault(group, []).append(key)
    return found


def _add_cells(total: dict[Key, list[int]], key: Key, cells: list[int]) -> None:
    total[key] = list(map(add, total[key], cells)) if key in total else cells


def times_of(folder: int | None, content: memoryview | None, key: Key) -> list[float]:
    """The times of the first answers of an attempt in all workers, or the first values.

    Args:
        folder: the descriptor of the run folder, None without one.
        content: of the memory of this process, where it shares nothing.
        key: as in `Union.times`.
    """
    contents = [content] if content is not None else []
    if folder is not None and content is None:
        contents = [each.content for each in worker_files(folder)[0]] + retired_contents(folder)
    return times_in(contents, key)


def times_in(contents: Iterable[memoryview], key: Key) -> list[float]:
    """The same in files of figures."""
    found = (record for each in contents for record in records(each) if record.kind in _READ_FIRST)
    firsts = [first for record in found if record.key == key for first in _READ_FIRST[record.kind](record.cells)]
    return of_both(list(map(int, firsts))) if key[2].startswith(VALUE) else firsts


def merged(files: Sequence[Sequence[Record]]) -> Iterator[tuple[Kind, Key, bytes]]:
    """Records that hold what those of all these files hold, of the newest attempt of each release."""
    newest: dict[str, int] = {}
    for record in (each for file in files for each in file if each.kind in EVIDENCE):
        newest[record.key[0]] = max(newest.get(record.key[0], 0), int(record.key[1]))
    union = Union([_current(file, newest) for file in files])
    for number, (key, cells) in enumerate(union.arms.items(), 1):
        cells[Arm.NUMBER] = number
        yield Kind.ARM, key, _packed(cells)
    for key, cells in union.counts.items():
        yield Kind.MEASURE, key, _packed(cells)
    for key, known in union.keys.items():
        yield Kind.KEYS, (*key, "0", "0"), _chunk(known)
    for key, digests in union.gray_keys.items():
        yield Kind.GRAY_KEYS, (*key, str(len(digests))), _packed([len(digests), *digests])
    for key, firsts in union.times.items():
        if key[2].startswith(VALUE):
            numbers = first_values(list(map(int, firsts)))
            yield Kind.VALUES, key, _packed([len(numbers), *numbers])
        else:
            kept = firsts[:TIMES]
            micros = b"".join(int(each * 1e6).to_bytes(4, "little") for each in kept)
            yield Kind.TIMES, key, len(kept).to_bytes(8, "little") + micros


def _current(file: Sequence[Record], newest: dict[str, int]) -> list[Record]:
    return [each for each in file if each.kind in EVIDENCE and int(each.key[1]) == newest[each.key[0]]]


def _packed(numbers: Iterable[int]) -> bytes:
    return b"".join(each.to_bytes(8, "little") for each in numbers)


def _chunk(known: Keys) -> bytes:
    found = [(digest, first) for keys in known.by_step.values() for digest, first in keys.items()]
    packed = [ENTRY.pack(digest, arm + 1, network, second) for digest, (second, arm, network) in found]
    return CHUNK.pack(known.level, len(packed)) + b"".join(packed)
