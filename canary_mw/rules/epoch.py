"""Epochs: times of equal weights. A drawn request counts in the epoch of the very weights by which it was drawn."""

import json
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from hashlib import sha256
from typing import NamedTuple

from canary_mw.rules.mapping import Mapping
from canary_mw.rules.plan import Analysis
from canary_mw.rules.release import SLOTS_PER_PERCENT, STABLE, GrayRelease


class Epoch(NamedTuple):
    """What evidence is kept apart by.

    Attributes:
        subject: changes with what is released; evidence of another subject says nothing.
        weights: the percent of each variant and of stable, as JSON.
        attempt: number of the attempt, as the state of a release with steps has it; 0 where whoever counts numbers
            the attempts.
        step: number of the stay at a weight, from 0; 0 without steps.
        analysis: of the step: what is counted for it. None without one.
    """

    subject: str
    weights: str
    attempt: int = 0
    step: int = 0
    analysis: Analysis | None = None


def epoch_of_release(
    document: GrayRelease, slots: Dict[str, int], attempt: int = 0, step: int = 0, stage: int = 0
) -> Epoch:
    """The epoch of a release, given the slots of its variants; attempt and step as in `Epoch`.

    Args:
        stage: index of the stage of the plan, whose analysis counts. A stage may be visited more than once.
    """
    percents = {name: count / SLOTS_PER_PERCENT for name, count in slots.items()}
    analysis = _analysis_of(document, stage) if attempt else None
    return Epoch(subject_of(document), _weights(percents), attempt, step, analysis)


def _analysis_of(document: GrayRelease, stage: int) -> Analysis | None:
    stages = document.plan.stages if document.plan is not None else ()
    return stages[min(stage, len(stages) - 1)].analysis if stages else None


def subject_of(document: GrayRelease) -> str:
    """What a release releases; a hash, the same for the same in all processes."""
    variants = [[each.name, each.mappings] for each in document.variants]
    matched = [document.groups] if document.groups else []
    return _hash([variants, document.stable, document.stable_local, document.hash, document.revision, *matched])


def epoch_of_group(stable: Iterable[Mapping], gray: Iterable[tuple[str, Mapping, float]]) -> Epoch:
    """The epoch of a group without a release, given its gray variants with their names and percents."""
    gray = list(gray)
    subject = [[each.name, each.service.text] for each in (*stable, *(mapping for _, mapping, _ in gray))]
    return Epoch(_hash(subject), _weights({name: percent for name, _, percent in gray}))


def _hash(subject: object) -> str:
    text = json.dumps(subject, default=str)
    return sha256(text.encode(), usedforsecurity=False).hexdigest()[:16]


def _weights(percents: Dict[str, float]) -> str:
    weights = {STABLE: 100.0 - sum(percents.values()), **percents}
    return json.dumps({name: round(percent, 6) for name, percent in weights.items()})
