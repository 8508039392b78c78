"""An hour of a simulated release, looked at each minute: equal versions are not called worse, and real harm is found.

The seeds are fixed, so a run gives the same figures everywhere. Users differ: a few of them make most requests and most
errors, there is an incident that hits both versions, and the weight is raised while evidence is gathered.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import NamedTuple

import pytest

from canary_mw.rollout.findings import ERROR_RATE, LATENCY, Findings, MetricEvidence, find
from canary_mw.rollout.statistics import Epoch, SeenKeys

MINUTES, STEP = 60, 15
WEIGHTS = (0.01, 0.05, 0.25, 0.5)
USERS = 3000
INCIDENT = (20, 23)


class User(NamedTuple):
    """`slot` decides as from which weight the user is in gray, `rate` is requests a minute, `prone` a factor."""

    slot: float
    rate: float
    prone: float


class Harm(NamedTuple):
    """How many times as often gray fails, and is slow."""

    errors: float = 1.0
    slow: float = 1.0


def users(random: Random) -> list[User]:
    return [
        User(random.random(), random.lognormvariate(-1.0, 1.2), 30.0 if random.random() < 0.02 else 1.0)
        for _ in range(USERS)
    ]


def entry(slot: float) -> int:
    """The step as from which a user is in gray; the number of steps for one who never is."""
    return next((step for step, weight in enumerate(WEIGHTS) if slot < weight), len(WEIGHTS))


def hazards(step: int, ratio: float, incident: float) -> list[float]:
    """The cumulative hazard, minute by minute, of a user who is in gray as from a step."""
    rates = [
        (ratio if minute >= step * STEP else 1.0) * (incident if INCIDENT[0] <= minute < INCIDENT[1] else 1.0)
        for minute in range(MINUTES)
    ]
    return list(accumulate(rates))


def first_events(random: Random, people: Sequence[User], share: float, ratio: float, incident: float) -> list[int]:
    """The minute of the first bad request of each user, `MINUTES` for none."""
    profiles = [hazards(step, ratio, incident) for step in range(len(WEIGHTS) + 1)]
    return [
        bisect_left(profiles[entry(user.slot)], random.expovariate(1.0) / (user.rate * user.prone * share))
        for user in people
    ]


def series(people: Sequence[User], firsts: Sequence[int]) -> list[list[Epoch]]:
    """The epochs as they are known after each minute."""
    events: list[list[User]] = [[] for _ in range(MINUTES + 1)]
    for user, minute in zip(people, firsts, strict=True):
        events[minute].append(user)
    rates = [sum(user.rate for user in people if user.slot < weight) for weight in WEIGHTS]
    total = sum(user.rate for user in people)
    epochs: list[Epoch] = []
    looks = []
    for minute in range(MINUTES):
        step = minute // STEP
        if minute % STEP == 0:
            epochs.append(Epoch(WEIGHTS[step], 0, 0))
        gray = sum(user.slot < WEIGHTS[step] for user in events[minute])
        known, requests = epochs[-1], (minute % STEP + 1)
        epochs[-1] = Epoch(
            WEIGHTS[step],
            known.gray + gray,
            known.stable + len(events[minute]) - gray,
            int(rates[step] * requests),
            int((total - rates[step]) * requests),
        )
        looks.append(list(epochs))
    return looks


def looks(seed: int, harm: Harm) -> Iterator[Findings]:
    """What is found after each minute."""
    random = Random(seed)
    people = users(random)
    errors = series(people, first_events(random, people, 0.005, harm.errors, incident=40))
    slow = [series(people, first_events(random, people, share, harm.slow, incident=10)) for share in (0.05, 0.01)]
    seen = [SeenKeys(WEIGHTS[0], sum(user.slot < WEIGHTS[0] for user in people), 0)]
    seen = [each._replace(stable=USERS - each.gray) for each in seen]
    for error, p95, p99 in zip(errors, *slow, strict=True):
        yield find([MetricEvidence(ERROR_RATE, [error]), MetricEvidence(LATENCY, [p95, p99])], seen)


def first_said(seed: int, harm: Harm) -> tuple[str, int]:
    """What is first said of gray, and after how many minutes; ("", 60) when nothing is."""
    for minute, found in enumerate(looks(seed, harm), 1):
        for state in ("worse", "slower", "better", "split_off"):
            if getattr(found, state):
                return state, minute
    return "", MINUTES


@pytest.mark.parametrize("runs", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_equal_versions_are_called_worse_in_one_hour_of_a_hundred_at_most(runs: int) -> None:
    said = [state for state, _ in (first_said(seed, Harm()) for seed in range(runs)) if state]
    assert len(said) <= 1, said


@pytest.mark.parametrize(
    ("harm", "state"), [(Harm(errors=6), "worse"), (Harm(slow=4), "slower"), (Harm(errors=60), "worse")]
)
def test_real_harm_is_found_within_the_hour(harm: Harm, state: str) -> None:
    assert [first_said(seed, harm)[0] for seed in range(5)] == [state] * 5


def test_the_greater_the_harm_the_sooner_it_is_found() -> None:
    minutes = [sorted(first_said(seed, Harm(errors=ratio))[1] for seed in range(5))[2] for ratio in (3, 10, 60)]
    assert minutes == sorted(minutes, reverse=True)
    assert minutes[0] > minutes[-1]
