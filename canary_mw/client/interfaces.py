"""What can carry a request to an origin, and what it gives back."""

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import Origin

RequestBody = bytes | AsyncIterator[bytes] | None


class UpstreamResponse(Protocol):
    """An answer whose head is there; see `http11.Response` for the contract."""

    @property
    def head(self) -> ResponseHead:
        """Status and headers."""

    def take(self) -> bytes | None:
        """All that is left of the body, when all of it is there."""

    async def read(self) -> bytes:
        """The next piece; b"" at the clean end, UpstreamError at any other."""

    def close(self) -> None:
        """Done with it, however far it was read."""

    def move_deadline(self, when: float) -> None:
        """Put the deadline off to a later loop time."""

    def cancel_deadline(self) -> None:
        """From here on it may take as long as it wants."""


class Transport(Protocol):
    """What can carry a request to an origin."""

    async def send(
        self, origin: Origin, request: UpstreamRequest, body: RequestBody, deadline: float
    ) -> UpstreamResponse:
        """Return when the head of the answer is there; `deadline` is a loop time for all of the exchange."""


SyncBody = bytes | Iterator[bytes] | None


class SyncResponse(Protocol):
    """`UpstreamResponse` for threads; times are those of `time.monotonic`."""

    @property
    def head(self) -> ResponseHead:
        """See `UpstreamResponse`, also for the methods."""

    def take(self) -> bytes | None: ...

    def read(self) -> bytes: ...

    def close(self) -> None: ...

    def move_deadline(self, when: float) -> None: ...

    def cancel_deadline(self) -> None: ...


class SyncTransport(Protocol):
    """`Sender` for threads."""

    def send(self, origin: Origin, request: UpstreamRequest, body: SyncBody, deadline: float) -> SyncResponse:
        """Return when the head of the answer is there; `deadline` is a time of `time.monotonic`."""
