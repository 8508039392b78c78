"""Whole releases: the engine of the product raises, holds and rolls back on simulated failures of users."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, log
from random import Random
from typing import Literal, NamedTuple

from canary_mw.config.canary.plan import plan_of
from canary_mw.rollout.engine import Now, tick
from canary_mw.rollout.evidence import ReleaseEvidence, VariantEvidence
from canary_mw.rollout.findings import ERROR_RATE, MetricEvidence, StepCounts
from canary_mw.rollout.forecast import poisson
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.statistics import Arm, Epoch
from canary_mw.rules.release import GrayRelease, HashFunction, ReleaseVariant

from .attribution import may_be_worse
from .population import Clock, User, Weight, population
from .rivals import Minute, is_bad

WEIGHTS = (1, 5, 25, 50, 100)
_PAUSE, _BAKE = 300, 900
# Flagger's shape: +5 percent a minute up to 50, five bad looks take gray back.
_STEP, _MOST, _LOOKS = 5, 50, 5
_GRAY, _STABLE = 0, 1

End = Literal["completed", "rolled back", "not finished"]


class Case(NamedTuple):
    """A release that is simulated.

    Attributes:
        ratio: gray fails so many times as often.
        requests: of all users, a minute.
        few: 2 percent of the users cause most errors.
        incident: failures are so many times as frequent in two minutes of each hour but the first.
        hours: how long somebody waits for the end.
    """

    ratio: float = 1.0
    requests: float = 1000.0
    error_rate: float = 0.005
    users: int = 10_000
    few: bool = False
    incident: float = 1.0
    hours: int = 12


class Ended(NamedTuple):
    """How a release ended.

    Attributes:
        minutes: when.
        weight: the largest percent that gray had.
        extra: requests that failed because gray is worse.
        raised: the largest share of all requests that a step up has newly hit, beyond what stable fails.
    """

    end: End
    minutes: float
    weight: float
    extra: float
    raised: float


def document() -> GrayRelease:
    """The release: errors are judged, by the defaults."""
    steps: list[dict[str, object]] = []
    for weight in WEIGHTS:
        steps += [{"setWeight": weight}, {"pause": {"duration": _PAUSE}}]
    analysis = {"metrics": [{"name": "error_rate"}]}
    plan = plan_of({"steps": steps[:-1], "bake": {"duration": _BAKE}, "analysis": analysis})
    variant = ReleaseVariant(name="gray", mappings=("gray",), slots=0)
    return GrayRelease(name="r", variants=(variant,), hash=HashFunction("sha256", "r"), lane="r", plan=plan)


@dataclass
class _Step:
    """The time of one weight: who fails in it first, and what was counted so far.

    Attributes:
        events: minute, variant and user of each first failure in the step, in their order.
        at: how many of them have happened.
        alive: requests a minute of users who have not failed in it, by variant; `fresh` of those that never failed.
        again: failures a minute of users who have failed in it.
    """

    share: float
    events: list[tuple[float, int, User]]
    rates: list[float]
    alive: list[float]
    fresh: list[float]
    again: list[float]
    gray_users: int
    minutes: float = 0.0
    at: int = 0

    def __post_init__(self) -> None:
        self.failed, self.first = [0, 0], [0, 0]
        self.exposures, self.first_exposures = [0.0, 0.0], [0.0, 0.0]
        self.requests, self.bad = [0, 0], [0, 0]

    def epoch(self) -> Epoch:
        """What it says for the release."""
        return Epoch(self.share, *self.first, *(round(each) for each in self.first_exposures))

    def counts(self) -> StepCounts:
        """What it says for the next step."""
        arms = [Arm(failed, round(seen)) for failed, seen in zip(self.failed, self.exposures, strict=True)]
        return StepCounts(
            *arms,
            gray_requests=self.requests[_GRAY],
            gray_bad=self.bad[_GRAY],
            stable_requests=self.requests[_STABLE],
            stable_bad=self.bad[_STABLE],
        )


class Release:
    """A release that the engine drives, minute by minute."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.random = case, Random(seed)
        self.people = population(self.random, case.users, case.requests, case.error_rate, few=case.few)
        self.clock = Clock(case.hours * 60, case.incident)
        self.document = document()
        self.failed: set[int] = set()
        self.steps: list[_Step] = []
        self.minute, self.extra, self.raised, self.largest = 0.0, 0.0, 0.0, 0.0

    def ended(self) -> Ended:
        """How it ends."""
        state = self._ticked(None, 0.0)
        while state.phase not in ("Completed", "RolledBack") and self.minute < self.case.hours * 60:
            before = state.weight
            state = self._minute(state)
            if state.weight > before:
                self.raised = max(self.raised, self._harm() * state.weight / 100)
        ends: dict[str, End] = {"Completed": "completed", "RolledBack": "rolled back"}
        return Ended(ends.get(state.phase, "not finished"), self.minute, self.largest, self.extra, self.raised)

    def _harm(self) -> float:
        """The share of the requests of gray that fail because it is worse."""
        factor = self.case.ratio - 1
        return fsum(user.failures for user in self.people) * factor / self.case.requests

    def _ticked(self, state: ReleaseState | None, seconds: float) -> ReleaseState:
        now = Now(elapsed=seconds, controller=True)
        outcome = tick(self.document, state, self._evidence(state), now)
        assert outcome.state is not None
        if state is None or outcome.state.weights != state.weights:
            self._begin(outcome.state.weight / 100)
        self.largest = max(self.largest, outcome.state.weight)
        return outcome.state

    def _evidence(self, state: ReleaseState | None) -> ReleaseEvidence:
        if state is None or not self.steps:
            return ReleaseEvidence(attempt=1)
        last = self.steps[-1]
        epochs = [each.epoch() for each in self.steps]
        each = last.rates[_GRAY] / last.gray_users if last.gray_users else 0.0
        keys = last.gray_users * (1 - exp(-each * last.minutes))
        metrics = [MetricEvidence(ERROR_RATE, [epochs], [last.counts()])]
        return ReleaseEvidence(attempt=state.attempt, variants={"gray": VariantEvidence(metrics, gray_keys=int(keys))})

    def _begin(self, share: float) -> None:
        """The users of a weight, and who of them will fail first in it: without a memory, so drawn anew."""
        start, horizon = self.clock.at(self.minute), self.clock.at(self.case.hours * 60)
        draw, failed = self.random.random, self.failed
        rates, fresh, events, gray_users = [0.0, 0.0], [0.0, 0.0], [], 0
        for user in self.people:
            slot, rate, hazard = user
            arm = _GRAY if slot < share else _STABLE
            if arm == _GRAY:
                gray_users += 1
                hazard = min(hazard * self.case.ratio, rate)
            rates[arm] += rate
            if id(user) not in failed:
                fresh[arm] += rate
            time = start - log(1.0 - draw()) / hazard
            if time < horizon:
                events.append((time, arm, user))
        soon = sorted((self.clock.minute(time), arm, user) for time, arm, user in events)
        self.steps.append(_Step(share, soon, rates, [*rates], fresh, [0.0, 0.0], gray_users))

    def _factor(self, arm: int, user: User) -> float:
        return min(self.case.ratio, user.rate / user.failures) if arm == _GRAY else 1.0

    def _minute(self, state: ReleaseState) -> ReleaseState:
        """Up to the next whole minute, or to the failure that takes gray back."""
        step, end = self.steps[-1], self.minute + 1
        factor = self.clock.factors[int(self.minute)]
        while step.at < len(step.events) and step.events[step.at][0] < end:
            minute, arm, user = step.events[step.at]
            self._pass(step, minute, factor)
            self._fail(step, arm, user)
            if arm == _GRAY and self._is_suspect():
                seen = self._ticked(state, 0.0)
                if seen.phase == "RolledBack":
                    return seen
        self._pass(step, end, factor)
        return self._ticked(state, 60.0)

    def _is_suspect(self) -> bool:
        weights = [Weight(each.share, 0.0) for each in self.steps]
        return may_be_worse(weights, [each.first[_GRAY] for each in self.steps], [each.first[1] for each in self.steps])

    def _pass(self, step: _Step, minute: float, factor: float) -> None:
        """Requests up to a minute, and failures of users who have failed before."""
        time = minute - self.minute
        for arm in (_GRAY, _STABLE):
            step.exposures[arm] += step.alive[arm] * time
            step.first_exposures[arm] += step.fresh[arm] * time
            step.requests[arm] += round(step.rates[arm] * minute) - round(step.rates[arm] * self.minute)
            repeated = step.again[arm] * factor * time
            step.bad[arm] += poisson(self.random.random(), repeated) if repeated else 0
        worse = 1 - 1 / self.case.ratio
        self.extra += worse * step.again[_GRAY] * factor * time
        step.minutes += time
        self.minute = minute

    def _fail(self, step: _Step, arm: int, user: User) -> None:
        step.at += 1
        step.failed[arm] += 1
        step.bad[arm] += 1
        step.alive[arm] -= user.rate
        step.again[arm] += user.failures * self._factor(arm, user)
        if arm == _GRAY:
            self.extra += 1 - 1 / self.case.ratio
        if id(user) not in self.failed:
            self.failed.add(id(user))
            step.first[arm] += 1
            step.fresh[arm] -= user.rate


def flagger_shape(case: Case, seed: int) -> Ended:
    """The same service under a rule in the shape of Flagger."""
    random = Random(seed)
    clock = Clock(case.hours * 60, case.incident)
    # It starts at some time of the hour, as the incidents do.
    first = random.randrange(60)
    bad_looks, extra = 0, 0.0
    for number in range(1, _MOST // _STEP + 1):
        weight = number * _STEP / 100
        factor = clock.factors[(first + number) % 60 + 60] if case.incident > 1 else 1.0
        minute = _drawn(random, case, weight, min(case.error_rate * factor, 1.0))
        extra += minute.gray_bad * (1 - 1 / case.ratio)
        bad_looks += is_bad(minute)
        if bad_looks >= _LOOKS:
            return Ended("rolled back", number, 100 * weight, extra, 0.0)
    return Ended("completed", _MOST // _STEP, 100.0, extra, 0.0)


def _drawn(random: Random, case: Case, weight: float, rate: float) -> Minute:
    gray = poisson(random.random(), case.requests * weight)
    bad = poisson(random.random(), gray * min(rate * case.ratio, 1.0))
    return Minute(gray, min(bad, gray), 0, 0)


def share_of(ended: Sequence[Ended], end: End) -> float:
    """How many releases ended so, in percent."""
    return 100 * sum(each.end == end for each in ended) / len(ended)
