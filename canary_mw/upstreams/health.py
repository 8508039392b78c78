"""How an endpoint does: what its answers and its health checks say, and when it is left alone, as in Envoy."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from canary_mw.rules.upstream import HealthCheck, OutlierDetection

if TYPE_CHECKING:
    from canary_mw.rules.upstream import Origin


_GATEWAY = frozenset((502, 503, 504))


class HealthState:
    """How an endpoint does in one health check; the first answer alone settles it, as in Envoy.

    Attributes:
        healthy: what is believed of it.
        checked: that is more than a guess.
    """

    __slots__ = ("_in_a_row", "checked", "healthy")

    def __init__(self, well: bool) -> None:
        self.healthy = well
        self.checked = False
        self._in_a_row = 0

    def record(self, good: bool, sure: bool, check: HealthCheck) -> bool:
        """Count the outcome of a check; True when it changes `well`.

        Args:
            sure: there was an answer; a wrong one needs no second, a missing one may be the network.
        """
        needed = check.healthy_threshold if good else 1 if sure else check.unhealthy_threshold
        self._in_a_row = 0 if good == self.healthy else self._in_a_row + 1
        settled = not self.checked or self._in_a_row >= needed
        self.checked = True
        if good == self.healthy or not settled:
            return False
        self.healthy = good
        self._in_a_row = 0
        return True


class Endpoint:
    """One address of a service, and how it does.

    Attributes:
        in_flight: requests that have no whole answer yet; counted where the policy asks for it.
        ejections: how often it was ejected, less what it has made up for.
        ejected_until: by the clock.
        health_states: one for each health check.
    """

    __slots__ = ("_failures", "_gateway_failures", "ejected_until", "ejections", "health_states", "in_flight", "origin")

    def __init__(self, origin: "Origin", standings: Sequence[HealthState]) -> None:
        self.origin = origin
        self.in_flight = 0
        self.ejections = 0
        self.ejected_until = -math.inf
        self.health_states = standings
        self._failures = 0
        self._gateway_failures = 0

    @property
    def name(self) -> str:
        """What every process calls it."""
        return f"{self.origin.address or self.origin.host}:{self.origin.port}"

    def is_healthy(self, now: float) -> bool:
        """Whether it is to get requests."""
        return now >= self.ejected_until and all(standing.healthy for standing in self.health_states)

    def record(self, status: int, settings: OutlierDetection) -> bool:
        """Count an answer; True for the one failure too many."""
        if status < 500:
            self._failures = self._gateway_failures = 0
            return False
        self._failures += 1
        self._gateway_failures = self._gateway_failures + 1 if status in _GATEWAY else 0
        of_gateway = status in _GATEWAY and self._gateway_failures == settings.consecutive_gateway_failure
        if self._failures != settings.consecutive_5xx and not of_gateway:
            return False
        self._failures = self._gateway_failures = 0
        return True

    def eject(self, now: float, settings: OutlierDetection) -> float:
        """Leave it alone, each time for longer; returns for how many seconds."""
        longest = max(settings.max_ejection_time, settings.base_ejection_time)
        if self.ejections:
            made_up_for = int((now - self.ejected_until) / settings.interval)
            self.ejections = max(self.ejections - made_up_for, 0)
        if self.ejections * settings.base_ejection_time < longest:
            self.ejections += 1
        seconds = min(self.ejections * settings.base_ejection_time, longest)
        self.ejected_until = now + seconds
        return seconds
