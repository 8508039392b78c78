"""When changes take effect: soon, and together; and where they never end, so rarely that requests do not feel it."""

# Seconds without a further change after which changes take effect, and at most: stable and gray of one `kubectl apply`
# arrive as two events.
QUIET, BATCH = 0.03, 0.1
# Seconds of a reload that nobody feels. What it takes beyond holds up requests, and has to leave so many times as much
# to them; but changes wait for no longer than this, in seconds.
_UNFELT, _SHARE, _LONGEST = 0.002, 100, 0.7
# Reloads that may follow each other at once nevertheless.
_BURST = 10.0


class Pace:
    """The waiting times of one source. All times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._spacing = 0.0
        self._credits, self._counted_at, self._last = _BURST, 0.0, 0.0

    def delay(self, now: float, first_change: float) -> float:
        """How long changes wait.

        Args:
            first_change: when the first of those that wait has arrived.
        """
        soon = max(0.0, min(QUIET, first_change + BATCH - now))
        self._count(now)
        return soon if self._credits >= 1 else max(soon, self._last + self._spacing - now)

    def published(self, now: float) -> None:
        """Changes take effect now."""
        self._count(now)
        self._credits, self._last = max(0.0, self._credits - 1), now

    def took(self, seconds: float) -> None:
        """The reload has taken so much time of a processor."""
        self._spacing = min(_LONGEST, _SHARE * max(0.0, seconds - _UNFELT))

    def _count(self, now: float) -> None:
        gained = (now - self._counted_at) / self._spacing if self._spacing else _BURST
        self._credits, self._counted_at = min(_BURST, self._credits + gained), now
