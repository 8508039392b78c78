"""What the pools of a client hold, by origin."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from canary_mw.rules.upstream import Origin


class Held(NamedTuple):
    """What a client holds of an origin.

    Attributes:
        connections: open ones, and those that are being opened.
        waiting: requests that wait for one.
    """

    connections: int = 0
    waiting: int = 0


class HoldingPool(Protocol):
    """A pool, as this module sees it."""

    origin: Origin

    @property
    def held(self) -> Held:
        """What it holds; any thread may ask."""


def held_by(pools: Iterable[HoldingPool]) -> dict[Origin, Held]:
    """What some pools hold. Those of one origin under several limits are added up."""
    found: dict[Origin, Held] = {}
    for pool in pools:
        known, more = found.get(pool.origin, Held()), pool.held
        found[pool.origin] = Held(known.connections + more.connections, known.waiting + more.waiting)
    return found
