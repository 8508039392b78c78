"""What the drawn requests of a release have shown, as counts; the statistics of it are in `rollout`."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import NamedTuple


class EpochKey(NamedTuple):
    """A time of equal weights of a release.

    Attributes:
        attempt: number of the attempt; a new one begins where gray rises from 0, or what is released changes.
        weights: as JSON, the percent of each variant and of stable.
        step: number of the step, from 0; 0 without steps.
    """

    release: str
    attempt: int
    weights: str
    step: int = 0


class MeasureCounts(NamedTuple):
    """What happened to the drawn requests of one variant in an epoch: one thing, such as a failure.

    Where keys are left out, so is the same part of exposures and of requests that are a key of their own.

    Attributes:
        requests: that were looked at.
        bad: to which it happened.
        exposures: requests of keys to which it had not happened before.
        firsts: keys to which it happened here first. Of releases with steps at most 50 a minute of one network of
            clients count, so that nobody's keys alone roll a release back.
        step_exposures, step_firsts: the same within the step, of all networks.
    """

    requests: int = 0
    bad: int = 0
    exposures: int = 0
    firsts: int = 0
    step_exposures: int = 0
    step_firsts: int = 0


class ArmCounts(NamedTuple):
    """The drawn requests of one variant in an epoch.

    Attributes:
        errors: as in `Row`.
        exposures: requests of keys that had not failed before.
        slow_exposures: for each threshold, requests of keys that had not been slow before.
        first_failures: keys whose first failure came here.
        first_slow: for each threshold, keys whose first slow answer came here.
        seen: keys that came here first; of releases with analysis.
        measures: all that is counted, by its name.
    """

    requests: int = 0
    errors: int = 0
    exposures: int = 0
    slow_exposures: tuple[int, ...] = ()
    first_failures: int = 0
    first_slow: tuple[int, ...] = ()
    seen: int = 0
    measures: Dict[str, MeasureCounts] = {}


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
        since: when the attempt began, as far as known.
        stored: whether the state of the release numbers the attempts.
        gray_keys: distinct keys that came to a variant in a step, as far as a step waits for them, by both.
    """

    attempt: int = 0
    thresholds: tuple[Threshold, ...] = ()
    epochs: Dict[EpochKey, Dict[str, ArmCounts]] = field(default_factory=dict)
    since: float = 0.0
    stored: bool = False
    gray_keys: Dict[tuple[int, str], int] = field(default_factory=dict)
