"""How long a client of the API waits after failures."""

import random
from collections.abc import Callable

# Seconds: the first delay, and the longest one.
_BASE, _CAP = 0.25, 30.0
# The longest delay that a server may ask for.
_MAX_RETRY_AFTER = 60.0
# Between two looks for a kind that is not installed.
_REDISCOVER = (30.0, 60.0)
# All clients of a server that was restarted list again.
_SPREAD = 1.0


class Backoff:
    """The delays of one client.

    Args:
        draw: draws a number in [0, 1).
        longest: the longest delay, in seconds, unless the server asks for more.
    """

    def __init__(self, draw: Callable[[], float] = random.random, longest: float = _CAP) -> None:
        self._draw, self._longest = draw, longest
        self._failures = 0

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._failures = 0

    def after_failure(self, retry_after: float = 0.0) -> float:
        """Seconds to wait after one more failure; at least what the server asks for, within limits."""
        delay = min(_BASE * 2.0 ** min(self._failures, 20), self._longest) * (0.5 + 0.5 * self._draw())
        self._failures += 1
        return max(delay, min(retry_after, _MAX_RETRY_AFTER))

    def before_relist(self) -> float:
        """Seconds to wait before everything is listed again."""
        return _SPREAD * self._draw()

    def before_discovery(self) -> float:
        """Seconds to wait before a kind that is not installed is looked for again."""
        low, high = _REDISCOVER
        return low + (high - low) * self._draw()


def retry_after_of(value: str | None) -> float:
    """The seconds of a `retry-after` header, 0 for another value: a date or nonsense."""
    return float(value) if value and value.isascii() and value.isdigit() and len(value) < 10 else 0.0
