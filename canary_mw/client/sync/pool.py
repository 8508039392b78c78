"""The connection pool of one origin, for threads: idle connections, slots, and requests that wait for either.

The counterpart of `client.aio.pool`. The lock is held only for the lists, never while anything is sent, awaited or
closed. No thread watches idle connections: `take` checks that one is still open.
"""

import math
import queue
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Generic, TypeAlias, TypeVar

from canary_mw.client.held import Held
from canary_mw.client.idle import IdleConnections
from canary_mw.client.limits import (
    CERTIFICATES_CHANGED,
    EVICTED,
    IDLE_TIMEOUT,
    Limits,
    check_pending,
    client_closed,
    connect_error,
    limits_under,
    pool_timeout,
)
from canary_mw.client.sync.connect import MAX_TIMEOUT, connect
from canary_mw.client.sync.pooled import PooledConnection
from canary_mw.client.tls import ConnectionSecurity
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.locks import new_lock
from canary_mw.rules.upstream import CircuitBreakers, Origin

C = TypeVar("C", bound=PooledConnection)
# What a waiting request gets: a connection, a slot (None), or the error because of which it gets neither.
Grant: TypeAlias = C | Exception | None
Waiter: TypeAlias = queue.SimpleQueue[Grant[C]]


class SyncPool(Generic[C]):
    """A connection pool. Any thread may use it.

    Args:
        origin: where the connections lead.
        limits: see `Limits`.
        make: makes a connection of a socket that is connected.
        secure: returns the TLS settings of a new connection. When they change, older connections get no new request.
        circuit_breakers: lower limits. As in Envoy, a request that opens a connection counts as pending then, and one
            connection is always allowed.
    """

    __slots__ = (
        "_alive _closed _connecting _context _idle _limits _lock _make _outdated_before _removed _secure _size _waiters"
        " circuit_breakers origin"
    ).split()

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        make: Callable[["SyncPool[C]", socket.socket], C],
        secure: Callable[[Origin], ConnectionSecurity],
        circuit_breakers: CircuitBreakers | None = None,
    ) -> None:
        self.origin = origin
        self.circuit_breakers = circuit_breakers
        self._limits = limits_under(limits, circuit_breakers)
        self._make = make
        self._secure = secure
        self._context: ssl.SSLContext | None = None
        self._outdated_before = -math.inf
        self._lock = new_lock()
        self._idle: IdleConnections[C] = IdleConnections()
        self._alive: set[C] = set()
        self._waiters: deque[Waiter[C]] = deque()
        self._size = self._connecting = 0
        self._closed = self._removed = False

    @property
    def held(self) -> Held:
        """See `HoldingPool`."""
        return Held(self._size, len(self._waiters))

    def take(self) -> C | None:
        """Take an idle connection that is still reusable, or None; `IdleConnections` says which."""
        while True:
            now = monotonic()
            with self._lock:
                found = self._idle.take(now)
            if found is None:
                return None
            connection, expires = found
            if now < expires and connection.is_reusable():
                return connection
            connection.fail(UpstreamConnectError("the idle connection was closed, or too old"))

    def acquire(self, deadline: float, connect_timeout: float, *, fresh: bool = False) -> C:
        """Take an idle connection, open a new one, or wait for one.

        Args:
            deadline: monotonic time at which waiting ends, `math.inf` for never.
            connect_timeout: seconds for one attempt to connect.
            fresh: open a new connection even when others are idle.

        Raises:
            UpstreamConnectError: connecting failed or took too long, or too many requests wait.
            UpstreamOverloaded: a limit of the circuit breakers is reached.
            UpstreamTimeout: the deadline passed.
        """
        while True:
            if not fresh and (idle := self.take()) is not None:
                return idle
            granted = self._wait(self._enqueue(fresh), deadline)
            if granted is None:
                return self._connect(deadline, connect_timeout)
            if granted.is_reusable():
                return granted
            granted.fail(UpstreamConnectError("the connection was closed before the waiting request got it"))

    def release(self, connection: C) -> None:
        """Take back a reusable connection."""
        connection.reused = True
        options = connection.options
        now = monotonic()
        keep = self._limits.keepalive_expiry if options.keepalive_expiry is None else options.keepalive_expiry
        expires = now + keep
        lifetime = options.max_connection_lifetime
        if lifetime is not None:
            expires = min(expires, connection.opened_at + lifetime)
        within_lifetime = lifetime is None or now < connection.opened_at + lifetime
        with self._lock:
            if within_lifetime and connection.opened_at >= self._outdated_before and not self._closed:
                if self._waiters:
                    self._waiters.popleft().put(connection)
                    return
                if now < expires and not self._removed:
                    self._idle.add(connection, now, expires)
                    return
        connection.fail(UpstreamConnectError("the connection is not kept"))

    def is_shared(self) -> bool:
        """Whether there is more than one connection: several threads use the pool at once."""
        return len(self._alive) > 1

    def discard(self, connection: C) -> None:
        """Remove a closed connection and free its slot."""
        with self._lock:
            self._alive.discard(connection)
            self._free_slot()

    def sweep(self, now: float) -> bool:
        """Close expired idle connections; True when the pool is empty, and keeps no connection from then on."""
        with self._lock:
            expired = self._idle.remove_expired(now)
        for connection in expired:
            connection.fail(UpstreamConnectError(IDLE_TIMEOUT))
        with self._lock:
            # A request that got the pool before it was removed may still use it.
            self._removed = not self._size
            return self._removed

    def close(self) -> None:
        """Close every connection; exchanges and waiting requests fail with UpstreamConnectError."""
        with self._lock:
            self._closed = True
            idle = self._idle.clear()
            busy = self._alive.difference(idle)
            waiters = list(self._waiters)
            self._waiters.clear()
        for waiter in waiters:
            waiter.put(client_closed())
        for connection in idle:
            connection.fail(client_closed())
        for connection in busy:
            connection.abort(client_closed())

    def abandon(self) -> None:
        """In a forked child: see `PooledConnection.abandon`."""
        # Without the lock: a thread of the parent may have held it at the fork.
        self._closed = True
        for connection in self._alive:
            connection.abandon(UpstreamConnectError("the process was forked during the exchange"))

    def _enqueue(self, fresh: bool) -> Waiter[C]:
        """Join the queue; the waiter holds a connection or a slot at once when there is one."""
        # Looked up now: in an app that was loaded before gevent patched it, the other one would stop all greenlets.
        waiter: Waiter[C] = queue.SimpleQueue()
        oldest = None
        with self._lock:
            if self._closed:
                raise client_closed()
            if not fresh and (found := self._idle.take(monotonic())) is not None:
                # Released since `take` was called.
                waiter.put(found[0])
                return waiter
            if self.circuit_breakers is not None:
                check_pending(self._connecting + len(self._waiters), self._limits, self.origin, self.circuit_breakers)
            if self._size >= self._limits.max_connections:
                if not self._idle:
                    check_pending(len(self._waiters), self._limits, self.origin, self.circuit_breakers)
                    self._waiters.append(waiter)
                    return waiter
                oldest = self._idle.remove_oldest()
            self._size += 1
            self._grant_slot(waiter)
        if oldest is not None:
            oldest.fail(UpstreamConnectError(EVICTED))
        return waiter

    def _grant_slot(self, waiter: Waiter[C]) -> None:
        # Counted under the same lock, so that no second request passes the circuit breakers before this one connects.
        self._connecting += 1
        waiter.put(None)

    def _free_slot(self) -> None:
        if self._waiters:
            self._grant_slot(self._waiters.popleft())
        else:
            self._size -= 1

    def _wait(self, waiter: Waiter[C], deadline: float) -> C | None:
        """Wait for a connection, or for a slot, which is None."""
        timeout = None if deadline == math.inf else min(max(deadline - monotonic(), 0.0), MAX_TIMEOUT)
        try:
            grant = waiter.get(timeout=timeout)
        except queue.Empty:
            with self._lock, suppress(ValueError):
                self._waiters.remove(waiter)
                raise pool_timeout(self.origin) from None
            # Granted in the moment of the timeout.
            grant = waiter.get_nowait()
        except BaseException:
            self._cancel_wait(waiter)
            raise
        if isinstance(grant, Exception):
            raise grant
        return grant

    def _cancel_wait(self, waiter: Waiter[C]) -> None:
        """Leave the queue, or release what was granted in the moment of the interruption."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                return
        with suppress(queue.Empty):
            grant = waiter.get_nowait()
            if grant is None:
                self._return_slot()
            elif not isinstance(grant, Exception):
                self.release(grant)

    def _return_slot(self) -> None:
        with self._lock:
            self._connecting -= 1
            self._free_slot()

    def _connect(self, deadline: float, connect_timeout: float) -> C:
        """Open a connection in the slot of the caller. A failure frees the slot."""
        try:
            connection = self._open_connection(deadline, connect_timeout)
        except BaseException:
            self._return_slot()
            raise
        with self._lock:
            self._connecting -= 1
            self._alive.add(connection)
            if not self._closed:
                return connection
        connection.fail(client_closed())
        raise client_closed()

    def _open_connection(self, deadline: float, connect_timeout: float) -> C:
        # First, so that reading certificates does not use up the time for connecting.
        security = self._secure(self.origin)
        started = monotonic()
        limit = min(started + connect_timeout, deadline)
        if security.context is not self._context:
            self._retire_connections(security.context, started)
        try:
            sock = connect(self.origin, security, limit)
        except (OSError, ValueError, OverflowError) as exc:
            raise connect_error(exc, self.origin, connect_timeout, at_deadline=limit == deadline) from exc
        connection = self._make(self, sock)
        connection.opened_at = started
        return connection

    def _retire_connections(self, context: ssl.SSLContext | None, now: float) -> None:
        """After a change of TLS settings: close idle connections now, and the others when they are released."""
        with self._lock:
            self._context = context
            self._outdated_before = max(self._outdated_before, now)
            idle = self._idle.clear()
        for connection in idle:
            connection.fail(UpstreamConnectError(CERTIFICATES_CHANGED))
