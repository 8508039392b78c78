"""What is known of releases, as metrics: weights, evidence and verdicts, by the numbers that the pages show."""

import json
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from canary_mw.observability.evidence import Evidence
from canary_mw.observability.figures.buckets import quantile
from canary_mw.observability.figures.values import Figures, History, SeriesKey, Snapshot, window_of
from canary_mw.observability.judgement import judge
from canary_mw.rollout.findings import Findings
from canary_mw.rollout.sentence import STATES, ArmFigures, State, VariantFigures, state_of
from canary_mw.rules.release import STABLE

# The window of the pages that nobody has asked for another: a verdict rests on the whole attempt, but "same" and
# "not enough" are said of the last minutes.
WINDOW = 300
# What draws each request by itself.
_ROLLS = frozenset(("roll", "weight"))
_NOTHING = History()


def release_families(figures: Figures) -> Iterator[Metric]:
    """Weights, evidence and verdict of each release that has drawn requests."""
    weights = GaugeMetricFamily(
        "canary_mw_weight_ratio", "Part of the drawn requests that a variant should get.", labels=("release", "variant")
    )
    evidence = GaugeMetricFamily(
        "canary_mw_release_evidence_log",
        "Evidence that gray is worse, as ln E; of several gray variants that of the worst. Its line is at 4.6.",
        labels=("release", "metric"),
    )
    verdicts = GaugeMetricFamily(
        "canary_mw_verdict",
        "1 for the state of a release, of several gray variants for that of the worst.",
        labels=("release", "state"),
    )
    for name, found in figures.evidence.items():
        percents = weights_of(found)
        for variant, percent in percents.items():
            weights.add_metric((name, variant), percent / 100)
        states = []
        logs: dict[str, float] = {}
        for variant, judged in _judge(figures, name, found, percents).items():
            states.append(_state(figures, name, variant, percents[variant], judged))
            for each in judged.metrics:
                logs[each.metric.name] = max(each.ln_e, logs.get(each.metric.name, each.ln_e))
        for metric, ln_e in logs.items():
            evidence.add_metric((name, metric), ln_e)
        if states:
            worst = min(states, key=STATES.index)
            for state in STATES:
                verdicts.add_metric((name, state), int(state == worst))
    yield from (weights, evidence, verdicts)


def weights_of(evidence: Evidence) -> dict[str, float]:
    """The percents in force: those of the last epoch."""
    last = next(reversed(list(evidence.epochs)), None)
    return {} if last is None else {name: float(percent) for name, percent in json.loads(last.weights).items()}


def _judge(figures: Figures, name: str, evidence: Evidence, percents: dict[str, float]) -> dict[str, Findings]:
    reasons = {key[3] for key in figures.counters if key[:2] == ("assignments", name)}
    gray = [variant for variant in percents if variant != STABLE]
    return judge(evidence, gray, rolls=bool(reasons) and reasons <= _ROLLS)


def _state(figures: Figures, name: str, variant: str, percent: float, findings: Findings) -> State:
    gray, stable = (_arm(figures, name, each) for each in (variant, STABLE))
    return state_of(VariantFigures(gray=gray, stable=stable, findings=findings, percent=percent))


def _arm(figures: Figures, name: str, variant: str) -> ArmFigures:
    history = figures.histories.get(SeriesKey(name, variant), _NOTHING)
    counts: Snapshot = window_of(history, figures.now, WINDOW).counts
    slow, slowest = (quantile(counts.buckets, share) for share in (0.95, 0.99))
    return ArmFigures(requests=counts.requests, errors=counts.errors, p95=slow, p99=slowest)
