"""The tables: which streams and releases are simulated, and what is told of them."""

from collections.abc import Iterator, Sequence
from math import inf
from random import Random
from statistics import median
from typing import NamedTuple

from canary_mw.rollout.findings import ERROR_RATE

from .attribution import verdict_minute
from .latency import slow_minute
from .population import Clock, Weight, first_failures, population
from .rivals import Rivals, judged, minutes
from .whole import Case, Ended, Release, flagger_shape, share_of

USERS = 10_000
# The other rules take equal versions back nearly always: fewer streams tell it.
RIVALS = 300
STEPS = (0.01, 0.05, 0.25, 0.5)


class Stream(NamedTuple):
    """A stream of requests at given weights.

    Attributes:
        ratio: gray fails so many times as often as stable, of whose requests 0.5 percent fail.
        requests: a minute.
        incident: failures are so many times as frequent in two minutes of each hour.
    """

    name: str
    weights: tuple[Weight, ...]
    requests: float = 2000.0
    ratio: float = 1.0
    few: bool = False
    incident: float = 1.0


def at(share: float, hours: float) -> tuple[Weight, ...]:
    """One weight."""
    return (Weight(share, hours * 60),)


def steps(each: float, last: float) -> tuple[Weight, ...]:
    """The weights of `STEPS`, each for some hours, the last one for others."""
    return tuple(Weight(share, 60 * (last if share == STEPS[-1] else each)) for share in STEPS)


EQUAL = (
    Stream("10 %, 2,000 a minute, 24 h", at(0.1, 24)),
    Stream("the same, few users cause most errors", at(0.1, 24), few=True),
    Stream("steps 1-5-25-50 of 6 h, such users", steps(6, 6), few=True),
    Stream("2 minutes an hour 20 % errors of both, 12 h", at(0.1, 12), incident=40.0),
    Stream("1 request a second, such users, 24 h", at(0.1, 24), requests=60.0, few=True),
    Stream("1 request a second, steps, such users, 24 h", steps(6, 6), requests=60.0, few=True),
)
WORSE = (
    Stream("3 % against 0.5 %, 10 %, 2,000 a minute", at(0.1, 2), ratio=6.0),
    Stream("1.5 % against 0.5 %", at(0.1, 4), ratio=3.0),
    Stream("3 %, steps 1-5-25-50 of 10 minutes", steps(1 / 6, 3), ratio=6.0),
    Stream("six times as often, few users cause most errors", at(0.1, 24), ratio=6.0, few=True),
    Stream("3 %, 10 %, 1 request a second", at(0.1, 24), requests=60.0, ratio=6.0),
    Stream("50 %, weight 1 %", at(0.01, 1), ratio=100.0),
)
SLOW = (
    ("equal, 10 %, 2,000 a minute, 24 h", 2000.0, 24, 1.0),
    ("equal, 1 request a second, 24 h", 60.0, 24, 1.0),
    ("30 % slower, 2,000 a minute", 2000.0, 2, 1.3),
    ("30 % slower, 1 request a second", 60.0, 24, 1.3),
)
# With how many releases.
WHOLE = (
    ("equal", 1000, Case()),
    ("equal, few users cause most errors", 200, Case(few=True)),
    ("equal, 2 minutes of 20 % errors of both each hour", 200, Case(incident=40.0)),
    ("×1.5 (inside the margin)", 200, Case(ratio=1.5)),
    ("×2", 200, Case(ratio=2.0)),
    ("×3", 200, Case(ratio=3.0)),
    ("×6", 200, Case(ratio=6.0)),
    ("×60", 200, Case(ratio=60.0)),
    ("equal, 1 request a second, 12 h", 40, Case(requests=60.0)),
    ("×6, 1 request a second, 12 h", 40, Case(requests=60.0, ratio=6.0)),
)


class Verdicts(NamedTuple):
    """The minutes at which gray is taken back in one stream."""

    ours: float | None
    rivals: Rivals | None


def simulated(stream: Stream, seed: int, *, rivals: bool = True) -> Verdicts:
    """One stream under the verdict of the product and under the rules of others."""
    random = Random(seed)
    people = population(random, USERS, stream.requests, 0.005, few=stream.few)
    clock = Clock(round(sum(each.minutes for each in stream.weights)), stream.incident)
    failures = first_failures(random, people, stream.weights, clock, stream.ratio)
    ours = verdict_minute(people, failures, stream.weights)
    if not rivals:
        return Verdicts(ours, None)
    return Verdicts(ours, judged(minutes(random, people, failures, stream.weights, clock, stream.ratio)))


Row = dict[str, str | float | None]


def false_alarms(runs: int) -> Iterator[Row]:
    """How often gray is taken back although it is equal, in percent."""
    for stream in EQUAL:
        found = [simulated(stream, seed, rivals=seed < RIVALS) for seed in range(runs)]
        yield {
            "stream": stream.name,
            "runs": runs,
            "rivals": min(runs, RIVALS),
            "ours": _percent([each.ours for each in found]),
            **{name: _percent(times) for name, times in _by_rival(found).items()},
        }


def detections(runs: int) -> Iterator[Row]:
    """After how many minutes gray is taken back, median and 90 percent."""
    for stream in WORSE:
        found = [simulated(stream, seed) for seed in range(runs)]
        row: Row = {"stream": stream.name, "runs": runs}
        for name, times in {"ours": [each.ours for each in found], **_by_rival(found)}.items():
            row |= {f"{name} median": _quantile(times, 0.5), f"{name} 90 %": _quantile(times, 0.9)}
        yield row


def slow_answers(runs: int) -> Iterator[Row]:
    """How often and when gray is called slower."""
    for name, requests, hours, slower in SLOW:
        times = [slow_minute(seed, requests, hours, slower) for seed in range(runs)]
        median_minutes, late = _quantile(times, 0.5), _quantile(times, 0.9)
        yield {"stream": name, "runs": runs, "found": _percent(times), "median": median_minutes, "90 %": late}


def whole_releases(most: int) -> Iterator[Row]:
    """How whole releases end.

    Args:
        most: of one kind.
    """
    for name, runs, case in WHOLE:
        number = min(runs, most)
        ours = [Release(case, seed).ended() for seed in range(number)]
        theirs = [flagger_shape(case, seed) for seed in range(number)]
        yield {
            "gray": name,
            "runs": number,
            **_ends("", ours),
            "minutes": round(median(each.minutes for each in ours)),
            "weight": median(each.weight for each in ours),
            "beyond margin": sum(each.raised > ERROR_RATE.margin + 1e-9 for each in ours),
            **_ends("flagger ", theirs),
        }


def _ends(prefix: str, ended: Sequence[Ended]) -> Row:
    return {
        f"{prefix}completed": round(share_of(ended, "completed"), 1),
        f"{prefix}rolled back": round(share_of(ended, "rolled back"), 1),
        f"{prefix}extra": round(sum(each.extra for each in ended) / len(ended), 1),
    }


def _by_rival(found: Sequence[Verdicts]) -> dict[str, list[float | None]]:
    rivals = [each.rivals for each in found if each.rivals is not None]
    return {name: [getattr(each, name) for each in rivals] for name in Rivals._fields}


def _percent(times: Sequence[float | None]) -> float:
    return round(100 * sum(each is not None for each in times) / len(times), 2)


def _quantile(times: Sequence[float | None], quantile: float) -> float | None:
    """The time within which so many are found; None where fewer are found at all."""
    ordered = sorted(inf if each is None else each for each in times)
    found = ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]
    return None if found == inf else round(found, 1)
