"""A response parser that waits for its socket within the deadline and the idle timeout of an exchange."""

import math
import select
import socket
from collections.abc import Callable
from time import monotonic

from canary_mw.client.sync.connect import MAX_TIMEOUT
from canary_mw.exceptions import UpstreamTimeout
from canary_mw.http.response_parser import ResponseParser


class SyncTimedResponseParser(ResponseParser):
    """The counterpart of `client.aio.timed_parser`: without an event loop, limits are checked where a thread waits.

    Args:
        authority: see `ResponseParser`.
        max_head: see `ResponseParser`.
        sock: the socket that is waited for.
    """

    __slots__ = ("_deadline", "_events", "_idle_timeout", "_last_activity", "_poll", "_sock", "_unsent")

    # Defined in the subclass: ends the exchange with an error.
    fail: Callable[[Exception], None]

    def __init__(self, authority: str, max_head: int, sock: socket.socket) -> None:
        super().__init__(authority, max_head)
        self._sock = sock
        self._events = select.POLLIN
        self._poll = select.poll()
        self._poll.register(sock, self._events)
        # Monotonic time of the last byte in either direction; kept up to date only where there is an idle timeout.
        self._last_activity = monotonic()
        self._idle_timeout: float | None = None
        self._deadline = math.inf
        self._unsent: bytes | memoryview = b""

    def move_deadline(self, when: float) -> None:
        """Move the deadline of the exchange to monotonic time `when`, `math.inf` for no limit."""
        self._deadline = when

    def _record_activity(self) -> None:
        """Restart the idle timeout: bytes were sent or received."""
        if self._idle_timeout is not None:
            self._last_activity = monotonic()

    def _wait_ready(self, events: int) -> int:
        """Wait for any of the poll events; 0 when a time limit passed first, which fails the exchange."""
        due = self._deadline
        if self._idle_timeout is not None:
            due = min(due, self._last_activity + self._idle_timeout)
        if due == math.inf:
            return self._poll_events(events, None)
        now = monotonic()
        # When only the idle timeout has passed, received bytes still count: the reader may have been the slow side.
        late = now >= (due if self._unsent else self._deadline)
        ready = 0 if late else self._poll_events(events, max(due - now, 0.0))
        if not ready:
            missing = "answer" if self.head is None else "end of the answer"
            limit = "the deadline" if due == self._deadline else f"{self._idle_timeout:g} s without a byte were over"
            self.fail(UpstreamTimeout(f"{self._authority}: no {missing} before {limit}", sent=True))
        return ready

    def _is_readable(self) -> bool:
        """Whether a read would not wait."""
        return bool(self._poll_events(select.POLLIN, 0))

    def _poll_events(self, events: int, timeout: float | None) -> int:
        if events != self._events:
            self._events = events
            self._poll.modify(self._sock, events)
        found = self._poll.poll(None if timeout is None else min(timeout, MAX_TIMEOUT) * 1000)
        return found[0][1] if found else 0
