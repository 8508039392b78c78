"""The health of an endpoint, as in Envoy: ejection after failed responses, and the state of each health check."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from canary_mw.rules.upstream import HealthCheck, OutlierDetection
from canary_mw.upstreams.circuit_breakers import InFlight

if TYPE_CHECKING:
    from canary_mw.client.held import Held
    from canary_mw.rules.upstream import Origin


_GATEWAY = frozenset((502, 503, 504))


class HealthState:
    """The state of an endpoint in one health check. As in Envoy, the first check alone decides it.

    Attributes:
        healthy: the current state; an assumption before the first check.
        checked: there was a check.
    """

    __slots__ = ("_consecutive", "checked", "healthy")

    def __init__(self, healthy: bool) -> None:
        self.healthy = healthy
        self.checked = False
        self._consecutive = 0

    def record(self, passed: bool, answered: bool, check: HealthCheck) -> bool:
        """Count the outcome of a check; True if it changes `healthy`.

        Args:
            answered: there was a response. One wrong response is enough, a missing one may be the network.
        """
        needed = check.healthy_threshold if passed else 1 if answered else check.unhealthy_threshold
        self._consecutive = 0 if passed == self.healthy else self._consecutive + 1
        settled = not self.checked or self._consecutive >= needed
        self.checked = True
        if passed == self.healthy or not settled:
            return False
        self.healthy = passed
        self._consecutive = 0
        return True


class Endpoint:
    """One address of a service, and its health.

    Attributes:
        in_flight: requests without a response; until its body is read where `Lease.keep` says so.
        ejections: how often it was ejected, less one for each interval since the last ejection ended.
        ejected_until: a time of `Environment.clock`.
        health_states: one for each health check.
    """

    __slots__ = ("_failures", "_gateway_failures", "ejected_until", "ejections", "health_states", "in_flight", "origin")

    def __init__(self, origin: "Origin", health_states: Sequence[HealthState]) -> None:
        self.origin = origin
        self.in_flight = 0
        self.ejections = 0
        self.ejected_until = -math.inf
        self.health_states = health_states
        self._failures = 0
        self._gateway_failures = 0

    @property
    def name(self) -> str:
        """address:port, the same in every process; hash tables are built from it."""
        return self.origin.endpoint

    def is_healthy(self, now: float) -> bool:
        """Whether it is not ejected, and passes all health checks."""
        return now >= self.ejected_until and all(state.healthy for state in self.health_states)

    def record(self, status: int, settings: OutlierDetection) -> bool:
        """Count the status of a response; True if it reaches a limit of consecutive failures."""
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
        """Eject it, each time for longer; returns the seconds."""
        max_seconds = max(settings.max_ejection_time, settings.base_ejection_time)
        if self.ejections:
            intervals = int((now - self.ejected_until) / settings.interval)
            self.ejections = max(self.ejections - intervals, 0)
        if self.ejections * settings.base_ejection_time < max_seconds:
            self.ejections += 1
        seconds = min(self.ejections * settings.base_ejection_time, max_seconds)
        self.ejected_until = now + seconds
        return seconds


class EndpointStatus(NamedTuple):
    """An address of a service.

    Attributes:
        address: "" while no address of the service is known.
        why: why it gets no requests, "" where it does.
        back_in: seconds until an ejected one gets requests again.
        held: the connections to it, and requests that wait for one; None while there is neither.
    """

    service: str
    address: str
    state: Literal["healthy", "ejected", "unhealthy", "unresolved"]
    why: str = ""
    back_in: float | None = None
    held: "Held | None" = None


def status_of(service: str, endpoint: Endpoint, now: float) -> EndpointStatus:
    """What is known of an address of a service."""
    if now < endpoint.ejected_until and math.isfinite(endpoint.ejected_until):
        why = f"it kept failing; ejected {endpoint.ejections} times in a row"
        return EndpointStatus(service, endpoint.name, "ejected", why, endpoint.ejected_until - now)
    if not endpoint.is_healthy(now):
        return EndpointStatus(service, endpoint.name, "unhealthy", "it does not pass its health check")
    return EndpointStatus(service, endpoint.name, "healthy")


class ObservedUpstreams(Protocol):
    """What is told of upstreams in one process."""

    in_flight: InFlight

    def endpoint_statuses(self) -> list[EndpointStatus]:
        """See `Upstreams.endpoint_statuses`."""


def gauges_of(upstreams: ObservedUpstreams) -> dict[tuple[str, ...], int]:
    """Connections, waiting requests, and what counts towards circuit breakers, by name and service."""
    found: Counter[tuple[str, ...]] = Counter()
    for status in upstreams.endpoint_statuses():
        if status.held is not None:
            found["upstream_connections", status.service] += status.held.connections
            found["upstream_waiting_requests", status.service] += status.held.waiting
    for (service, _, kind), count in list(upstreams.in_flight.counts.items()):
        found["circuit_breaker_retries" if kind else "circuit_breaker_requests", service] += count
    return found
