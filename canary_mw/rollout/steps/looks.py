"""What the verdict is made of: the evidence under the rules of the document, and what else the next step waits for."""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dict
from typing import NamedTuple

from canary_mw.rollout.evidence import ReleaseEvidence, VariantEvidence
from canary_mw.rollout.findings import Findings, Metric, MetricEvidence, find
from canary_mw.rollout.formatting import percents, span
from canary_mw.rollout.queries import QueryStanding, failure_of, objection_of, unanswered
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.steps.targets import Target, begun, last_step, next_target, present_stage, reached
from canary_mw.rollout.verdict import Look, step_bound
from canary_mw.rules.plan import Analysis, HookType, MetricRule, Plan, divided
from canary_mw.rules.queries.query import Query

_NOTHING = VariantEvidence()
_START: tuple[HookType, ...] = ("confirm-rollout", "pre-rollout")
_RAISE: tuple[HookType, ...] = ("rollout", "confirm-traffic-increase")
_LAST: tuple[HookType, ...] = ("confirm-promotion",)


class Outside(NamedTuple):
    """What others say at a look.

    Attributes:
        queries: how those that were asked stand.
        alone_of: number of processes that judge on their own.
    """

    queries: Sequence[QueryStanding] = ()
    alone_of: int = 1


def look(plan: Plan, state: ReleaseState, evidence: ReleaseEvidence, target: Target | None, outside: Outside) -> Look:
    """What is known about a release and its next step."""
    analysis = present_stage(plan, state).analysis
    variants = _variants(plan, state, evidence) if analysis is not None else {}
    judged = {name: _judged(plan, analysis, each) for name, each in variants.items()} if analysis is not None else {}
    raised = target is not None and target.raises(state)
    return Look(
        findings={
            name: _found(judged[name], variants[name], alpha_of(state, analysis), len(variants), outside.alone_of)
            for name in judged
        },
        evidence=judged,
        gray_keys={name: each.gray_keys for name, each in variants.items()},
        next_weights={} if target is None else _hit(plan, target),
        latched=state.latched,
        external_failure=failure_of(outside.queries, plan.on_failure),
        objection=objection_of(outside.queries, plan.on_failure),
        unanswered=unanswered(queries_asked(plan, state), outside.queries),
        queries=outside.queries,
        gates=tuple(_time_left(plan, state)),
        # From weight 0 there is nothing that gray could have shown.
        analysed=analysis is not None and analysis.mode == "act" and raised and begun(state),
        bounded=state.baking,
        minimum_keys=analysis.minimum_keys if analysis is not None else 0,
    )


def _hit(plan: Plan, target: Target) -> Dict[str, float]:
    """The shares for which a step has to be safe: that to the last stage for all users, whom the bake ends with."""
    weights = divided(100.0, plan.shares) if target.step == last_step(plan) else target.weights
    return {name: percent / 100 for name, percent in weights.items()}


def alpha_of(state: ReleaseState, analysis: Analysis | None) -> float:
    """The probability of a false rollback; within an attempt it may only get smaller."""
    return state.alpha if analysis is None else min(state.alpha, analysis.alpha)


def _variants(plan: Plan, state: ReleaseState, evidence: ReleaseEvidence) -> Dict[str, VariantEvidence]:
    """The evidence of each gray variant; that of another attempt proves nothing of this one."""
    of_attempt = evidence.variants if evidence.attempt == state.attempt else {}
    return {name: of_attempt.get(name, _NOTHING) for name, _ in plan.shares}


def _judged(plan: Plan, analysis: Analysis, evidence: VariantEvidence) -> tuple[MetricEvidence, ...]:
    shown = {each.metric.name: each for each in evidence.metrics}
    metrics = (metric_of(rule, plan) for rule in analysis.metrics)
    return tuple(
        shown[each.name]._replace(metric=each) if each.name in shown else MetricEvidence(each, ()) for each in metrics
    )


def metric_of(rule: MetricRule, plan: Plan) -> Metric:
    """How a metric is judged, by its rule and its plan."""
    return Metric(
        name=rule.name,
        kind=rule.kind,
        direction=rule.direction,
        tolerated=rule.tolerated,
        share=rule.share,
        minimum_failures=rule.minimum_failures,
        ignore_below=rule.ignore_below,
        margin=rule.margin,
        on_failure=rule.on_failure or plan.on_failure,
    )


def _found(
    judged: tuple[MetricEvidence, ...], shown: VariantEvidence, alpha: float, variants: int, alone_of: int
) -> Findings:
    return find(judged, shown.seen, alpha=alpha, gray_variants=variants, alone_of=alone_of)


def _time_left(plan: Plan, state: ReleaseState) -> Iterator[str]:
    if state.baking:
        if state.baked < plan.bake:
            yield f"the bake has {span(plan.bake - state.baked)} to go"
    elif reached(plan, state) and state.elapsed < present_stage(plan, state).pause:
        yield f"the pause has {span(present_stage(plan, state).pause - state.elapsed)} to go"


def queries_asked(plan: Plan, state: ReleaseState) -> tuple[Query, ...]:
    """The queries of the present step, from the first weight up to the end."""
    analysis = present_stage(plan, state).analysis
    if analysis is None or state.latched or state.phase == "Completed" or not begun(state):
        return ()
    return analysis.queries


def hooks_asked(plan: Plan, state: ReleaseState) -> tuple[HookType, ...]:
    """The types of hooks that are asked now: `rollback` in every state that is not latched, others before a raise."""
    target = next_target(plan, state)
    if state.latched or target is None:
        return ()
    gates = _gates(plan, state, target)
    written = {each.type for each in plan.hooks}
    return tuple(each for each in (*gates, "rollback") if each in written)


def _gates(plan: Plan, state: ReleaseState, target: Target) -> tuple[HookType, ...]:
    if not target.raises(state) or state.baking:
        return ()
    last = _LAST if target.step == last_step(plan) else ()
    return (*(_RAISE if begun(state) else _START), *last)


def hooks_missing(plan: Plan, state: ReleaseState, answers: Dict[str, bool]) -> tuple[HookType, ...]:
    """The types of hooks that keep from a raise: those that have not said yes, and `rollback` where it says nothing."""
    target = next_target(plan, state)
    if target is None or not target.raises(state):
        return ()
    return tuple(each for each in hooks_asked(plan, state) if not answers.get(each))


def admission(seen: Look) -> str:
    """What a step without proof could miss, with the bound of this moment; "" where nothing bounds it."""
    shown = [(metric, steps) for evidence in seen.evidence.values() for metric, _, steps in evidence]
    bounds = [step_bound(counts, metric, 1.0).excess_upper for metric, steps in shown for counts in steps]
    known = [each for each in bounds if each is not None]
    if not known or len(known) < len(bounds) or not all(steps for _, steps in shown):
        return ""
    return f"an excess up to {percents(min(max(known), 1.0))[0]} would not have been seen"
