"""Requests and retries in flight, against the limits of `circuit_breakers`.

As in Envoy the limits are those of a service; Mappings that give it other limits count on their own. All numbers are
this process's, and all of its threads count.
"""

from threading import Lock
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from canary_mw.exceptions import UpstreamOverloaded
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import CircuitBreakers

if TYPE_CHECKING:
    from canary_mw.client.interfaces import SyncResponse, UpstreamResponse


R = TypeVar("R", bound="UpstreamResponse | SyncResponse")
_REQUESTS, _RETRIES = 0, 1


class InFlight:
    """What is in flight, by service and limits; what is idle is not kept."""

    __slots__ = ("_lock", "counts")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, CircuitBreakers, int], int] = {}
        self._lock = Lock()

    def acquire_request(self, service: str, breakers: CircuitBreakers) -> "Slot":
        """A place for one request more.

        Raises:
            UpstreamOverloaded: `max_requests` are in flight.
        """
        key = (service, breakers, _REQUESTS)
        with self._lock:
            count = self.counts.get(key, 0)
            if count < breakers.max_requests:
                self.counts[key] = count + 1
                return Slot(self, key)
        raise UpstreamOverloaded(f"{service}: {breakers.max_requests} requests in flight, as many as may be")

    def may_retry(self, service: str, breakers: CircuitBreakers) -> bool:
        """Whether `max_retries` are not reached."""
        return self.counts.get((service, breakers, _RETRIES), 0) < breakers.max_retries

    def acquire_retry(self, service: str, breakers: CircuitBreakers) -> "Slot":
        """A place for a retry."""
        key = (service, breakers, _RETRIES)
        with self._lock:
            self.counts[key] = self.counts.get(key, 0) + 1
        return Slot(self, key)

    def release(self, key: tuple[str, CircuitBreakers, int]) -> None:
        """One less."""
        with self._lock:
            left = self.counts[key] - 1
            if left:
                self.counts[key] = left
            else:
                del self.counts[key]


class Slot:
    """One in a count; free again at the end of its block, unless an answer keeps it."""

    __slots__ = ("_in_flight", "_kept", "_key")

    def __init__(self, loads: InFlight, key: tuple[str, CircuitBreakers, int]) -> None:
        self._in_flight = loads
        self._key = key
        self._kept = False

    def __enter__(self) -> "Slot":
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._kept:
            self.release()

    def held_by(self, response: "UpstreamResponse") -> "TrackedResponse":
        """The answer, which frees the place when it is done with."""
        self.keep()
        return TrackedResponse(response, self)

    def keep(self) -> None:
        """It outlives its block; whoever keeps it frees it."""
        self._kept = True

    def release(self) -> None:
        """Leave."""
        self._in_flight.release(self._key)


class Releasable(Protocol):
    """What an answer keeps until it is done with."""

    def release(self) -> None:
        """Leave."""


class _Tracked(Generic[R]):
    """An answer that is in flight until its body is read, or it is closed."""

    __slots__ = ("_response", "_slot")

    def __init__(self, response: R, place: Releasable) -> None:
        self._response = response
        self._slot: Releasable | None = place

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
    """One of an event loop."""

    __slots__ = ()

    async def read(self) -> bytes:
        data = await self._response.read()
        if not data:
            self._done()
        return data


class SyncTrackedResponse(_Tracked["SyncResponse"]):
    """One of a thread."""

    __slots__ = ()

    def read(self) -> bytes:
        """See `UpstreamResponse`."""
        data = self._response.read()
        if not data:
            self._done()
        return data
