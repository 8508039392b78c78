"""What a controller is told by others: evidence, hooks, and where it runs."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Protocol

from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import GrayRelease

# Where Kubernetes tells a container of its API, and where a user says that there is one pod only.
_CLUSTER, SINGLE = "KUBERNETES_SERVICE_HOST", "CANARY_MW_SINGLE"

Observe = Callable[[Message, ReleaseState], object]


class Evidence(Protocol):
    """Where the evidence comes from."""

    def of(self, document: GrayRelease, state: ReleaseState) -> ReleaseEvidence | None:
        """The evidence of the present attempt; None where it cannot be read."""

    def newest_attempt(self, name: str) -> int:
        """The highest attempt that figures have seen; 0 for none."""

    def exported(self, name: str, attempt: int) -> bytes:
        """The evidence of an attempt, for a restart."""

    def restore(self, data: bytes) -> None:
        """Take over evidence from before a restart, if this is not done yet."""


class Gates(Protocol):
    """What hooks said; see `rollout.engine.Now`."""

    @property
    def open(self) -> Dict[str, bool]:
        """By their type, whether all of the type said yes."""

    @property
    def rollback(self) -> str:
        """Why one demands to roll back, "" for none."""


AskGates = Callable[[GrayRelease, ReleaseState], Gates]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where this process runs.

    Attributes:
        in_cluster: a folder may be new because its pod is.
        unshared: other pods may exist, with states of their own.
        stopped: the environment of this process stops all releases.
    """

    in_cluster: bool = False
    unshared: bool = False
    stopped: bool = False


def surroundings(environ: Dict[str, str], *, stopped: bool = False) -> Surroundings:
    """Where a process with this environment runs."""
    in_cluster = bool(environ.get(_CLUSTER))
    single = environ.get(SINGLE, "").strip().lower() in ("1", "true", "yes", "on")
    return Surroundings(in_cluster=in_cluster, unshared=in_cluster and not single, stopped=stopped)
