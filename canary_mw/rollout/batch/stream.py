"""A stream of requests, looked at after each of them: what it adds up to, and when gray is called worse."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from canary_mw.exceptions import ConfigError
from canary_mw.rollout.batch.values import Fields, checked_number
from canary_mw.rollout.key_sample import Entry, KeySample
from canary_mw.rollout.statistics import Epoch, attribution, ln_needed

_STABLE, _GRAY = 0, 1


class Request(NamedTuple):
    """A drawn request: the number of its epoch, the digest of its key, and whether it failed."""

    epoch: int
    key: int
    arm: int
    failed: bool


class Stream(NamedTuple):
    """Requests in their order, and the weight of each epoch."""

    weights: list[float]
    requests: list[Request]


def read_stream(fields: Fields) -> Stream:
    """A stream of a line of `canary-mw evidence --batch`."""
    weights = fields.items("weights", lambda place, value: checked_number(place, value, 0, 1))
    requests = [_request(each) for each in fields.objects("events")]
    for index, request in enumerate(requests):
        if request.epoch >= len(weights):
            raise ConfigError(f"events[{index}].epoch is {request.epoch}, and there are {len(weights)} weights")
    return Stream(weights, requests)


def _request(fields: Fields) -> Request:
    arm = _GRAY if fields.choice("variant", "stable", "gray") == "gray" else _STABLE
    return Request(fields.count("epoch"), fields.digest("key"), arm, fields.flag("failed"))


class _Counts:
    """First failures by epoch and variant, while keys are added to a sample."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.sample = KeySample()
        self._weights = weights
        self._count_anew()

    def _count_anew(self) -> None:
        self._level = self.sample.level
        self._counts = [[0, 0] for _ in self._weights]
        for entry in self.sample.values():
            self._counts[entry.epoch][entry.arm] += 1

    def add(self, request: Request) -> bool:
        """Count the failure of a key; returns whether it is its first one."""
        if request.key in self.sample:
            return False
        new = self.sample.add(request.key, Entry(request.epoch, request.arm))
        if self.sample.level != self._level:
            self._count_anew()
        elif new:
            self._counts[request.epoch][request.arm] += 1
        return new

    def epochs(self) -> list[Epoch]:
        return [Epoch(weight, *counts[::-1]) for weight, counts in zip(self._weights, self._counts, strict=True)]

    def stands(self, needed: float, minimum_failures: int) -> bool:
        """Whether gray is called worse."""
        epochs = self.epochs()
        return sum(each.gray for each in epochs) >= minimum_failures and attribution(epochs) >= needed


def follow(stream: Stream, alpha: float, minimum_failures: int, after: Sequence[int]) -> dict[str, Any]:
    """Count the first failures of keys and look at the evidence after each one in gray.

    Args:
        after: numbers of requests after which the evidence is wanted.
    """
    counts, needed = _Counts(stream.weights), ln_needed(alpha)
    first, wanted = None, set(after)
    path = {0: 0.0}
    for index, request in enumerate(stream.requests):
        new = request.failed and counts.add(request)
        if new and request.arm == _GRAY and first is None and counts.stands(needed, minimum_failures):
            first = index
        if index + 1 in wanted:
            path[index + 1] = attribution(counts.epochs())
    epochs = counts.epochs()
    return {
        "counts": [{"weight": each.weight, "gray": each.gray, "stable": each.stable} for each in epochs],
        "path": [{"after": each, "ln_e": path[each]} for each in after if each in path],
        "ln_e": attribution(epochs),
        "first_roll_back": first,
        "distinct_failed_keys": counts.sample.estimate,
    }
