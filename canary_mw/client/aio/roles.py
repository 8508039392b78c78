"""What a connection for asyncio uses of its pool, and of who waits for a response."""

from typing import Any, Protocol

from canary_mw.client.interfaces import Waiter
from canary_mw.rules.upstream import Origin


class Owner(Protocol):
    """The pool of a connection."""

    origin: Origin

    def release(self, connection: Any) -> None:
        """Take back a reusable connection."""

    def discard(self, connection: Any) -> None:
        """Remove a closed connection."""


class Reader(Waiter, Protocol):
    """A waiter that may read a response itself."""

    def read(self, data: bytes) -> bool:
        """Read a response from the first bytes that come; false where they are none that it reads whole.

        Where it is one, `Connection.finish` is called.
        """
