"""How the parts of a middleware tell its figures of events."""

from collections.abc import Sequence
from typing import Protocol

from canary_mw.routing.assignment import Assigned


class Tally(Protocol):
    """Counts an event by its name and labels."""

    def __call__(self, *key: str, count: int = 1) -> object: ...


def no_tally(*key: str, count: int = 1) -> None:
    """Nobody counts."""


class CountsEvents(Protocol):
    """Counts an event that an app has recorded, for the evidence of its release; see `Tallies.record`."""

    def __call__(self, assigned: Assigned, name: str, client: str | None, thousandths: int) -> object: ...


class Tallies:
    """Tells several counters. It refers to no middleware, so that what keeps it keeps none of them."""

    def __init__(self, tallies: Sequence[Tally], events: Sequence[CountsEvents] = ()) -> None:
        self._tallies = tuple(tallies)
        self._events = tuple(events)

    def __call__(self, *key: str, count: int = 1) -> None:
        """Count an event, or several."""
        for tally in self._tallies:
            tally(*key, count=count)

    def add(self, tally: Tally, count_event: CountsEvents) -> None:
        """Tell one more counter from now on."""
        self._tallies = (*self._tallies, tally)
        self._events = (*self._events, count_event)

    def record(self, assigned: Assigned, name: str, client: str | None, thousandths: int) -> None:
        """Count an event of a request whose variant was drawn.

        Args:
            client: its address.
            thousandths: of the value.
        """
        for count_event in self._events:
            count_event(assigned, name, client, thousandths)
