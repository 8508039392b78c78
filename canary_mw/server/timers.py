"""One timer per event loop for the deadlines of all connections: a request then needs no timer of its own."""

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

# Seconds between two ticks.
TICK = 1.0


class TickListener(Protocol):
    """What has a deadline."""

    def on_tick(self, now: int) -> None:
        """Check the deadlines; called at every tick."""


class TickTimer:
    """Counts ticks while it has listeners.

    Attributes:
        now: ticks so far; deadlines are this number plus a number of ticks.
    """

    def __init__(self) -> None:
        self.now = 0
        self._listeners: set[TickListener] = set()
        self._ticking = False

    def add(self, listener: TickListener, loop: asyncio.AbstractEventLoop) -> None:
        """Call its `on_tick` at every tick from now on."""
        self._listeners.add(listener)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK, self._tick, loop)

    def remove(self, listener: TickListener) -> None:
        """Stop calling it; no effect when it is not there."""
        self._listeners.discard(listener)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticking = bool(self._listeners)
        if self._ticking:
            loop.call_later(TICK, self._tick, loop)
        self.now += 1
        for listener in tuple(self._listeners):
            listener.on_tick(self.now)


_TIMERS: WeakKeyDictionary[asyncio.AbstractEventLoop, TickTimer] = WeakKeyDictionary()


def timer_of(loop: asyncio.AbstractEventLoop) -> TickTimer:
    """The timer of a loop; made at first use."""
    timer = _TIMERS.get(loop)
    if timer is None:
        timer = _TIMERS[loop] = TickTimer()
    return timer
