"""The plan of a gray release as a value: by which steps its weight grows, and on which evidence.

Percents of requests and users are percents; what is compared with rates, as `alpha` and `margin`, is a share in [0, 1].
Times are seconds.
"""

import json
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Literal, NamedTuple, get_args

from canary_mw.rules.queries.query import Query
from canary_mw.rules.slots import SLOTS_PER_PERCENT

Mode = Literal["act", "advise"]
OnTimeout = Literal["hold", "abort", "advance"]
OnFailure = Literal["rollback", "hold"]
Promote = Literal["auto", "manual"]
MetricKind = Literal["error_rate", "latency", "event", "value"]
HookType = Literal[
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "event",
]
HOOK_TYPES: tuple[HookType, ...] = get_args(HookType)


class Allowance(NamedTuple):
    """What is taken off the times of gray, which is one hop further away."""

    seconds: float = 0.0
    ratio: float = 0.0

    def taken_off(self, seconds: float) -> float:
        """A time of gray, as it is compared with the threshold."""
        return max((seconds - self.seconds) / (1 + self.ratio), 0.0)


NO_ALLOWANCE = Allowance()


class MetricRule(NamedTuple):
    """How one metric of a release is judged.

    Attributes:
        direction: whether more or fewer events, or larger or smaller values, are worse.
        share: part of the budget of the release, relative to the other metrics.
        on_failure: None for that of the plan.
        threshold: a slower request is slow, a larger value is counted; None where quantiles say it, and for others.
        quantiles: in (0, 1), of the first times or values; each gives a threshold.
        margin: share of all requests that a step up may newly hit.
        tolerated: risk ratio that gray may have.
        minimum_failures: keys that must have failed in gray before it is called worse.
        ignore_below: excess of the rate that is called no harm.
    """

    name: str
    kind: MetricKind
    direction: Literal["increase", "decrease"] = "increase"
    share: float = 1.0
    on_failure: OnFailure | None = None
    threshold: float | None = None
    quantiles: tuple[float, ...] = ()
    allow: Allowance = NO_ALLOWANCE
    margin: float = 0.005
    tolerated: float = 1.0
    minimum_failures: int = 5
    ignore_below: float = 0.001


class Analysis(NamedTuple):
    """On which evidence a step up, or a rollback, follows.

    Attributes:
        mode: with "advise" nothing is done, and what would be done is said.
        alpha: the probability of a false rollback over the whole release.
        margin: share of all requests that a step up may newly hit; that of each metric counts.
        minimum_keys: distinct keys that must have been in gray in a step.
        timeout: of one step; `on_timeout` says what then follows.
        queries: what a metrics system is asked besides.
    """

    metrics: tuple[MetricRule, ...]
    mode: Mode = "act"
    alpha: float = 0.01
    margin: float = 0.005
    minimum_keys: int = 20
    timeout: float = 21_600.0
    on_timeout: OnTimeout = "hold"
    queries: tuple[Query, ...] = ()


class Stage(NamedTuple):
    """The time of one `setWeight`, up to the next.

    Attributes:
        weights: percent of each gray variant, `holdback` taken off.
        pause: at least so long.
        until_promoted: a human ends it.
        analysis: None for a stage that ends by its time alone.
        item: the number of its `setWeight` among the written steps, from 1.
    """

    weights: Dict[str, float]
    pause: float = 0.0
    until_promoted: bool = False
    analysis: Analysis | None = None
    item: int = 1


class Hook(NamedTuple):
    """An address that is asked, or told, about a release.

    Attributes:
        name: the type, where none is written.
        metadata: what is sent along.
        muted: a failure of it is not reported as an event.
    """

    type: HookType
    url: str
    timeout: float = 10.0
    name: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    muted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the weight of a release grows.

    Attributes:
        stages: at least one; the last one is at 100 percent less `holdback`.
        items: number of written steps.
        bake: time after the last stage.
        holdback: percent that stays stable to the end, so that there is something to compare with.
        promote: "manual" lets every raise wait for a human.
        shares: of the gray variants in each weight, as written.
    """

    stages: tuple[Stage, ...]
    items: int
    shares: tuple[tuple[str, float], ...]
    bake: float = 0.0
    holdback: float = 0.0
    promote: Promote = "auto"
    on_failure: OnFailure = "rollback"
    hooks: tuple[Hook, ...] = ()

    @property
    def full_weights(self) -> Dict[str, float]:
        """The percents at the end."""
        return self.weights_at(100.0)

    def weights_at(self, percent: float) -> Dict[str, float]:
        """The percent of each gray variant where together they get `percent`, or the less that `holdback` leaves.

        A larger percent takes nothing from any variant.
        """
        return divided(min(percent, 100.0 - self.holdback), self.shares)


def divided(percent: float, shares: tuple[tuple[str, float], ...]) -> Dict[str, float]:
    """A percent divided by shares, in whole slots; what is left by rounding goes to the largest share.

    The sum is the percent: at 100 nobody is left on stable.
    """
    # The decimal numbers that are written, not the floats next to them.
    exact = {name: Fraction(str(share)) for name, share in shares}
    slots, total = round(percent * SLOTS_PER_PERCENT), sum(exact.values())
    whole = {name: int(slots * share / total) for name, share in exact.items()}
    whole[max(exact, key=exact.__getitem__)] += slots - sum(whole.values())
    return {name: each / SLOTS_PER_PERCENT for name, each in whole.items()}


def plan_digest(plan: Plan, up_to_stage: int) -> str:
    """A digest of the stages up to and with number `up_to_stage`, from 0.

    It changes with their weights and pauses. Analysis and hooks may change while a release is under way.
    """
    stages = [[each.weights, each.pause, each.until_promoted] for each in plan.stages[: up_to_stage + 1]]
    text = json.dumps(stages, sort_keys=True)
    return sha256(text.encode(), usedforsecurity=False).hexdigest()[:16]
