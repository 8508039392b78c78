"""Requests and retries in flight, against the limits of `circuit_breakers`.

As in Envoy the limits are those of a service; Mappings that give it other limits count on their own. All numbers are
this process's.
"""

from typing import TYPE_CHECKING, Protocol

from .exceptions import UpstreamOverloaded
from .messages import Breakers, ResponseHead

if TYPE_CHECKING:
    from .transports import UpstreamResponse

_REQUESTS, _RETRIES = 0, 1


class Loads:
    """What is in flight, by service and limits; what is idle is not kept."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[tuple[str, Breakers, int], int] = {}

    def requesting(self, service: str, breakers: Breakers) -> "Place":
        """A place for one request more.

        Raises:
            UpstreamOverloaded: `max_requests` are in flight.
        """
        key = (service, breakers, _REQUESTS)
        if self.counts.get(key, 0) >= breakers.max_requests:
            raise UpstreamOverloaded(f"{service}: {breakers.max_requests} requests in flight, as many as may be")
        return Place(self.counts, key)

    def may_retry(self, service: str, breakers: Breakers) -> bool:
        """Whether `max_retries` are not reached."""
        return self.counts.get((service, breakers, _RETRIES), 0) < breakers.max_retries

    def retrying(self, service: str, breakers: Breakers) -> "Place":
        """A place for a retry."""
        return Place(self.counts, (service, breakers, _RETRIES))


class Place:
    """One in a count; free again at the end of its block, unless an answer keeps it."""

    __slots__ = ("_counts", "_kept", "_key")

    def __init__(self, counts: dict[tuple[str, Breakers, int], int], key: tuple[str, Breakers, int]) -> None:
        self._counts = counts
        self._key = key
        self._kept = False
        counts[key] = counts.get(key, 0) + 1

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._kept:
            self.free()

    def kept_by(self, response: "UpstreamResponse") -> "Counted":
        """The answer, which frees the place when it is done with."""
        self._kept = True
        return Counted(response, self)

    def free(self) -> None:
        """Leave."""
        left = self._counts[self._key] - 1
        if left:
            self._counts[self._key] = left
        else:
            del self._counts[self._key]


class Held(Protocol):
    """What an answer keeps until it is done with."""

    def free(self) -> None:
        """Leave."""


class Counted:
    """An answer that is in flight until its body is read, or it is closed."""

    __slots__ = ("_place", "_response")

    def __init__(self, response: "UpstreamResponse", place: Held) -> None:
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

    async def read(self) -> bytes:
        data = await self._response.read()
        if not data:
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
