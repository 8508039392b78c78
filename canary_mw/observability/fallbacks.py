"""Counters of gray variants that fail, and of what their safety nets do about it."""

from typing import NamedTuple

from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.locks import new_lock
from canary_mw.observability.figures.tallies import Tally, no_tally


class GrayFailure(NamedTuple):
    """Labels of a failure.

    Attributes:
        kind: connect, timeout, reset, overload, or the status.
    """

    release: str
    variant: str
    kind: str


class FallbackCounters:
    """Failures of gray, and fallbacks by what became of them; exact under threads.

    Args:
        tally: is told of each.
    """

    def __init__(self, tally: Tally = no_tally) -> None:
        self._tally = tally
        self._lock = new_lock()
        self._failures: dict[GrayFailure, int] = {}
        self._fallbacks: dict[tuple[GrayFailure, str], int] = {}

    def count(self, net: SafetyNet) -> None:
        """Count a request whose gray variant has failed, as what it was assigned to."""
        failure = GrayFailure(net.release, net.variant, net.kind or "")
        with self._lock:
            self._failures[failure] = self._failures.get(failure, 0) + 1
            if net.result is not None:
                key = failure, net.result
                self._fallbacks[key] = self._fallbacks.get(key, 0) + 1
        self._tally("gray_failures", *failure)
        if net.result is not None:
            self._tally("fallbacks", *failure, net.result)

    def failures(self) -> dict[GrayFailure, int]:
        """Requests whose gray variant has failed, whether stable answered or not."""
        with self._lock:
            return dict(self._failures)

    def fallbacks(self) -> dict[tuple[GrayFailure, str], int]:
        """Requests by failure and result: ok, failed, denied or refused."""
        with self._lock:
            return dict(self._fallbacks)
