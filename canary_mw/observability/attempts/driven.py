"""Releases with steps, as a middleware tells of them."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.verdict import Look


class ShownStanding(Protocol):
    """How a release stands."""

    @property
    def name(self) -> str:
        """Of the release."""

    @property
    def state(self) -> ReleaseState | None:
        """None where nobody has ever told it anything."""

    @property
    def look(self) -> Look | None:
        """The last one at the evidence."""


class Driven(NamedTuple):
    """The releases that a process drives, or watches.

    Attributes:
        controlled: whether some process of this host raises them.
    """

    standings: Iterable[ShownStanding] = ()
    controlled: bool | None = None


NOTHING = Driven()
