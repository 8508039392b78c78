"""The connection pool of one origin: idle connections, slots, and requests that wait for either.

A slot is the right to hold one connection, open or being opened; there are `Limits.max_connections` of them. A released
connection or slot is given directly to the first waiting request: requests are served in order, and no wake-up is lost.
"""

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from canary_mw.client.aio.connect import open_connection
from canary_mw.client.aio.connection import Connection
from canary_mw.client.aio.timed_parser import TIMER_SLACK
from canary_mw.client.held import Held
from canary_mw.client.idle import IdleConnections
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
from canary_mw.client.tls import ConnectionSecurity
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.rules.upstream import CircuitBreakers, Origin


class Pool:
    """A connection pool. Belongs to one event loop.

    Args:
        origin: where the connections lead.
        limits: see `Limits`.
        secure: returns the TLS settings of a new connection. When they change, older connections get no new request.
        alive: connections of any origin whose transport is open; see `Connection`.
        on_empty: called when neither connections nor waiting requests are left.
        circuit_breakers: lower limits. As in Envoy, a request that opens a connection counts as pending then, and one
            connection is always allowed.
    """

    __slots__ = (
        "_alive",
        "_closed",
        "_connecting",
        "_context",
        "_idle",
        "_limits",
        "_loop",
        "_on_empty",
        "_outdated_before",
        "_secure",
        "_size",
        "_timer",
        "_timer_at",
        "_waiters",
        "circuit_breakers",
        "origin",
    )

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        secure: Callable[[Origin], ConnectionSecurity],
        alive: set[Connection],
        on_empty: Callable[["Pool"], object],
        circuit_breakers: CircuitBreakers | None = None,
    ) -> None:
        self.origin = origin
        self.circuit_breakers = circuit_breakers
        self._limits = limits_under(limits, circuit_breakers)
        self._secure = secure
        self._context: ssl.SSLContext | None = None
        self._outdated_before = -math.inf
        self._alive = alive
        self._on_empty = on_empty
        self._loop = asyncio.get_running_loop()
        self._idle: IdleConnections[Connection] = IdleConnections()
        self._size = 0
        self._connecting = 0
        self._closed: Exception | None = None
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def held(self) -> Held:
        """See `HoldingPool`."""
        return Held(self._size, len(self._waiters))

    def take(self) -> Connection | None:
        """Take an idle connection, or None; `IdleConnections` says which."""
        found = self._idle.take(self._loop.time())
        return None if found is None else found[0]

    async def acquire(self, deadline: float, connect_timeout: float, *, fresh: bool = False) -> Connection:
        """Take an idle connection, open a new one, or wait for one.

        Args:
            deadline: loop time at which waiting ends, `math.inf` for never.
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
            if self.circuit_breakers is not None:
                check_pending(self._connecting + len(self._waiters), self._limits, self.origin, self.circuit_breakers)
            if self._size < self._limits.max_connections:
                self._size += 1
            elif self._idle:
                self._size += 1
                self._idle.remove_oldest().fail(UpstreamConnectError(EVICTED))
            elif (granted := await self._wait(deadline)) is not None:
                if granted.closed:
                    continue
                return granted
            return await self._connect(deadline, connect_timeout)

    def release(self, connection: Connection) -> None:
        """Take back a reusable connection."""
        connection.reused = True
        if connection.opened_at < self._outdated_before:
            connection.fail(UpstreamConnectError("the certificates have changed since it was opened"))
            return
        options = connection.options
        now = self._loop.time()
        if (
            options.max_connection_lifetime is not None
            and now >= connection.opened_at + options.max_connection_lifetime - TIMER_SLACK
        ):
            connection.fail(UpstreamConnectError("the connection was too old to be kept"))
            return
        if self._waiters and self._give_to_waiter(connection):
            return
        keep = self._limits.keepalive_expiry if options.keepalive_expiry is None else options.keepalive_expiry
        if keep <= 0:
            connection.fail(UpstreamConnectError("idle connections are not kept"))
            return
        expires = now + keep
        if options.max_connection_lifetime is not None:
            expires = min(expires, connection.opened_at + options.max_connection_lifetime)
        self._idle.add(connection, now, expires)
        if expires < self._timer_at:
            self._arm(expires)

    def discard(self, connection: Connection) -> None:
        """Remove a closed connection and free its slot."""
        self._idle.discard(connection)
        self._free_slot()

    def close(self, error: Exception) -> None:
        """Fail the requests that wait for a connection or open one. The caller closes the open connections."""
        self._closed = error
        self._stop_timer()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def _arm(self, when: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_at(when, self._sweep)
        self._timer_at = when

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf

    def _free_slot(self) -> None:
        if self._give_to_waiter(None):
            return
        self._size -= 1
        if not self._size:
            self._stop_timer()
            self._on_empty(self)

    def _give_to_waiter(self, connection: Connection | None) -> bool:
        """Give a connection, or None for a slot, to the first waiting request; False when none waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    async def _wait(self, deadline: float) -> Connection | None:
        """Wait for a connection, or for a slot, which is None."""
        check_pending(len(self._waiters), self._limits, self.origin, self.circuit_breakers)
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        timer = None if deadline == math.inf else self._loop.call_at(deadline, self._expire, waiter)
        try:
            return await waiter
        except BaseException:
            self._pass_on(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, waiter: asyncio.Future[Connection | None]) -> None:
        if not waiter.done():
            waiter.set_exception(pool_timeout(self.origin))

    def _pass_on(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Release what was given to a waiter in the moment of its cancellation."""
        if waiter.cancelled() or waiter.exception() is not None:
            with suppress(ValueError):
                self._waiters.remove(waiter)
            return
        granted = waiter.result()
        if granted is None:
            self._free_slot()
        elif not granted.closed:
            self.release(granted)

    async def _connect(self, deadline: float, connect_timeout: float) -> Connection:
        """Open a connection in the slot of the caller. A failure frees the slot."""
        self._connecting += 1
        try:
            connection = await self._open_connection(deadline, connect_timeout)
        except BaseException:
            self._free_slot()
            raise
        finally:
            self._connecting -= 1
        connection.register()
        return connection

    async def _open_connection(self, deadline: float, connect_timeout: float) -> Connection:
        origin = self.origin
        # First, so that reading certificates does not use up the time for connecting.
        security = self._secure(origin)
        started = self._loop.time()
        limit = min(started + connect_timeout, deadline)
        if security.context is not self._context:
            self._retire_connections(security.context, started)
        try:
            # asyncio.timeout_at is affordable here: once per connection, not per request.
            async with asyncio.timeout_at(None if limit == math.inf else limit):
                connection = await open_connection(
                    lambda: Connection(self, origin.authority, self._limits.max_head, self._alive), origin, security
                )
        except (OSError, ValueError, OverflowError) as exc:
            raise connect_error(exc, origin, connect_timeout, at_deadline=limit == deadline) from exc
        if self._closed is not None:
            connection.fail(self._closed)
            raise self._closed
        if connection.closed:
            raise UpstreamConnectError(f"{origin.authority}: closed the connection at once")
        connection.opened_at = started
        return connection

    def _retire_connections(self, context: ssl.SSLContext | None, now: float) -> None:
        """After a change of TLS settings: close idle connections now, and the others when they are released."""
        self._context = context
        self._outdated_before = now
        for connection in self._idle.clear():
            connection.fail(UpstreamConnectError(CERTIFICATES_CHANGED))

    def _sweep(self) -> None:
        """Close expired idle connections, and set the timer for the next one."""
        self._timer = None
        self._timer_at = math.inf
        now = self._loop.time() + TIMER_SLACK
        for connection in self._idle.remove_expired(now):
            connection.fail(UpstreamConnectError(IDLE_TIMEOUT))
        if (expires := self._idle.next_expiry()) is not None:
            self._arm(expires)
