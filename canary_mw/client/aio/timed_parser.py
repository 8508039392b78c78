"""An answer that must be there by a time, and must not stand still."""

import asyncio
import math
from collections.abc import Callable

from canary_mw.exceptions import UpstreamTimeout
from canary_mw.http.response_parser import ResponseParser

# Timers of uvloop count whole milliseconds and may fire that much early.
TIMER_SLACK = 0.001


class TimedResponseParser(ResponseParser):
    """See `Answer`; one timer serves all exchanges of a connection: when it fires early it is set again, which is rare.

    Args:
        authority: see `Answer`.
        max_head: see `Answer`.
        loop: whose times all times are.
    """

    __slots__ = ("_deadline", "_idle", "_last", "_loop", "_timer", "_timer_at")

    # A subclass's: ends the exchange with an error.
    fail: Callable[[Exception], None]

    def __init__(self, authority: str, max_head: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(authority, max_head)
        self._loop = loop
        # When a byte went last, where that is of interest, and the seconds until the next must.
        self._last = loop.time()
        self._idle: float | None = None
        self._deadline = self._timer_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def move_deadline(self, when: float) -> None:
        """The exchange may last longer than was said: until loop time `when`, `math.inf` for as long as it wants."""
        self._deadline = when

    def _moved(self) -> None:
        """Bytes went in some direction."""
        if self._idle is not None:
            self._last = self._loop.time()

    def _arm(self, when: float) -> None:
        self._disarm()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        due = self._deadline if self._idle is None else min(self._deadline, self._last + self._idle)
        if self.complete or due == math.inf:
            return
        if self._loop.time() < due - TIMER_SLACK:
            self._arm(due)
            return
        missing = "answer" if self.head is None else "end of the answer"
        limit = "the deadline" if due == self._deadline else f"{self._idle:g} s without a byte were over"
        self.fail(UpstreamTimeout(f"{self._authority}: no {missing} before {limit}", sent=True))
