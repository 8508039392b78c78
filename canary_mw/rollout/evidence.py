"""The evidence of a release as the engine takes it."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from canary_mw.rollout.findings import MetricEvidence
from canary_mw.rollout.statistics import SeenKeys


class VariantEvidence(NamedTuple):
    """What one gray variant has shown beside stable.

    Attributes:
        metrics: found by their names. How they are judged follows from the document, not from their `metric`; a metric
            of the document that is missing here has shown nothing.
        seen: keys by the epoch in which they were first seen.
        gray_keys: distinct keys that came to it in this step.
    """

    metrics: Sequence[MetricEvidence] = ()
    seen: Sequence[SeenKeys] = ()
    gray_keys: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEvidence:
    """What a release has shown in one attempt.

    Attributes:
        attempt: evidence of another attempt than the present one is dropped.
        variants: by the name of the gray variant.
        readable: False where it was lost, or cannot be read: that is no proof of anything.
        complete: False where some pod has not said for a moment what it has seen: nothing is raised meanwhile.
    """

    attempt: int = 0
    variants: Dict[str, VariantEvidence] = field(default_factory=dict)
    readable: bool = True
    complete: bool = True
