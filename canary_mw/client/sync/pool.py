"""Connections of one origin for threads: the idle ones, the slots, and the requests that wait for either.

The twin of `pool`. A lock is held for the lists alone, never while anything is sent, awaited or closed. No thread
watches over idle connections: whoever takes one looks whether it is still good.
"""

import math
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock
from time import monotonic

from canary_mw.client.limits import (
    CERTIFICATES_CHANGED,
    EVICTED,
    IDLE_TIMEOUT,
    Limits,
    check_pending,
    connect_error,
    limits_under,
    pool_timeout,
)
from canary_mw.client.sync.connect import MAX_TIMEOUT, connect
from canary_mw.client.sync.connection import SyncConnection
from canary_mw.client.tls import ConnectionSecurity
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.rules.upstream import CircuitBreakers, Origin

# What a waiting request is given: a connection, a slot (None), or the reason why it gets neither.
Gift = SyncConnection | Exception | None
Waiter = SimpleQueue[Gift]


class SyncPool:
    """See the module; any thread may use it.

    Args:
        origin: where the connections go.
        limits: see `Limits`.
        secure: how a new connection is secured; when that changes, those from before take no new request.
        breakers: narrower limits; see `pool.Pool`.
    """

    __slots__ = (
        "_alive",
        "_closed",
        "_connecting",
        "_context",
        "_idle",
        "_limits",
        "_lock",
        "_outdated",
        "_retired",
        "_secure",
        "_size",
        "_waiters",
        "breakers",
        "origin",
    )

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        secure: Callable[[Origin], ConnectionSecurity],
        breakers: CircuitBreakers | None = None,
    ) -> None:
        self.origin = origin
        self.breakers = breakers
        self._limits = limits_under(limits, breakers)
        self._secure = secure
        self._context: ssl.SSLContext | None = None
        self._outdated = -math.inf
        self._lock = Lock()
        # Until when each is kept. Insertion order is the order of giving back: popitem() takes the warmest.
        self._idle: dict[SyncConnection, float] = {}
        self._alive: set[SyncConnection] = set()
        self._waiters: deque[Waiter] = deque()
        self._size = self._connecting = 0
        self._closed = self._retired = False

    def take(self) -> SyncConnection | None:
        """The idle connection that was used last and is still good, or None."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, expires = self._idle.popitem()
            if monotonic() < expires and connection.quiet():
                return connection
            connection.fail(UpstreamConnectError("the idle connection was closed, or too old"))

    def acquire(self, deadline: float, connect_timeout: float, *, fresh: bool = False) -> SyncConnection:
        """A connection that is ours alone.

        Args:
            deadline: monotonic time at which waiting ends, `math.inf` for never.
            connect_timeout: seconds for one attempt to connect.
            fresh: open a new one even when others are idle.

        Raises:
            UpstreamConnectError: refused, not found, too slow, or too many are waiting.
            UpstreamOverloaded: too many for the breakers.
            UpstreamTimeout: the deadline passed.
        """
        while True:
            if not fresh and (idle := self.take()) is not None:
                return idle
            handed = self._wait(self._apply(fresh), deadline)
            if handed is None:
                return self._connect(deadline, connect_timeout)
            if handed.quiet():
                return handed
            handed.fail(UpstreamConnectError("the connection was closed on its way to the one who waited"))

    def release(self, connection: SyncConnection) -> None:
        """Give back a connection that may serve again."""
        connection.reused = True
        options = connection.options
        now = monotonic()
        keep = self._limits.keepalive_idle if options.keepalive_idle is None else options.keepalive_idle
        expires = now + keep
        if options.lifetime is not None:
            expires = min(expires, connection.since + options.lifetime)
        young = options.lifetime is None or now < connection.since + options.lifetime
        with self._lock:
            if young and connection.since >= self._outdated and not self._closed:
                if self._waiters:
                    self._waiters.popleft().put(connection)
                    return
                if now < expires and not self._retired:
                    self._idle[connection] = expires
                    return
        connection.fail(UpstreamConnectError("the connection is not kept"))

    def discard(self, connection: SyncConnection) -> None:
        """A connection was closed; its slot is free."""
        with self._lock:
            self._alive.discard(connection)
            self._free_slot()

    def sweep(self, now: float) -> bool:
        """Close what was idle for too long; whether nothing is left, and this pool keeps nothing from then on."""
        with self._lock:
            expired = [connection for connection, expires in self._idle.items() if expires <= now]
            for connection in expired:
                del self._idle[connection]
        for connection in expired:
            connection.fail(UpstreamConnectError(IDLE_TIMEOUT))
        with self._lock:
            # A request that found the pool before may still use it.
            self._retired = not self._size
            return self._retired

    def close(self) -> None:
        """End every connection, exchange and wait with UpstreamConnectError."""
        with self._lock:
            self._closed = True
            idle = list(self._idle)
            self._idle.clear()
            busy = self._alive.difference(idle)
            waiters = list(self._waiters)
            self._waiters.clear()
        for waiter in waiters:
            waiter.put(_was_closed())
        for connection in idle:
            connection.fail(_was_closed())
        for connection in busy:
            connection.cut(_was_closed())

    def abandon(self) -> None:
        """In a forked child, where the lock may be held by a thread that is no more: see `SyncConnection.abandon`."""
        self._closed = True
        for connection in self._alive:
            connection.abandon(UpstreamConnectError("the process was forked during the exchange"))

    def _apply(self, fresh: bool) -> Waiter:
        """Queue up, and be given at once what is there."""
        waiter: Waiter = SimpleQueue()
        oldest = None
        with self._lock:
            if self._closed:
                raise _was_closed()
            if self._idle and not fresh:
                # Given back since we looked.
                waiter.put(self._idle.popitem()[0])
                return waiter
            if self.breakers is not None:
                check_pending(self._connecting + len(self._waiters), self._limits, self.origin, self.breakers)
            if self._size >= self._limits.max_connections:
                if not self._idle:
                    check_pending(len(self._waiters), self._limits, self.origin, self.breakers)
                    self._waiters.append(waiter)
                    return waiter
                oldest = next(iter(self._idle))
                del self._idle[oldest]
            self._size += 1
            self._give_slot(waiter)
        if oldest is not None:
            oldest.fail(UpstreamConnectError(EVICTED))
        return waiter

    def _give_slot(self, waiter: Waiter) -> None:
        # From here on, so that no second request passes the breakers before it is seen to connect.
        self._connecting += 1
        waiter.put(None)

    def _free_slot(self) -> None:
        if self._waiters:
            self._give_slot(self._waiters.popleft())
        else:
            self._size -= 1

    def _wait(self, waiter: Waiter, deadline: float) -> SyncConnection | None:
        """A connection, or None for a slot that is now ours."""
        try:
            gift = waiter.get(
                timeout=None if deadline == math.inf else min(max(deadline - monotonic(), 0.0), MAX_TIMEOUT)
            )
        except Empty:
            with self._lock, suppress(ValueError):
                self._waiters.remove(waiter)
                raise pool_timeout(self.origin) from None
            # Given in the same moment.
            gift = waiter.get_nowait()
        except BaseException:
            self._leave(waiter)
            raise
        if isinstance(gift, Exception):
            raise gift
        return gift

    def _leave(self, waiter: Waiter) -> None:
        """Pass on what one who was interrupted had just been given."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                return
        with suppress(Empty):
            gift = waiter.get_nowait()
            if isinstance(gift, SyncConnection):
                self.release(gift)
            elif gift is None:
                self._slot_unused()

    def _slot_unused(self) -> None:
        with self._lock:
            self._connecting -= 1
            self._free_slot()

    def _connect(self, deadline: float, connect_timeout: float) -> SyncConnection:
        """Open a connection into the slot that the caller holds; the slot is freed when that fails."""
        began = monotonic()
        try:
            sock = self._open_one(began, deadline, connect_timeout)
        except BaseException:
            self._slot_unused()
            raise
        connection = SyncConnection(self, self.origin.authority, self._limits.max_head, sock)
        connection.since = began
        with self._lock:
            self._connecting -= 1
            self._alive.add(connection)
            closed = self._closed
        if closed:
            connection.fail(_was_closed())
            raise _was_closed()
        return connection

    def _open_one(self, began: float, deadline: float, connect_timeout: float) -> socket.socket:
        limit = min(began + connect_timeout, deadline)
        security = self._secure(self.origin)
        if security.context is not self._context:
            self._retire(security.context, began)
        try:
            return connect(self.origin, security, limit)
        except (OSError, ValueError, OverflowError) as exc:
            raise connect_error(exc, self.origin, connect_timeout, at_deadline=limit == deadline) from exc

    def _retire(self, context: ssl.SSLContext | None, now: float) -> None:
        """From now on connections are secured otherwise: close the idle ones, and the others when they are done."""
        with self._lock:
            self._context = context
            self._outdated = max(self._outdated, now)
            idle = list(self._idle)
            self._idle.clear()
        for connection in idle:
            connection.fail(UpstreamConnectError(CERTIFICATES_CHANGED))


def _was_closed() -> UpstreamConnectError:
    return UpstreamConnectError("the client was closed")
