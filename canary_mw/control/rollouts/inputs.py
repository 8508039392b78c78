"""What a controller is told by others: evidence, hooks and queries."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from typing import Protocol

from canary_mw.control.store import RuleStore
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.queries import QueryStanding
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import GrayRelease

Observe = Callable[[Message, ReleaseState], object]


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
