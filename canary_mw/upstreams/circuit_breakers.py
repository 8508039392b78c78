"""Requests and retries in flight, against the limits of `circuit_breakers`.

As in Envoy the limits are those of a service; Mappings that give it other limits count on their own. All numbers are
this process's, and all of its threads count.
"""

from threading import Lock
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from canary_mw.exceptions import UpstreamOverloaded
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import Breakers

if TYPE_CHECKING:
    from canary_mw.client.interfaces import SyncResponse, UpstreamResponse


R = TypeVar("R", bound="UpstreamResponse | SyncResponse")
_REQUESTS, _RETRIES = 0, 1


class Loads:
    """What is in flight, by service and limits; what is idle is not kept."""

    __slots__ = ("_lock", "counts")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, Breakers, int], int] = {}
        self._lock = Lock()

    def requesting(self, service: str, breakers: Breakers) -> "Place":
        """A place for one request more.

        Raises:
            UpstreamOverloaded: `max_requests` are in flight.
        """
        key = (service, breakers, _REQUESTS)
        with self._lock:
            count = self.counts.get(key, 0)
            if count < breakers.max_requests:
                self.counts[key] = count + 1
                return Place(self, key)
        raise UpstreamOverloaded(f"{service}: {breakers.max_requests} requests in flight, as many as may be")

    def may_retry(self, service: str, breakers: Breakers) -> bool:
        """Whether `max_retries` are not reached."""
        return self.counts.get((service, breakers, _RETRIES), 0) < breakers.max_retries

    def retrying(self, service: str, breakers: Breakers) -> "Place":
        """A place for a retry."""
        key = (service, breakers, _RETRIES)
        with self._lock:
            self.counts[key] = self.counts.get(key, 0) + 1
        return Place(self, key)

    def leave(self, key: tuple[str, Breakers, int]) -> None:
        """One less."""
        with self._lock:
            left = self.counts[key] - 1
            if left:
                self.counts[key] = left
            else:
                del self.counts[key]


class Place:
    """One in a count; free again at the end of its block, unless an answer keeps it."""

    __slots__ = ("_kept", "_key", "_loads")

    def __init__(self, loads: Loads, key: tuple[str, Breakers, int]) -> None:
        self._loads = loads
        self._key = key
        self._kept = False

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._kept:
            self.free()

    def kept_by(self, response: "UpstreamResponse") -> "Counted":
        """The answer, which frees the place when it is done with."""
        self.keep()
        return Counted(response, self)

    def keep(self) -> None:
        """It outlives its block; whoever keeps it frees it."""
        self._kept = True

    def free(self) -> None:
        """Leave."""
        self._loads.leave(self._key)


class Held(Protocol):
    """What an answer keeps until it is done with."""

    def free(self) -> None:
        """Leave."""


class _Keeping(Generic[R]):
    """An answer that is in flight until its body is read, or it is closed."""

    __slots__ = ("_place", "_response")

    def __init__(self, response: R, place: Held) -> None:
        self._response = response
        self._place: Held | None = place

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
        if self._place is not None:
            self._place.free()
            self._place = None


class Counted(_Keeping["UpstreamResponse"]):
    """One of an event loop."""

    __slots__ = ()

    async def read(self) -> bytes:
        data = await self._response.read()
        if not data:
            self._done()
        return data


class SyncCounted(_Keeping["SyncResponse"]):
    """One of a thread."""

    __slots__ = ()

    def read(self) -> bytes:
        """See `UpstreamResponse`."""
        data = self._response.read()
        if not data:
            self._done()
        return data
