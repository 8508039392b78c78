"""Rules in the shape of other tools, on the same streams: looked at once a minute."""

from collections.abc import Iterator, Sequence
from math import fsum, sqrt
from random import Random
from typing import NamedTuple

from canary_mw.rollout.forecast import poisson

from .population import Clock, Failure, User, Weight

# Flagger: request-success-rate with a threshold of 99 and `threshold: 5`; Argo Rollouts: the same query as a
# successCondition with `failureLimit: 3`.
_SUCCESS, _FLAGGER, _ARGO = 0.99, 5, 4
# One-sided, at 1 percent.
_Z = 2.326


class Minute(NamedTuple):
    """Requests and failures of one minute."""

    gray: int
    gray_bad: int
    stable: int
    stable_bad: int


class Rivals(NamedTuple):
    """The minutes at which each rule takes gray back, None if it never does."""

    flagger: int | None
    argo: int | None
    z_test: int | None


def minutes(
    random: Random,
    people: Sequence[User],
    failures: Sequence[Failure],
    weights: Sequence[Weight],
    clock: Clock,
    ratio: float,
) -> Iterator[Minute]:
    """The requests and failures of each minute: first failures as given, and those of users who have failed before."""
    start, number, at = 0.0, 0, 0
    for weight in weights:
        rates = [fsum(user.rate for user in people if (user.slot < weight.share) is gray) for gray in (True, False)]
        # Failures a minute of the users who have failed, gray and stable.
        again = [0.0, 0.0]
        for each in failures[:at]:
            again[each.user.slot >= weight.share] += each.user.failures
        while number < start + weight.minutes:
            counted = [0, 0]
            repeated = [again[0] * ratio * clock.factors[number], again[1] * clock.factors[number]]
            while at < len(failures) and failures[at].minute < number + 1:
                arm = failures[at].user.slot >= weight.share
                counted[arm] += 1
                again[arm] += failures[at].user.failures
                at += 1
            bad = [counted[arm] + poisson(random.random(), repeated[arm]) for arm in (0, 1)]
            requests = [max(poisson(random.random(), rates[arm]), bad[arm]) for arm in (0, 1)]
            yield Minute(requests[0], bad[0], requests[1], bad[1])
            number += 1
        start += weight.minutes


def judged(stream: Iterator[Minute]) -> Rivals:
    """When each rule takes gray back."""
    bad_looks, totals = 0, Minute(0, 0, 0, 0)
    flagger = argo = z_test = None
    for number, minute in enumerate(stream, 1):
        totals = Minute(*(a + b for a, b in zip(totals, minute, strict=True)))
        bad_looks += is_bad(minute)
        flagger = number if flagger is None and bad_looks >= _FLAGGER else flagger
        argo = number if argo is None and bad_looks >= _ARGO else argo
        z_test = number if z_test is None and _z(totals) >= _Z else z_test
        if flagger and argo and z_test:
            break
    return Rivals(flagger, argo, z_test)


def is_bad(minute: Minute) -> bool:
    """Whether too few requests of gray succeed; without any there is nothing to say."""
    return minute.gray > 0 and minute.gray_bad > (1 - _SUCCESS) * minute.gray


def _z(totals: Minute) -> float:
    if not totals.gray or not totals.stable:
        return 0.0
    pooled = (totals.gray_bad + totals.stable_bad) / (totals.gray + totals.stable)
    spread = sqrt(pooled * (1 - pooled) * (1 / totals.gray + 1 / totals.stable))
    return (totals.gray_bad / totals.gray - totals.stable_bad / totals.stable) / spread if spread else 0.0
