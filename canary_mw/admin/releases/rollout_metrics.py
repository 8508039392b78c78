"""The evidence of a release, one row for each metric, threshold and gray variant; and what queries say of it."""

from collections.abc import Iterator
from collections.abc import Mapping as Dict

from canary_mw.admin.models.rollout import RolloutArm, RolloutMetric, RolloutQuery
from canary_mw.rollout.findings import Findings, MetricEvidence, StepCounts
from canary_mw.rollout.queries import QueryStanding, in_words
from canary_mw.rollout.statistics import Arm
from canary_mw.rollout.verdict import Look, step_bound
from canary_mw.rules.plan import Analysis, MetricRule, OnFailure, Plan
from canary_mw.rules.queries.query import Query


def metrics_of(analysis: Analysis | None, look: Look | None) -> list[RolloutMetric]:
    """All rows of a look; none before the first one."""
    if look is None:
        return []
    rules = {each.name: each for each in analysis.metrics} if analysis is not None else {}
    return [row for variant in look.findings for row in _rows(look, variant, rules)]


def queries_of(plan: Plan | None, analysis: Analysis | None, look: Look | None) -> list[RolloutQuery]:
    """The queries of the present step. What they say is known to the process that asks them."""
    if plan is None or analysis is None:
        return []
    known = {each.query: each for each in (look.queries if look is not None else ())}
    return [_query(each, known.get(each), plan.on_failure) for each in analysis.queries]


def _query(query: Query, standing: QueryStanding | None, on_failure: OnFailure) -> RolloutQuery:
    return {
        "name": query.name,
        "condition": query.success or f"not ({query.failure})",
        "said": standing.last.said if standing is not None and standing.last is not None else None,
        "text": in_words(standing) if standing is not None else "not asked by this process now",
        "failures": standing.failures if standing is not None else 0,
        "failure_limit": query.failure_limit,
        "on_failure": query.on_failure or on_failure,
    }


def _rows(look: Look, variant: str, rules: Dict[str, MetricRule]) -> Iterator[RolloutMetric]:
    # Where the next weights were bounded before, no bound is compared with anything.
    found, share = look.findings[variant], None if look.bounded else look.next_weights.get(variant)
    for evidence in look.evidence.get(variant, ()):
        name = evidence.metric.name
        # Without a step nothing was counted in it, and the evidence of the attempt is there all the same.
        for number, counts in enumerate(evidence.steps or (None,)):
            row = _row(look, found, variant, evidence, counts, share)
            rule = rules.get(name)
            known = rule.threshold if rule is not None and rule.kind == "latency" else None
            yield {
                **row,
                "title": _title(name, rule, number),
                "threshold_ms": None if known is None else known * 1000,
            }


def _title(name: str, rule: MetricRule | None, number: int) -> str:
    """A metric with the quantile that its threshold is, where it has one; a value with its threshold."""
    if rule is not None and rule.kind == "value" and rule.threshold is not None:
        return f"{name} {rule.threshold:g}"
    if rule is None or number >= len(rule.quantiles):
        return name
    return f"{name} p{100 * rule.quantiles[number]:g}"


def _row(
    look: Look,
    found: Findings,
    variant: str,
    evidence: MetricEvidence,
    counts: StepCounts | None,
    share: float | None,
) -> RolloutMetric:
    metric = evidence.metric
    bound = None if counts is None else step_bound(counts, metric, share or 0.0, look.beta)
    ln_e = next((each.ln_e for each in found.metrics if each.metric.name == metric.name), None)
    return {
        "variant": variant,
        "name": metric.name,
        "title": metric.name,
        "threshold_ms": None,
        "gray": None if counts is None else _arm(counts.gray, counts.gray_bad, counts.gray_requests),
        "stable": None if counts is None else _arm(counts.stable, counts.stable_bad, counts.stable_requests),
        "ratio": None if counts is None else _ratio(counts),
        "ln_e": ln_e,
        "ln_needed": found.ln_needed,
        # With few requests the bound is above what a rate can be.
        "excess_upper": min(bound.excess_upper, 1.0) if bound and bound.excess_upper is not None else None,
        "excess_allowed": metric.margin / share if share else None,
        "keeps": bound is not None and bound.keeps,
        "needed": bound.needed if bound else None,
        "on_failure": metric.on_failure,
    }


def _arm(arm: Arm, bad: int, requests: int) -> RolloutArm:
    return {"failed": arm.failures, "exposures": arm.exposures, "bad": bad, "requests": requests}


def _ratio(counts: StepCounts) -> float | None:
    gray, stable = counts.gray, counts.stable
    if not gray.exposures or not stable.exposures or not stable.failures:
        return None
    return (gray.failures / gray.exposures) / (stable.failures / stable.exposures)
