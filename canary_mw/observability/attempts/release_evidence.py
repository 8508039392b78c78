"""The evidence of a release with a plan, as its engine takes it."""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import NamedTuple

from canary_mw.observability.attempts import register
from canary_mw.observability.attempts.evidence_of import evidence_of
from canary_mw.observability.attempts.measures import measures_of_metric
from canary_mw.observability.evidence import Evidence, MeasureCounts
from canary_mw.observability.figures.files import file_id, folder_lock, retired_contents, worker_files
from canary_mw.observability.figures.layout import records
from canary_mw.observability.figures.retire import merged_ids
from canary_mw.observability.judgement import Pair, pairs_of
from canary_mw.rollout.evidence import ReleaseEvidence, VariantEvidence
from canary_mw.rollout.findings import Metric, MetricEvidence, StepCounts
from canary_mw.rollout.statistics import Arm, Epoch, SeenKeys
from canary_mw.rules.plan import Analysis, MetricRule
from canary_mw.rules.release import GrayRelease

More = Callable[[register.Attempts], Sequence[memoryview]]
_NO_COUNTS = MeasureCounts()


@dataclass(frozen=True, slots=True)
class EvidenceRead:
    """The evidence of all releases, as it was read.

    Attributes:
        whole: False where some worker writes another format: what it has seen is not in it.
    """

    releases: Dict[str, Evidence] = field(default_factory=dict)
    whole: bool = True


def no_more(attempts: register.Attempts) -> Sequence[memoryview]:
    """Where no other pods are."""
    return ()


def read_evidence(folder: int, more: More = no_more) -> EvidenceRead:
    """The evidence of all workers that count in a folder, those that have ended included.

    Args:
        folder: the descriptor of the run folder; it stays the caller's.
        more: gives what other pods have seen in these attempts.
    """
    with folder_lock(folder, exclusive=False):
        files, skipped = worker_files(folder)
        retired = retired_contents(folder)
        attempts = register.read(folder)
    known = merged_ids(retired)
    contents = [*retired, *(each.content for each in files if file_id(each.content) not in known), *more(attempts)]
    return EvidenceRead(evidence_of([list(records(each)) for each in contents], attempts), not skipped)


def evidence_in(contents: Iterable[memoryview], attempts: register.Attempts) -> EvidenceRead:
    """The evidence in files of figures."""
    return EvidenceRead(evidence_of([list(records(each)) for each in contents], attempts))


def release_evidence(read: EvidenceRead, document: GrayRelease, attempt: int, step: int, stage: int) -> ReleaseEvidence:
    """The evidence of one attempt, with the counts of a step.

    It is not readable where another attempt is the newest that the figures know, or where some worker writes another
    format. Without requests it is empty.

    Args:
        step: as in `Epoch`.
        stage: index of the stage of the plan that is in force.
    """
    found = read.releases.get(document.name)
    if found is None or not found.stored or document.plan is None:
        return ReleaseEvidence(attempt=attempt, readable=read.whole)
    if found.attempt != attempt:
        return ReleaseEvidence(attempt=found.attempt, readable=read.whole)
    stages = document.plan.stages
    analysis = stages[min(stage, len(stages) - 1)].analysis
    variants = {each.name: _variant(found, each.name, analysis, step) for each in document.variants}
    return ReleaseEvidence(attempt=attempt, variants=variants, readable=read.whole)


def _variant(evidence: Evidence, variant: str, analysis: Analysis | None, step: int) -> VariantEvidence:
    pairs = list(pairs_of(evidence, variant))
    return VariantEvidence(
        [_metric(rule, pairs, step) for rule in (analysis.metrics if analysis is not None else ())],
        [SeenKeys(each.weight, each.gray.seen, each.stable.seen) for each in pairs],
        evidence.gray_keys.get((step, variant), 0),
    )


def _metric(rule: MetricRule, pairs: Sequence[Pair], step: int) -> MetricEvidence:
    """The evidence of one metric; a measure without a limit yet has shown nothing."""
    found = [[_counted(pair, each.name) for pair in pairs] for each in measures_of_metric(rule)]
    steps = [_in_step([each for each in counted if each.step == step]) for counted in found]
    return MetricEvidence(Metric(name=rule.name), [list(map(_epoch, counted)) for counted in found], steps)


class _Counted(NamedTuple):
    """What one measure says of a gray variant and stable in an epoch."""

    step: int
    weight: float
    gray: MeasureCounts
    stable: MeasureCounts


def _counted(pair: Pair, measure: str) -> _Counted:
    gray, stable = (arm.measures.get(measure, _NO_COUNTS) for arm in (pair.gray, pair.stable))
    return _Counted(pair.step, pair.weight, gray, stable)


def _epoch(counted: _Counted) -> Epoch:
    _, weight, gray, stable = counted
    return Epoch(weight, gray.firsts, stable.firsts, gray.exposures, stable.exposures)


def _in_step(counted: Sequence[_Counted]) -> StepCounts:
    gray, stable = [each.gray for each in counted], [each.stable for each in counted]
    raw = (sum(each.requests for each in gray), sum(each.bad for each in gray))
    return StepCounts(
        _arm(gray), _arm(stable), *raw, sum(each.requests for each in stable), sum(each.bad for each in stable)
    )


def _arm(counts: Sequence[MeasureCounts]) -> Arm:
    return Arm(sum(each.step_firsts for each in counts), sum(each.step_exposures for each in counts))
