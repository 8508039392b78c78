"""The idle connections of a pool, for both HTTP/1.1 clients: which of them gets the next request."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

# Seconds that an idle connection rests. What an upstream sends behind a complete response, late, arrives meanwhile and
# closes the connection. Without a rest it is taken for the response to the next request, which is that of another user.
REST = 0.05

C = TypeVar("C")


class IdleConnections(Generic[C]):
    """Idle connections, each with the time at which it expires. Iteration is over the connections."""

    __slots__ = ("_rested", "_resting")

    def __init__(self) -> None:
        # Both in order of release. The first has the end of the rest and the expiry, the second the expiry.
        self._resting: OrderedDict[C, tuple[float, float]] = OrderedDict()
        self._rested: OrderedDict[C, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._resting) + len(self._rested)

    def __iter__(self) -> Iterator[C]:
        yield from self._rested
        yield from self._resting

    def add(self, connection: C, now: float, expires: float) -> None:
        """Add a connection that has just been released."""
        self._resting[connection] = now + REST, expires

    def take(self, now: float) -> tuple[C, float] | None:
        """Take a connection, with its expiry.

        Of those that have rested it is the one released last. The others get no requests and expire, so a pool shrinks
        after a burst; they are also the likelier ones to be closed by the upstream. If none has rested, it is the one
        released first.
        """
        resting, rested = self._resting, self._rested
        while resting:
            connection = next(iter(resting))
            rests_until, expires = resting[connection]
            if now < rests_until:
                if rested:
                    break
                del resting[connection]
                return connection, expires
            del resting[connection]
            rested[connection] = expires
        return rested.popitem() if rested else None

    def discard(self, connection: C) -> None:
        """Remove a connection if it is there."""
        if self._resting.pop(connection, None) is None:
            self._rested.pop(connection, None)

    def remove_oldest(self) -> C:
        """Remove the connection that was released first.

        Raises:
            KeyError: there is none.
        """
        return (self._rested or self._resting).popitem(last=False)[0]

    def remove_expired(self, now: float) -> list[C]:
        """Remove the connections that have expired."""
        expired = [connection for connection, expires in self._expiries() if expires <= now]
        for connection in expired:
            self.discard(connection)
        return expired

    def next_expiry(self) -> float | None:
        """The time at which the next connection expires; None without one."""
        return min((expires for _, expires in self._expiries()), default=None)

    def clear(self) -> list[C]:
        """Remove all connections."""
        removed = list(self)
        self._resting.clear()
        self._rested.clear()
        return removed

    def _expiries(self) -> Iterator[tuple[C, float]]:
        yield from self._rested.items()
        for connection, (_, expires) in self._resting.items():
            yield connection, expires
