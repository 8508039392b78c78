"""Protocols of transports, their responses and those that wait for them."""

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import Origin

RequestBody = bytes | AsyncIterator[bytes] | None


class UpstreamResponse(Protocol):
    """A response whose head has been received. `client.response.BaseResponse` describes the contract."""

    @property
    def head(self) -> ResponseHead:
        """Status and headers."""

    def take(self) -> bytes | None:
        """The unread rest of the body if the response is complete, else None."""

    async def read(self) -> bytes:
        """The next bytes of the body; b"" at a clean end. An early end raises UpstreamError."""

    def close(self) -> None:
        """Release the response, whether or not the body was read."""

    def move_deadline(self, when: float) -> None:
        """Move the deadline to a later loop time."""

    def cancel_deadline(self) -> None:
        """Remove the deadline."""


class Transport(Protocol):
    """Sends requests to origins."""

    async def send(
        self, origin: Origin, request: UpstreamRequest, body: RequestBody, deadline: float
    ) -> UpstreamResponse:
        """Return when the response head is received; `deadline` is a loop time for the whole exchange."""


class Waiter(Protocol):
    """What is notified of a response: a future, or an object that is called synchronously."""

    def done(self) -> bool:
        """Whether it no longer waits."""

    def set_result(self, result: None, /) -> None:
        """Notify: a part of the response was received, or the exchange failed."""


SyncBody = bytes | Iterator[bytes] | None


class SyncResponse(Protocol):
    """Synchronous `UpstreamResponse`. Times are those of `time.monotonic`."""

    @property
    def head(self) -> ResponseHead:
        """See `UpstreamResponse`, also for the other methods."""

    def take(self) -> bytes | None: ...

    def read(self) -> bytes: ...

    def close(self) -> None: ...

    def move_deadline(self, when: float) -> None: ...

    def cancel_deadline(self) -> None: ...


class SyncTransport(Protocol):
    """Synchronous `Transport`."""

    def send(self, origin: Origin, request: UpstreamRequest, body: SyncBody, deadline: float) -> SyncResponse:
        """Return when the response head is received; `deadline` is a `time.monotonic` time."""
