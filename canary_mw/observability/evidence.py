"""What the drawn requests of a release have shown, as counts; the statistics of it are in `rollout`."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import NamedTuple


class EpochKey(NamedTuple):
    """A time of equal weights of a release.

    Attributes:
        attempt: number of the attempt; a new one begins where gray rises from 0, or what is released changes.
        weights: as JSON, the percent of each variant and of stable.
    """

    release: str
    attempt: int
    weights: str


class ArmCounts(NamedTuple):
    """The drawn requests of one variant in an epoch.

    Attributes:
        errors: as in `Row`.
        exposures: requests of keys that had not failed before.
        slow_exposures: for each threshold, requests of keys that had not been slow before.
        first_failures: keys whose first failure came here.
        first_slow: for each threshold, keys whose first slow answer came here.
    """

    requests: int = 0
    errors: int = 0
    exposures: int = 0
    slow_exposures: tuple[int, ...] = ()
    first_failures: int = 0
    first_slow: tuple[int, ...] = ()


class Threshold(NamedTuple):
    """Slow answers are those above it; fixed before the requests that it judges."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a release has shown in its present attempt; see `rollout` for what follows from it.

    Attributes:
        thresholds: none before enough requests were seen.
        epochs: in the order in which they began, each with its variants, "stable" among them.
        level: keys of the samples count `2 ** level` times: the others were left out.
        since: when the attempt began, as far as known.
    """

    attempt: int = 0
    thresholds: tuple[Threshold, ...] = ()
    epochs: Dict[EpochKey, Dict[str, ArmCounts]] = field(default_factory=dict)
    level: int = 0
    since: float = 0.0
