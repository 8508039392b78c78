"""The response behind both HTTP/1.1 clients."""

import math
from typing import Generic, Protocol, TypeVar

from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.http.messages import ResponseHead


class ResponseConnection(Protocol):
    """The connection that a response is received on."""

    complete: bool

    def take_buffered(self) -> bytes:
        """Return and clear the body bytes received so far."""

    def release(self) -> None:
        """Return the connection to its pool if the exchange is complete, else close it."""

    def move_deadline(self, when: float) -> None:
        """Move the deadline to a later time."""


C = TypeVar("C", bound=ResponseConnection)


class BaseResponse(Generic[C]):
    """A response whose head has been received. Its body is read once, by `take` or `read`.

    Attributes:
        head: status and headers, as received.
    """

    __slots__ = ("_connection", "_rest", "head")

    def __init__(self, head: ResponseHead, rest: bytes | None, connection: C | None) -> None:
        self.head = head
        self._rest = rest
        self._connection = connection

    def take(self) -> bytes | None:
        """The unread rest of the body if the response is complete, else None. Never waits."""
        connection = self._connection
        if connection is None:
            rest, self._rest = self._rest, self._rest and b""
            return rest
        if not connection.complete:
            return None
        data = connection.take_buffered()
        self._rest = b""
        self._connection = None
        connection.release()
        return data

    def close(self) -> None:
        """Release the connection; it is reused only if the response is complete."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.release()

    def move_deadline(self, when: float) -> None:
        """Move the deadline to `when`, a time of the clock of the original deadline."""
        if self._connection is not None:
            self._connection.move_deadline(when)

    def cancel_deadline(self) -> None:
        """Remove the deadline, as for an event stream."""
        self.move_deadline(math.inf)

    def _take_complete(self) -> bytes:
        data = self.take()
        if data is None:
            raise UpstreamProtocolError("the answer was closed before its end", sent=True)
        return data
