"""A release with steps on a fake clock: the engine, a population with sticky keys, and what its requests show."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from canary_mw.http.messages import RequestHead
from canary_mw.rollout.commands import Command, CommandName, Who, command
from canary_mw.rollout.engine import Now, tick
from canary_mw.rollout.evidence import ReleaseEvidence, VariantEvidence
from canary_mw.rollout.findings import Metric, MetricEvidence, StepCounts
from canary_mw.rollout.outcome import Message, Outcome
from canary_mw.rollout.state import ReleaseState, from_json, to_json
from canary_mw.rollout.statistics import Arm, Epoch, SeenKeys, pair_weight
from canary_mw.routing.assignment import CompiledRelease
from canary_mw.routing.person import NOBODY
from canary_mw.routing.releases.override import Override
from canary_mw.rules.plan import Analysis, MetricRule, Plan, Stage
from canary_mw.rules.release import Choice, GrayRelease, HashFunction, KeyExpression, ReleaseVariant

ERRORS = MetricRule("error_rate", "error_rate")
LATENCY = MetricRule("latency", "latency", margin=0.02)
ANALYSIS = Analysis((ERRORS, LATENCY), timeout=3600.0)
GRAY = "gray"


def a_release(
    *percents: float,
    pause: float = 60.0,
    analysis: Analysis | None = ANALYSIS,
    holdback: float = 0.0,
    variants: tuple[str, ...] = (GRAY,),
    **plan: Any,
) -> GrayRelease:
    """A release with steps to these percents, and then to all less `holdback`; pauses in seconds."""
    full = 100.0 - holdback
    steps = [*(each for each in percents if each < full), full]
    stages = tuple(
        Stage(
            {name: percent / len(variants) for name in variants},
            pause=pause if percent < full else 0.0,
            analysis=analysis,
            item=item,
        )
        for item, percent in enumerate(steps, 1)
    )
    return GrayRelease(
        name="release",
        variants=tuple(ReleaseVariant(name=name, mappings=(name,), slots=0) for name in variants),
        hash=HashFunction("sha256", "salt"),
        lane="release",
        sticky=(KeyExpression("header", "x-user"),),
        choice=Choice(header=b"x-choose"),
        revision="1",
        plan=Plan(
            stages=stages,
            items=len(stages),
            shares=tuple((name, 1.0) for name in variants),
            holdback=holdback,
            **plan,
        ),
    )


def plan_of(document: GrayRelease) -> Plan:
    assert document.plan is not None
    return document.plan


def with_plan(document: GrayRelease, **changes: Any) -> GrayRelease:
    """The release with another plan."""
    return replace(document, plan=replace(plan_of(document), **changes))


def with_stage(document: GrayRelease, step: int, **changes: Any) -> GrayRelease:
    """The release with another stage."""
    stages = list(plan_of(document).stages)
    stages[step] = stages[step]._replace(**changes)
    return with_plan(document, stages=tuple(stages))


CLEAN = Arm(0, 5000)


def shown(
    gray: Arm = CLEAN, stable: Arm = CLEAN, *, keys: int = 50, attempt: int = 1, name: str = "error_rate"
) -> ReleaseEvidence:
    """Evidence of one metric, of a step that is the whole attempt."""
    step = StepCounts(gray, stable, gray.exposures, gray.failures, stable.exposures, stable.failures)
    epoch = Epoch(0.25, gray.failures, stable.failures, gray.exposures, stable.exposures)
    metric = MetricEvidence(Metric(name=name), [[epoch]], [step])
    return ReleaseEvidence(attempt=attempt, variants={"gray": VariantEvidence([metric], (), keys)})


BAD = shown(Arm(60, 2000), Arm(10, 6000))
NOTHING = ReleaseEvidence(attempt=1)


@dataclass
class _Arm:
    requests: int = 0
    bad: int = 0
    exposures: int = 0
    failures: int = 0
    step_exposures: int = 0
    step_failures: int = 0


@dataclass
class Figures:
    """What requests showed, by epoch: counted as workers count, of drawn requests alone."""

    attempt: int = 0
    weights: list[dict[str, float]] = field(default_factory=list)
    arms: dict[tuple[str, int, str], _Arm] = field(default_factory=lambda: defaultdict(_Arm))
    failed: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    failed_in_step: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    seen: dict[tuple[int, str], int] = field(default_factory=lambda: defaultdict(int))
    keys: set[int] = field(default_factory=set)
    keys_of_step: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def begin_step(self, weights: dict[str, float]) -> None:
        self.weights.append(weights)
        self.failed_in_step.clear()
        self.keys_of_step.clear()

    def count(self, digest: int, variant: str, happened: dict[str, bool]) -> None:
        epoch = len(self.weights) - 1
        if digest not in self.keys:
            self.keys.add(digest)
            self.seen[epoch, variant] += 1
        self.keys_of_step[variant].add(digest)
        for metric, bad in happened.items():
            arm = self.arms[metric, epoch, variant]
            arm.requests += 1
            arm.bad += bad
            arm.exposures += digest not in self.failed[metric]
            arm.step_exposures += digest not in self.failed_in_step[metric]
            if bad:
                arm.failures += digest not in self.failed[metric]
                arm.step_failures += digest not in self.failed_in_step[metric]
                self.failed[metric].add(digest)
                self.failed_in_step[metric].add(digest)

    def evidence(self) -> ReleaseEvidence:
        variants = self.weights[0] if self.weights else {}
        return ReleaseEvidence(attempt=self.attempt, variants={name: self._of_variant(name) for name in variants})

    def _of_variant(self, name: str) -> VariantEvidence:
        metrics = [self._of_metric(metric, name) for metric in ("error_rate", "latency")]
        seen = [
            SeenKeys(self._pair(epoch, name), self.seen[epoch, name], self.seen[epoch, "stable"])
            for epoch in range(len(self.weights))
        ]
        return VariantEvidence(metrics, seen, len(self.keys_of_step[name]))

    def _of_metric(self, metric: str, name: str) -> MetricEvidence:
        epochs = []
        for epoch in range(len(self.weights)):
            gray, stable = self.arms[metric, epoch, name], self.arms[metric, epoch, "stable"]
            counts = gray.failures, stable.failures, gray.exposures, stable.exposures
            epochs.append(Epoch(self._pair(epoch, name), *counts))
        last = len(self.weights) - 1
        gray, stable = self.arms[metric, last, name], self.arms[metric, last, "stable"]
        step = StepCounts(
            Arm(gray.step_failures, gray.step_exposures),
            Arm(stable.step_failures, stable.step_exposures),
            *(gray.requests, gray.bad, stable.requests, stable.bad),
        )
        return MetricEvidence(Metric(name=metric), [epochs], [step])

    def _pair(self, epoch: int, name: str) -> float:
        weights = self.weights[epoch]
        return pair_weight(weights[name], 100.0 - sum(weights.values()))


# What a request shows, by its variant: the metrics for which it is bad.
Behaviour = Callable[[str, Random], dict[str, bool]]


def rates(gray: float = 0.0, stable: float = 0.0, *, metric: str = "error_rate") -> Behaviour:
    """Requests that are bad by chance."""

    def happened(variant: str, random: Random) -> dict[str, bool]:
        bad = random.random() < (stable if variant == "stable" else gray)
        return {each: each == metric and bad for each in ("error_rate", "latency")}

    return happened


class Simulation:
    """A release, its controller, and its users.

    Attributes:
        document: may be changed at any time.
        messages: all that was said.
        passed: seconds.
    """

    def __init__(self, document: GrayRelease, *, keys: int = 2000, seed: int = 1) -> None:
        self.document: GrayRelease | None = document
        self.state: ReleaseState | None = None
        self.messages: list[Message] = []
        self.figures = Figures()
        self.passed = 0.0
        self.last = Outcome()
        self.now = Now(controller=True)
        self._random = Random(seed)
        self._keys = [b"user-%d" % number for number in range(keys)]
        self._visit = (0, 0)
        self.run(0)

    @property
    def phase(self) -> str:
        return "" if self.state is None else self.state.phase

    @property
    def weight(self) -> float:
        return 0.0 if self.last.weights is None else sum(self.last.weights.values())

    @property
    def phases(self) -> list[str]:
        return [each.after for each in self.messages if each.kind == "transition"]

    def run(self, seconds: float, rate: int = 0, behaviour: Behaviour | None = None, *, every: float = 1.0) -> None:
        """Let time pass, a tick at a time, with `rate` requests for each; no seconds are one tick without time."""
        for _ in range(max(int(seconds / every), 1)):
            for _ in range(rate):
                self.request(self._random.choice(self._keys), behaviour or rates())
            elapsed = min(seconds, every)
            self.passed += elapsed
            evidence = self.figures.evidence()
            self._took(tick(self.document, self.state, evidence, replace(self.now, elapsed=elapsed, wall=self.passed)))

    def run_until(
        self, phase: str, most: float, rate: int = 0, behaviour: Behaviour | None = None, *, every: float = 1.0
    ) -> float:
        """Let time pass up to a phase; returns the seconds that it took."""
        begun = self.passed
        while self.phase != phase:
            assert self.passed - begun < most, f"{self.phase} at {self.weight}: {self.last.verdict}"
            self.run(every, rate, behaviour, every=every)
        return self.passed - begun

    def tell(self, name: CommandName, *, weight: float | None = None, full: bool = False) -> Outcome:
        assert self.document is not None
        wanted = Command(name=name, weight=weight, full=full)
        self._took(command(self.document, self.state, wanted, Who("somebody", "192.0.2.7", self.passed)))
        return self.last

    def restart(self) -> None:
        """Another process takes over by what is stored."""
        assert self.state is not None
        self.state = from_json(to_json(self.state))

    def request(self, key: bytes, behaviour: Behaviour, *, chosen: bytes | None = None) -> str:
        """Send a request; returns the variant that it gets."""
        headers = [(b"x-user", key), *([] if chosen is None else [(b"x-choose", chosen)])]
        assigned = self._release.assign(RequestHead("GET", b"/", headers), NOBODY, self._random.random() * 100)
        variant = assigned.variant or "stable"
        if assigned.reason == "sticky" and assigned.digest is not None and 0 < self.weight < 100:
            self.figures.count(assigned.digest, variant, behaviour(variant, self._random))
        return variant

    def _took(self, outcome: Outcome) -> None:
        self.last, self.state = outcome, outcome.state
        self.messages += outcome.messages
        state = outcome.state
        if self.document is None:
            return
        if state is not None and state.attempt != self.figures.attempt:
            self.figures = Figures(attempt=state.attempt)
        weights = dict(outcome.weights or {})
        override = Override(weights=weights, off=outcome.off, attempt=state.attempt if state is not None else 0)
        visit = (state.attempt, state.visit) if state is not None else (0, 0)
        if visit != self._visit or not self.figures.weights:
            self.figures.begin_step(weights)
        if override != getattr(self, "_override", None):
            self._override = override
            self._release = CompiledRelease(self.document, override)
        self._visit = visit
