"""Requests and retries in flight, against the limits of `circuit_breakers`.

As in Envoy, the limits are those of a service; Mappings that give the same service other limits are counted separately.
All numbers are per process, over all of its threads.
"""

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from canary_mw.exceptions import UpstreamOverloaded
from canary_mw.http.messages import ResponseHead
from canary_mw.locks import new_lock
from canary_mw.rules.upstream import CircuitBreakers

if TYPE_CHECKING:
    from canary_mw.client.interfaces import SyncResponse, UpstreamResponse


R = TypeVar("R", bound="UpstreamResponse | SyncResponse")
_REQUESTS, _RETRIES = 0, 1


class InFlight:
    """Counts by service and limits; a count of zero is not kept."""

    __slots__ = ("_lock", "counts")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, CircuitBreakers, int], int] = {}
        self._lock = new_lock()

    def acquire_request(self, service: str, circuit_breakers: CircuitBreakers) -> "Slot":
        """A slot for one more request.

        Raises:
            UpstreamOverloaded: `max_requests` are in flight.
        """
        key = (service, circuit_breakers, _REQUESTS)
        with self._lock:
            count = self.counts.get(key, 0)
            if count < circuit_breakers.max_requests:
                self.counts[key] = count + 1
                return Slot(self, key)
        raise UpstreamOverloaded(f"{service}: {circuit_breakers.max_requests} requests in flight, as many as may be")

    def may_retry(self, service: str, circuit_breakers: CircuitBreakers) -> bool:
        """Whether fewer than `max_retries` are in flight."""
        return self.counts.get((service, circuit_breakers, _RETRIES), 0) < circuit_breakers.max_retries

    def acquire_retry(self, service: str, circuit_breakers: CircuitBreakers) -> "Slot":
        """A slot for a retry."""
        key = (service, circuit_breakers, _RETRIES)
        with self._lock:
            self.counts[key] = self.counts.get(key, 0) + 1
        return Slot(self, key)

    def release(self, key: tuple[str, CircuitBreakers, int]) -> None:
        """Count one less; see `Slot.release`."""
        with self._lock:
            left = self.counts[key] - 1
            if left:
                self.counts[key] = left
            else:
                del self.counts[key]


class Slot:
    """One request or retry in flight; released at the end of its block, unless a response holds it."""

    __slots__ = ("_held", "_in_flight", "_key")

    def __init__(self, in_flight: InFlight, key: tuple[str, CircuitBreakers, int]) -> None:
        self._in_flight = in_flight
        self._key = key
        self._held = False

    def __enter__(self) -> "Slot":
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._held:
            self.release()

    def held_by(self, response: "UpstreamResponse") -> "TrackedResponse":
        """The response, which releases the slot at the end of its body or when it is closed."""
        self.keep()
        return TrackedResponse(response, self)

    def keep(self) -> None:
        """Do not release it at the end of its block; the caller does that."""
        self._held = True

    def release(self) -> None:
        """Free the slot."""
        self._in_flight.release(self._key)


class Releasable(Protocol):
    """What a response holds until its body is read, or it is closed: a slot or a lease."""

    def release(self) -> None:
        """See `Slot` and `Lease`."""


class _Tracked(Generic[R]):
    """A response that is in flight until its body is read, or it is closed."""

    __slots__ = ("_response", "_slot")

    def __init__(self, response: R, slot: Releasable) -> None:
        self._response = response
        self._slot: Releasable | None = slot

    @property
    def head(self) -> ResponseHead:
        """See `UpstreamResponse`, also for the methods."""
        return self._response.head

    def take(self) -> bytes | None:
        data = self._response.take()
        if data is not None:
            self._done()
        return data

    def close(self) -> None:
        self._done()
        self._response.close()

    def move_deadline(self, when: float) -> None:
        self._response.move_deadline(when)

    def cancel_deadline(self) -> None:
        self._response.cancel_deadline()

    def _done(self) -> None:
        if self._slot is not None:
            self._slot.release()
            self._slot = None


class TrackedResponse(_Tracked["UpstreamResponse"]):
    """A tracked response in an event loop."""

    __slots__ = ()

    async def read(self) -> bytes:
        data = await self._response.read()
        if not data:
            self._done()
        return data


class SyncTrackedResponse(_Tracked["SyncResponse"]):
    """A tracked response in a thread."""

    __slots__ = ()

    def read(self) -> bytes:
        """See `UpstreamResponse`."""
        data = self._response.read()
        if not data:
            self._done()
        return data
