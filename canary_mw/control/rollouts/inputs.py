"""What a controller is told by others: evidence, hooks and queries."""

from collections.abc import Callable, Collection, Sequence
from collections.abc import Mapping as Dict
from typing import NamedTuple, Protocol

from canary_mw.control.store import RuleStore
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.queries import QueryStanding
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import GrayRelease

Observe = Callable[[Message, ReleaseState], object]


class Given(NamedTuple):
    """The evidence of this pod for the others.

    Attributes:
        cursor: names it.
        data: None where it is that of the cursor that was asked about.
    """

    cursor: str
    data: bytes | None


class Evidence(Protocol):
    """Where the evidence comes from."""

    def of(self, document: GrayRelease, state: ReleaseState) -> ReleaseEvidence | None:
        """The evidence of the present attempt; None where it cannot be read."""

    def tick(self, rules: RuleStore) -> None:
        """Do what is due for the figures every second, where the thread of the rules does not."""

    def newest_attempt(self, name: str) -> int:
        """The highest attempt that figures have seen; 0 for none."""

    def exported(self, name: str, attempt: int) -> bytes:
        """The evidence of an attempt, for a restart."""

    def restore(self, data: bytes) -> bool:
        """Take over evidence from before a restart, if this is not done yet; False where it has to be tried again."""

    def thresholds(self, document: GrayRelease, state: ReleaseState) -> Dict[str, float]:
        """Thresholds that the state lacks, and that the first answers and values of all pods give; else nothing."""

    def settle(self, state: ReleaseState) -> None:
        """Judge by the thresholds of a state."""

    def give(self, names: Collection[str], cursor: str) -> Given:
        """What all workers of this pod have seen of these releases, for the other pods.

        Args:
            cursor: of what the one who asks knows.
        """

    def take(self, data: bytes) -> bool:
        """Take over what a pod gave; whether it is this pod. Raises EvidenceRefused."""


class Heard(NamedTuple):
    """How many pods report.

    Attributes:
        reporting: with this one.
        known: the same of all.
        newest: seconds since one was heard last; None where none was.
    """

    reporting: int
    known: int
    newest: float | None


class Peers(Protocol):
    """The other pods; see `rollouts.peers.peers.Peers`."""

    @property
    def pods(self) -> int:
        """How many pods there are, with this one, or were when that was known last."""

    def weighed(self, evidence: ReleaseEvidence) -> ReleaseEvidence:
        """Evidence with what is known of its parts that are missing."""

    def watch(self) -> None:
        """Know where the pods are, from now on."""

    def pull(self) -> None:
        """Ask all pods for their evidence, for as long as this is called again and again."""

    def heard(self) -> Heard | None:
        """How many pods report; None where there are no others."""

    def findings(self) -> Sequence[str]:
        """What is wrong with the other pods, in words."""

    def tell_lowered(self, state: ReleaseState) -> None:
        """Tell all pods that a release was rolled back, or aborted."""

    def stop(self) -> None:
        """Ask nobody any more."""


class Gates(Protocol):
    """What hooks said; see `rollout.engine.Now`."""

    @property
    def open(self) -> Dict[str, bool]:
        """By their type, whether all of the type said yes."""

    @property
    def rollback(self) -> str:
        """Why one demands to roll back, "" for none."""


AskGates = Callable[[GrayRelease, ReleaseState], Gates]
AskQueries = Callable[[GrayRelease, ReleaseState], tuple[QueryStanding, ...]]
