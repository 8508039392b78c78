"""The users of a simulated service: how often they come, how often they fail, and when they first do."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import fsum
from random import Random
from typing import NamedTuple

# A few users who cause most errors: their number, and how many times as often they fail.
_FEW, _PRONE = 0.02, 200.0
# How different users are: the deviation of the logarithm of their rates.
_SPREAD = 1.2


class User(NamedTuple):
    """A user.

    Attributes:
        slot: in gray where it is below the weight.
        rate: requests a minute.
        failures: failing requests a minute, in stable.
    """

    slot: float
    rate: float
    failures: float


def population(random: Random, number: int, requests: float, error_rate: float, *, few: bool = False) -> list[User]:
    """Users that together make some requests a minute, of which a share fails.

    Args:
        few: 2 percent of the users cause most errors.
    """
    rates = [random.lognormvariate(0.0, _SPREAD) for _ in range(number)]
    prone = [_PRONE if few and random.random() < _FEW else 1.0 for _ in rates]
    scale = requests / fsum(rates)
    each = error_rate * requests / fsum(rate * factor for rate, factor in zip(rates, prone, strict=True))
    # A request fails once at most.
    return [
        User(random.random(), rate * scale, min(rate * factor * each, rate * scale))
        for rate, factor in zip(rates, prone, strict=True)
    ]


class Weight(NamedTuple):
    """A weight of gray in [0, 1], for some minutes."""

    share: float
    minutes: float


class Clock:
    """How much happens up to a minute: incidents of both variants let time run faster for failures.

    Args:
        incident: failures there are so many times as frequent, in the first two minutes of each hour but the first.
    """

    def __init__(self, minutes: int, incident: float = 1.0) -> None:
        self.factors = [incident if minute >= 60 and minute % 60 < 2 else 1.0 for minute in range(minutes)]
        self._bounds = [0.0, *accumulate(self.factors)]

    def at(self, minute: float) -> float:
        """The operational time of a minute."""
        whole = min(int(minute), len(self.factors))
        last = self.factors[whole] if whole < len(self.factors) else 1.0
        return self._bounds[whole] + (minute - whole) * last

    def minute(self, time: float) -> float:
        """The minute of an operational time; the end for one behind it."""
        index = bisect_left(self._bounds, time)
        if index >= len(self._bounds):
            return float(len(self.factors))
        return index - (self._bounds[index] - time) / self.factors[index - 1] if index else 0.0


class Failure(NamedTuple):
    """The first failure of a user."""

    minute: float
    epoch: int
    gray: bool
    user: User


def first_failures(
    random: Random, people: Sequence[User], weights: Sequence[Weight], clock: Clock, ratio: float
) -> list[Failure]:
    """The first failure of each user that has one, in their order.

    Args:
        ratio: gray fails so many times as often.
    """
    ends = [0.0, *accumulate(each.minutes for each in weights)]
    lengths = [clock.at(end) - clock.at(start) for start, end in pairwise(ends)]
    found = []
    for user in people:
        left = random.expovariate(1.0) / user.failures
        for epoch, (weight, length) in enumerate(zip(weights, lengths, strict=True)):
            gray = user.slot < weight.share
            factor = _factor(user, ratio) if gray else 1.0
            if left < length * factor:
                minute = clock.minute(clock.at(ends[epoch]) + left / factor)
                found.append(Failure(minute, epoch, gray, user))
                break
            left -= length * factor
    found.sort()
    return found


def _factor(user: User, ratio: float) -> float:
    return min(ratio, user.rate / user.failures)


def exposures(
    people: Sequence[User], failures: Sequence[Failure], weights: Sequence[Weight], until: float
) -> list[tuple[float, float]]:
    """Requests that are expected of users before their first failure, by epoch: gray and stable."""
    ends = [0.0, *accumulate(each.minutes for each in weights)]
    failed = {each.user.slot: each.minute for each in failures if each.minute <= until}
    found = []
    for weight, start, end in zip(weights, ends, ends[1:], strict=False):
        if start > until:
            break
        arms = [0.0, 0.0]
        for user in people:
            time = min(failed.get(user.slot, until), end, until) - start
            if time > 0:
                arms[user.slot >= weight.share] += user.rate * time
        found.append((arms[0], arms[1]))
    return found
