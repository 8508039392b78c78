"""An answer whose head is there, whatever the client."""

import math
from typing import Generic, Protocol, TypeVar

from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.http.messages import ResponseHead


class ResponseConnection(Protocol):
    """The connection that an answer comes in on."""

    complete: bool

    def take_pieces(self) -> bytes:
        """What has come of the body and was not taken yet."""

    def release(self) -> None:
        """Back to the pool if nothing of the exchange is missing, else close."""

    def move_deadline(self, when: float) -> None:
        """Put the deadline off."""


C = TypeVar("C", bound=ResponseConnection)


class BaseResponse(Generic[C]):
    """An answer whose head is there; its body is read once, by `take` or `read`.

    Attributes:
        head: status and headers, as received.
    """

    __slots__ = ("_connection", "_rest", "head")

    def __init__(self, head: ResponseHead, rest: bytes | None, connection: C | None) -> None:
        self.head = head
        self._rest = rest
        self._connection = connection

    def take(self) -> bytes | None:
        """All of the body that was not read yet if the answer is complete, else None; never waits."""
        connection = self._connection
        if connection is None:
            rest, self._rest = self._rest, self._rest and b""
            return rest
        if not connection.complete:
            return None
        data = connection.take_pieces()
        self._rest = b""
        self._connection = None
        connection.release()
        return data

    def close(self) -> None:
        """Done with the answer, read or not; the connection is used again only if nothing of it is missing."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.release()

    def move_deadline(self, when: float) -> None:
        """Put the deadline off to `when`, on the clock that the deadline was given by."""
        if self._connection is not None:
            self._connection.move_deadline(when)

    def cancel_deadline(self) -> None:
        """End the deadline here: an event stream lasts as long as it wants."""
        self.move_deadline(math.inf)

    def _taken_at_end(self) -> bytes:
        data = self.take()
        if data is None:
            raise UpstreamProtocolError("the answer was closed before its end", sent=True)
        return data
