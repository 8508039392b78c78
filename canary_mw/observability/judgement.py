"""What the evidence of a release says about its gray variants, by the statistics of `rollout`."""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from canary_mw.observability.evidence import ArmCounts, Evidence
from canary_mw.rollout.findings import ALPHA, ERROR_RATE, LATENCY, Findings, MetricEvidence, find
from canary_mw.rollout.statistics import Epoch, SeenKeys, pair_weight
from canary_mw.rules.release import STABLE

_NOTHING = ArmCounts()


class Pair(NamedTuple):
    """What a gray variant and stable did in an epoch."""

    step: int
    weight: float
    gray: ArmCounts
    stable: ArmCounts


def judge(
    evidence: Evidence, variants: Sequence[str], *, rolls: bool = False, alpha: float = ALPHA, alone_of: int = 1
) -> dict[str, Findings]:
    """Judge each gray variant against stable.

    Args:
        variants: names of the gray variants.
        rolls: each request is drawn by itself, so that requests have to come as the weights say.
        alpha, alone_of: as in `ln_needed`.
    """
    return {
        variant: find(
            metric_evidence(evidence, variant),
            [
                SeenKeys(weight, gray.requests, stable.requests)
                for _, weight, gray, stable in pairs_of(evidence, variant)
            ]
            if rolls
            else (),
            alpha=alpha,
            gray_variants=len(variants),
            alone_of=alone_of,
        )
        for variant in variants
    }


def metric_evidence(evidence: Evidence, variant: str) -> list[MetricEvidence]:
    """The metrics that every release has, of one gray variant."""
    pairs = list(pairs_of(evidence, variant))
    failed = [
        Epoch(each.weight, each.gray.first_failures, each.stable.first_failures, *_exposures(each)) for each in pairs
    ]
    slow = [_slow(pairs, index) for index in range(len(evidence.thresholds))]
    return [MetricEvidence(ERROR_RATE, [failed]), MetricEvidence(LATENCY, slow)]


def pairs_of(evidence: Evidence, variant: str) -> Iterator[Pair]:
    """What a gray variant and stable did in each epoch."""
    for key, arms in evidence.epochs.items():
        percents = json.loads(key.weights)
        weight = pair_weight(percents.get(variant, 0.0), percents.get(STABLE, 0.0))
        yield Pair(key.step, weight, arms.get(variant, _NOTHING), arms.get(STABLE, _NOTHING))


def _slow(pairs: Sequence[Pair], index: int) -> list[Epoch]:
    """The epochs of a threshold."""
    return [
        Epoch(
            each.weight,
            _at(each.gray.first_slow, index),
            _at(each.stable.first_slow, index),
            _at(each.gray.slow_exposures, index),
            _at(each.stable.slow_exposures, index),
        )
        for each in pairs
    ]


def _exposures(pair: Pair) -> tuple[int, int]:
    return pair.gray.exposures, pair.stable.exposures


def _at(values: Sequence[int], index: int) -> int:
    """A count of a threshold; 0 in an epoch that ended before there was one."""
    return values[index] if index < len(values) else 0
