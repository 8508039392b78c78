"""From what the files of all workers say together to the evidence of releases."""

from collections.abc import Iterable, Sequence

from canary_mw.observability.attempts.layout import SEEN, VALUE, Arm, Count, Key
from canary_mw.observability.attempts.measures import ERRORS, SLOWER
from canary_mw.observability.attempts.register import Attempt, Attempts
from canary_mw.observability.attempts.union import Keys, Union, by_arm, capped
from canary_mw.observability.evidence import ArmCounts, EpochKey, Evidence, MeasureCounts, Threshold
from canary_mw.observability.figures.layout import Record

_NO_COUNTS = MeasureCounts()


def evidence_of(files: Iterable[Sequence[Record]], attempts: Attempts) -> dict[str, Evidence]:
    """The evidence of the present attempt of each release, from the records of all files."""
    union = Union(files)
    present = {name: (name, str(attempt.number)) for name, attempt in attempts.items()}
    return {name: _evidence(union, key, attempts[name]) for name, key in present.items() if key in union.arms_of}


def _evidence(union: Union, key: Key, attempt: Attempt) -> Evidence:
    measures = [each[2] for each in union.counts_of if each[:2] == key]
    counts = {each: _measured(union, (*key, each), capping=attempt.stored > 0) for each in measures}
    limits = tuple(Threshold(each, limit) for each in measures if (limit := _limit(each, attempt)) is not None)
    seen = _seen(union, key)
    epochs: dict[EpochKey, dict[str, ArmCounts]] = {}
    for arm in union.arms_of[key]:
        epoch = EpochKey(key[0], attempt.shown, arm[2], int(arm[4]))
        found = {each: counts[each][arm] for each in measures if arm in counts[each]}
        epochs.setdefault(epoch, {})[arm[3]] = _arm_counts(union.arms[arm][Arm.REQUESTS], found, limits, seen[arm])
    gray_keys = _gray_keys(union, key)
    return Evidence(attempt.shown, limits, epochs, attempt.since, attempt.stored > 0, gray_keys)


def _limit(measure: str, attempt: Attempt) -> float | None:
    """The limit of a measure of latency, None where it is not known, and for others."""
    if measure.startswith(SLOWER):
        return float(measure.removeprefix(SLOWER).split()[0])
    return None if measure.startswith(VALUE) else attempt.limits.get(measure)


def _arm_counts(requests: int, measures: dict[str, MeasureCounts], limits: Sequence[Threshold], seen: int) -> ArmCounts:
    errors = measures.get(ERRORS, _NO_COUNTS)
    slow = [measures.get(each.name, _NO_COUNTS) for each in limits]
    return ArmCounts(
        requests,
        errors.bad,
        errors.exposures,
        tuple(each.exposures for each in slow),
        errors.firsts,
        tuple(each.firsts for each in slow),
        seen,
        measures,
    )


def _measured(union: Union, key: Key, *, capping: bool) -> dict[Key, MeasureCounts]:
    """The counts of a measure by arm."""
    keys = union.keys.get(key) or Keys(1)
    firsts = keys.firsts()
    first_of = by_arm(capped(firsts) if capping else firsts.values())
    steps = {step: by_arm(known.values()) for step, known in keys.by_step.items()}
    found = {}
    for each in union.counts_of[key]:
        arm, place = each[:5], union.places[each[:5]]
        in_step = steps.get(arm[4], {}).get(place, 0)
        requests = union.arms[arm][Arm.REQUESTS]
        found[arm] = _counts(requests, union.counts[each], first_of.get(place, 0), in_step, keys.level)
    return found


def _counts(requests: int, cells: Sequence[int], firsts: int, step_firsts: int, level: int) -> MeasureCounts:
    judged = requests - cells[Count.UNJUDGED]
    keyless = cells[Count.KEYLESS] >> level
    return MeasureCounts(
        judged,
        cells[Count.BAD],
        max(judged - cells[Count.REPEATS] + cells[Count.FIRST], 0) >> level,
        keyless + firsts,
        max(judged - cells[Count.STEP_REPEATS] + cells[Count.STEP_FIRST], 0) >> level,
        keyless + step_firsts,
    )


def _seen(union: Union, key: Key) -> dict[Key, int]:
    """The keys that came first in each arm; of requests that are keys of their own the same part counts."""
    keys = union.keys.get((*key, SEEN)) or Keys(1)
    counts = by_arm(keys.firsts().values())
    keyless = {arm: union.arms[arm][Arm.KEYLESS] >> keys.level for arm in union.arms_of[key]}
    return {arm: counts.get(union.places[arm], 0) + count for arm, count in keyless.items()}


def _gray_keys(union: Union, key: Key) -> dict[tuple[int, str], int]:
    found = {(int(each[2]), each[3]): len(known) for each, known in union.gray_keys.items() if each[:2] == key}
    for arm in union.arms_of[key]:
        place = int(arm[4]), arm[3]
        if place in found:
            found[place] += union.arms[arm][Arm.KEYLESS]
    return found
