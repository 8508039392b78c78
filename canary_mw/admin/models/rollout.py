"""How far a release is that raises its own weight: phase, steps, evidence, what comes next, and what happened."""

from typing import Literal, TypedDict

from canary_mw.rollout.commands import CommandName as CommandName
from canary_mw.rollout.state import Phase as Phase
from canary_mw.rollout.state import Status
from canary_mw.rollout.verdict import VerdictKind


class RolloutStep(TypedDict):
    """A step of the plan: a weight, and what has to be before the next one.

    Attributes:
        item: number of its `setWeight` among the written steps, from 1.
        weight: percent of all gray variants together.
        weights: percent by gray variant.
        pause_seconds: that it takes at least.
        until_promoted: whether it waits for `promote` or `resume`.
        analysed: whether the next step needs evidence.
        state: whether the release has been there, is there, or comes there.
    """

    item: int
    weight: float
    weights: dict[str, float]
    pause_seconds: float
    until_promoted: bool
    analysed: bool
    state: Literal["done", "current", "ahead"]


class RolloutArm(TypedDict):
    """What a variant counts for a metric, in the present step.

    Attributes:
        failed: keys that failed, were slow, or brought the event or value, for the first time.
        exposures: requests of keys that had not.
        bad: requests that did.
        requests: all drawn requests.
    """

    failed: int
    exposures: int
    bad: int
    requests: int


class RolloutMetric(TypedDict):
    """The evidence of one metric, at one threshold, about one gray variant.

    Attributes:
        name: as in the document, for example "error_rate".
        title: the same with its quantile, for example "latency p95"; of one metric no two rows have the same.
        threshold_ms: above it a request is slow, where the document says it; null for others.
        gray: null while nothing was counted.
        ratio: of the rates of first failures, gray by stable; null where stable has none.
        ln_e: logarithm of the evidence of the whole attempt that gray is worse; the release is rolled back at
            `ln_needed`.
        excess_upper: how much more often gray fails at most, 0 to 1; null while a variant has no requests.
        excess_allowed: up to where it may be for the next step; null where there is no next step.
        keeps: whether the metric allows the next step.
        needed: requests of gray that are still needed at the present rates; null where more do not help.
        on_failure: what follows when gray is worse.
    """

    variant: str
    name: str
    title: str
    threshold_ms: float | None
    gray: RolloutArm | None
    stable: RolloutArm | None
    ratio: float | None
    ln_e: float | None
    ln_needed: float | None
    excess_upper: float | None
    excess_allowed: float | None
    keeps: bool
    needed: int | None
    on_failure: Literal["rollback", "hold"]


class RolloutQuery(TypedDict):
    """How a query to a metrics system stands in the present step.

    Attributes:
        condition: that it has to fulfil, as written.
        said: of the last answer; null before it, and in a process that does not raise, which asks nothing.
        text: the same in words, with the values.
        failures: in this step; above `failure_limit` the release is rolled back, or held.
    """

    name: str
    condition: str
    said: Literal["successful", "failed", "inconclusive", "unanswered"] | None
    text: str
    failures: int
    failure_limit: int
    on_failure: Literal["rollback", "hold"]


class EvidenceOverTime(TypedDict):
    """How the evidence of one metric grew, at one threshold, about one gray variant.

    Attributes:
        title: as that of the metric.
        ln_needed: where the release is rolled back.
        at: when it was looked at; at least one time.
        ln_e: what it was then.
    """

    variant: str
    title: str
    ln_needed: float
    at: list[str]
    ln_e: list[float]


class RolloutNext(TypedDict):
    """What follows from the last look.

    Attributes:
        verdict: "aborted", "roll_back", "hold", "step_up" or "wait"; null before the first look.
        text: the reason in words.
        weight: percent of gray after the next step; null where there is none.
        needed: requests of gray that are still needed at the present rates; null where that is not the reason.
    """

    verdict: VerdictKind | None
    text: str
    weight: float | None
    needed: int | None


class RolloutChange(TypedDict):
    """Something that happened to a release.

    Attributes:
        before: the phase before; empty for the first entry.
        after: the phase after.
        item: number of the `setWeight` that is in force, 0 for none.
        who: who gave the command; empty where nobody did.
        address: of the client of the admin port; empty where there was none.
    """

    at: str
    before: str
    after: str
    item: int
    weights: dict[str, float]
    reason: str
    who: str
    address: str


class PodsReporting(TypedDict):
    """How many pods say what they have seen.

    Attributes:
        reporting: those that were heard in the last 10 seconds, with this one.
        known: all pods.
        newest_seconds: since one was heard last; null where none was.
    """

    reporting: int
    known: int
    newest_seconds: float | None


class RolloutController(TypedDict):
    """The one process that may raise.

    Attributes:
        name: who it is; empty while it is not known.
        here: whether it is the process that answers.
        pods: what it hears of the pods, where it is of this pod; else null.
    """

    name: str
    here: bool
    pods: PodsReporting | None


class Rollout(TypedDict):
    """How far a release is.

    Attributes:
        phase: "Manual" for a release without steps.
        status: the same in the words of Argo Rollouts.
        version: the number for `If-Match`; it moves with every change of the state.
        attempt: number of this attempt, from 1: `retry` and a new revision begin the next one.
        revision: what is released, as the document says it.
        item: number of the `setWeight` in force among the written steps, from 1; 0 before the first one.
        items: number of written steps.
        weight: percent of all gray variants together, in force by the state.
        weights: percent by gray variant.
        elapsed_seconds: in this step, as the controller has counted it.
        pause_seconds: that this step takes at least.
        baked_seconds: in Baking.
        bake_seconds: that it takes.
        holdback: percent that stays on stable in the end.
        promote: "manual" where every raise waits for `promote`.
        mode: "advise" where the evidence changes nothing by itself; null without analysis.
        reason: why it is in this phase, in words.
        held_by: what holds it; empty where nothing does.
        since: when this phase began.
        stopped: everybody gets stable, by the stop of all releases.
        findings: what keeps the state from being read, written or raised, in words.
        commands: the commands that would not be refused now.
        history: the newest first.
    """

    phase: Phase
    status: Status
    version: int
    attempt: int
    revision: str | None
    item: int
    items: int
    weight: float
    weights: dict[str, float]
    elapsed_seconds: float
    pause_seconds: float
    baked_seconds: float
    bake_seconds: float
    holdback: float
    promote: Literal["auto", "manual"]
    mode: Literal["act", "advise"] | None
    reason: str
    held_by: str
    since: str | None
    controller: RolloutController
    steps: list[RolloutStep]
    metrics: list[RolloutMetric]
    queries: list[RolloutQuery]
    next: RolloutNext
    stopped: bool
    findings: list[str]
    commands: list[CommandName]
    history: list[RolloutChange]
