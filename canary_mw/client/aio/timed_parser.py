"""A response parser that enforces the deadline and the idle timeout of an exchange by a timer."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable

from canary_mw.exceptions import UpstreamTimeout
from canary_mw.http.response_parser import ResponseParser

# Timers of uvloop have a resolution of 1 ms and may fire that much early.
TIMER_SLACK = 0.001

# The chunks of a request body, their length, and the seconds from the last one to the response head.
Upload = tuple[AsyncIterator[bytes], int | None, float | None]


class TimedResponseParser(ResponseParser):
    """A `ResponseParser` with time limits. All times are loop times.

    One timer serves all exchanges of a connection. When it fires before the current limit, it is set again, which is
    rarer than setting it for each exchange.

    Args:
        authority: see `ResponseParser`.
        max_head: see `ResponseParser`.
        loop: the event loop of the connection.
    """

    __slots__ = ("_deadline", "_idle_timeout", "_last_activity", "_loop", "_timer", "_timer_at")

    # Defined in the subclass: ends the exchange with an error.
    fail: Callable[[Exception], None]

    def __init__(self, authority: str, max_head: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(authority, max_head)
        self._loop = loop
        # Time of the last byte in either direction; kept up to date only where there is an idle timeout.
        self._last_activity = loop.time()
        self._idle_timeout: float | None = None
        self._deadline = self._timer_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def move_deadline(self, when: float) -> None:
        """Move the deadline of the exchange to loop time `when`, `math.inf` for no limit."""
        self._deadline = when

    def _limit(self, when: float) -> None:
        """Move the deadline to loop time `when`, unless it is earlier."""
        self._deadline = min(self._deadline, when)
        if self._deadline < self._timer_at:
            self._arm(self._deadline)

    def _record_activity(self) -> None:
        """Restart the idle timeout: bytes were sent or received."""
        if self._idle_timeout is not None:
            self._last_activity = self._loop.time()

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
        due = self._deadline
        if self._idle_timeout is not None:
            due = min(due, self._last_activity + self._idle_timeout)
        if self.complete or due == math.inf:
            return
        if self._loop.time() < due - TIMER_SLACK:
            self._arm(due)
            return
        missing = "answer" if self.head is None else "end of the answer"
        limit = "the deadline" if due == self._deadline else f"{self._idle_timeout:g} s without a byte were over"
        self.fail(UpstreamTimeout(f"{self._authority}: no {missing} before {limit}", sent=True))
