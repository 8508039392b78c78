"""One request at one endpoint: counted while in flight, and its outcome recorded for outlier detection."""

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from canary_mw.exceptions import UpstreamError, UpstreamOverloaded
from canary_mw.rules.upstream import Origin
from canary_mw.upstreams.circuit_breakers import TrackedResponse
from canary_mw.upstreams.health import Endpoint

if TYPE_CHECKING:
    from canary_mw.client.interfaces import UpstreamResponse


class LeaseOwner(Protocol):
    """What a lease uses of its `EndpointSet`.

    Attributes:
        counts_in_flight: a response is in flight until its body is read.
        lock: held while `in_flight` of an endpoint changes.
    """

    counts_in_flight: bool

    @property
    def lock(self) -> AbstractContextManager[bool]: ...

    def record(self, endpoint: Endpoint, status: int) -> None:
        """Count a status of an endpoint."""


class Lease:
    """One request at one endpoint.

    The end of its block records an error that is the endpoint's fault. It also releases the lease, unless a response
    holds it.
    """

    __slots__ = ("_endpoint", "_held", "_owner")

    def __init__(self, owner: LeaseOwner, endpoint: Endpoint) -> None:
        self._owner = owner
        self._endpoint = endpoint
        self._held = False
        with owner.lock:
            endpoint.in_flight += 1

    @property
    def origin(self) -> Origin:
        """The origin that the request is sent to."""
        return self._endpoint.origin

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(exc, UpstreamError):
            exc.address = self._endpoint.name
            if _is_endpoint_fault(exc):
                self._owner.record(self._endpoint, exc.status_hint)
        if not self._held:
            self.release()

    def held_by(self, response: "UpstreamResponse") -> "UpstreamResponse":
        """Record the status of a response, and return the response; it releases the lease where `keep` says so."""
        return TrackedResponse(response, self) if self.keep(response.head.status) else response

    def keep(self, status: int) -> bool:
        """Record the status of a response. True if the response has to release the lease at the end of its body.

        That is so where the load balancing policy compares requests in flight.
        """
        self.record(status)
        self._held = self._owner.counts_in_flight
        return self._held

    def record(self, status: int) -> None:
        """Record the status of a response."""
        self._owner.record(self._endpoint, status)

    def release(self) -> None:
        """The request is no longer in flight."""
        with self._owner.lock:
            self._endpoint.in_flight -= 1


def _is_endpoint_fault(exc: UpstreamError) -> bool:
    """False for our own limits and for a head that we refuse to send: they say nothing about an endpoint."""
    return not isinstance(exc, UpstreamOverloaded) and (exc.sent or exc.status_hint != 502)
