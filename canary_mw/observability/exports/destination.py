"""What waits for one service as its thread sees it: a bounded queue, and when it is tried again after a failure."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from canary_mw.exceptions import UpstreamError
from canary_mw.host import HostLogger

T = TypeVar("T")

# Seconds: for a connection or a message, between attempts to connect at first and at most, and between two lines.
LIMIT = 3.0
FIRST_DELAY, MAX_DELAY = 1.0, 30.0
LOG_INTERVAL = 60.0

# Counts what became of some of what waited.
Count = Callable[[str, int], object]


class Destination(ABC, Generic[T]):
    """Any thread may call `add`, and one thread calls the others.

    Args:
        title: kind and name of the document, for the log.
        most: what waits at most; more is dropped.
        enough: with more than that, what waits does not wait for others.
        interval: seconds that it waits for others, at most.
        count: see `Count`; the result is "sent", or "dropped".

    Attributes:
        waiting: what waits, the oldest first.
    """

    def __init__(
        self, title: str, logger: HostLogger, *, most: int, enough: int, interval: float, count: Count
    ) -> None:
        self.waiting: deque[T] = deque()
        self.title, self._logger = title, logger
        self._most, self._enough, self._interval = most, enough, interval
        self.count = count
        self._since = self._retry_at = self._logged_at = -inf
        self._delay = FIRST_DELAY

    def add(self, item: T) -> bool:
        """Let something wait, or drop it; whether the thread has to look."""
        count = len(self.waiting)
        if count >= self._most:
            self.count("dropped", 1)
            return False
        if not count:
            self._since = monotonic()
        self.waiting.append(item)
        return count in (0, self._enough)

    def due_in(self, now: float) -> float:
        """Seconds until something is to be sent; infinite where nothing waits."""
        if not self.waiting:
            return inf
        at = -inf if len(self.waiting) > self._enough else self._since + self._interval
        return max(at, self._retry_at) - now

    def flush(self, limit: float | None = None) -> None:
        """Send what waits, within some seconds, by default `LIMIT`."""
        try:
            self.send_all(LIMIT if limit is None else limit)
        except UpstreamError as exc:
            self._fail(exc)
        except Exception as exc:
            # What cannot be encoded is no reason to end the thread.
            self._logger.exception("%s: something is lost that cannot be encoded", self.title)
            self._fail(exc)

    def close(self, limit: float) -> None:
        """Send what is left, and end the connection, within some seconds altogether."""
        end = monotonic() + limit
        if self.waiting:
            self.flush(limit)
        if self.waiting:
            self.count("dropped", len(self.waiting))
            self.waiting.clear()
        self.disconnect(max(0.0, end - monotonic()))

    @abstractmethod
    def send_all(self, limit: float) -> None:
        """Send what waits, and count it; call `succeeded` for each part that is sent."""

    @abstractmethod
    def disconnect(self, limit: float) -> None:
        """End the connection, if there is one, within some seconds."""

    def succeeded(self, count: int) -> None:
        """A part of what waited is sent."""
        self._delay = FIRST_DELAY
        self.count("sent", count)

    def _fail(self, error: Exception) -> None:
        now = monotonic()
        self.disconnect(0.0)
        self._retry_at = now + self._delay
        self._delay = min(self._delay * 2, MAX_DELAY)
        if now >= self._logged_at + LOG_INTERVAL:
            self._logged_at = now
            self._logger.warning("%s cannot be told, requests go on without it: %s", self.title, error)
