"""Deadlines of many connections by one timer: a request then costs no timer of its own."""

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

# Seconds between two looks at the deadlines.
TICK = 1.0


class TickListener(Protocol):
    """What has a deadline."""

    def on_tick(self, now: int) -> None:
        """See to it, at every tick."""


class TickTimer:
    """Counts ticks, as long as anybody wants to know.

    Attributes:
        now: ticks so far; deadlines are written as sums with it.
    """

    def __init__(self) -> None:
        self.now = 0
        self._watched: set[TickListener] = set()
        self._ticking = False

    def enter(self, watched: TickListener, loop: asyncio.AbstractEventLoop) -> None:
        """Call its `look` at every tick from now on."""
        self._watched.add(watched)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK, self._tick, loop)

    def leave(self, watched: TickListener) -> None:
        """Call it no more; harmless when it has left."""
        self._watched.discard(watched)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticking = bool(self._watched)
        if self._ticking:
            loop.call_later(TICK, self._tick, loop)
        self.now += 1
        for watched in tuple(self._watched):
            watched.on_tick(self.now)


_CLOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, TickTimer] = WeakKeyDictionary()


def timer_of(loop: asyncio.AbstractEventLoop) -> TickTimer:
    """The one clock of a loop."""
    clock = _CLOCKS.get(loop)
    if clock is None:
        clock = _CLOCKS[loop] = TickTimer()
    return clock
