"""How the parts of a middleware tell its figures of events."""

from collections.abc import Sequence
from typing import Protocol


class Tally(Protocol):
    """Counts an event by its name and labels."""

    def __call__(self, *key: str, count: int = 1) -> object: ...


def no_tally(*key: str, count: int = 1) -> None:
    """Nobody counts."""


class Tallies:
    """Tells several counters. It refers to no middleware, so that what keeps it keeps none of them."""

    def __init__(self, tallies: Sequence[Tally]) -> None:
        self._tallies = tuple(tallies)

    def __call__(self, *key: str, count: int = 1) -> None:
        """Count an event, or several."""
        for tally in self._tallies:
            tally(*key, count=count)
