"""Deadlines of many connections by one timer: a request then costs no timer of its own."""

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

# Seconds between two looks at the deadlines.
TICK = 1.0


class Watched(Protocol):
    """What has a deadline."""

    def look(self, now: int) -> None:
        """See to it, at every tick."""


class Clock:
    """Counts ticks, as long as anybody wants to know.

    Attributes:
        now: ticks so far; deadlines are written as sums with it.
    """

    def __init__(self) -> None:
        self.now = 0
        self._watched: set[Watched] = set()
        self._ticking = False

    def enter(self, watched: Watched, loop: asyncio.AbstractEventLoop) -> None:
        """Call its `look` at every tick from now on."""
        self._watched.add(watched)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK, self._tick, loop)

    def leave(self, watched: Watched) -> None:
        """Call it no more; harmless when it has left."""
        self._watched.discard(watched)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticking = bool(self._watched)
        if self._ticking:
            loop.call_later(TICK, self._tick, loop)
        self.now += 1
        for watched in tuple(self._watched):
            watched.look(self.now)


_CLOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, Clock] = WeakKeyDictionary()


def clock_of(loop: asyncio.AbstractEventLoop) -> Clock:
    """The one clock of a loop."""
    clock = _CLOCKS.get(loop)
    if clock is None:
        clock = _CLOCKS[loop] = Clock()
    return clock
