"""The connections to one gRPC server, for asyncio, and the calls that wait for room on them.

As long as one connection has room for a call, there is no second one; one is opened at a time.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from canary_mw.client.aio.connect import open_connection
from canary_mw.client.aio.grpc_connection import GrpcConnection
from canary_mw.client.grpc.requests import check_protocol
from canary_mw.client.limits import (
    IDLE_TIMEOUT,
    Limits,
    check_pending,
    client_closed,
    connect_error,
    limits_under,
    pool_timeout,
)
from canary_mw.client.tls import ConnectionSecurity
from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamTimeout
from canary_mw.rules.upstream import CircuitBreakers, Origin, UpstreamOptions


class Channel:
    """The connections to one server. Belongs to one event loop.

    Args:
        origin: where they lead.
        limits: see `Limits`.
        secure: returns the TLS settings of a new connection. When they change, older connections get no new call.
        alive: connections of any origin whose transport is open; see `GrpcConnection`.
        on_empty: called when neither connections nor waiting calls are left.
        circuit_breakers: lower limits.
    """

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        secure: Callable[[Origin], ConnectionSecurity],
        alive: set[GrpcConnection],
        on_empty: Callable[["Channel"], object],
        circuit_breakers: CircuitBreakers | None = None,
    ) -> None:
        self.origin = origin
        self.circuit_breakers = circuit_breakers
        self._limits = limits_under(limits, circuit_breakers)
        self._secure = secure
        self._alive = alive
        self._on_empty = on_empty
        self._loop = asyncio.get_running_loop()
        self._connections: list[GrpcConnection] = []
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._connecting = self._closed = False
        self._keepalive = self._limits.keepalive_expiry
        self._timer: asyncio.TimerHandle | None = None

    async def acquire(self, deadline: float, connect_timeout: float, options: UpstreamOptions) -> GrpcConnection:
        """Return a connection with room for a call, which the caller opens at once.

        Args:
            deadline: loop time at which waiting ends, `math.inf` for never.
            connect_timeout: seconds for one attempt to connect.

        Raises:
            UpstreamConnectError: connecting failed or took too long, or too many calls wait.
            UpstreamOverloaded: a limit of the circuit breakers is reached.
            UpstreamTimeout: the deadline passed.
        """
        if options.keepalive_expiry is not None:
            self._keepalive = options.keepalive_expiry
        security = self._secure(self.origin)
        self._retire_outdated(security, options)
        while (found := self._with_room()) is None:
            if not self._connecting and len(self._connections) < self._limits.max_connections:
                return await self._connect(security, deadline, connect_timeout)
            await self._wait(deadline)
        return found

    def has_room(self, connection: GrpcConnection) -> None:
        """See `Owner`. The call that has waited longest looks again."""
        if self._waiters and connection.room:
            self._wake()
        if not connection.busy and self._timer is None:
            self._timer = self._loop.call_at(self._loop.time() + self._keepalive, self._sweep)

    def discard(self, connection: GrpcConnection) -> None:
        """See `Owner`."""
        with suppress(ValueError):
            self._connections.remove(connection)
        self._wake()
        self._forget_if_empty()

    def close(self) -> None:
        """Fail the calls that wait. The caller closes the connections."""
        self._closed = True
        self._fail_waiters(client_closed())

    def _with_room(self) -> GrpcConnection | None:
        return next((each for each in self._connections if each.room), None)

    def _retire_outdated(self, security: ConnectionSecurity, options: UpstreamOptions) -> None:
        """After a change of TLS settings, and at their age: they end when their calls have ended."""
        lifetime = options.max_connection_lifetime
        oldest = -math.inf if lifetime is None else self._loop.time() - lifetime
        for connection in list(self._connections):
            if connection.context is not security.context or connection.opened_at <= oldest:
                connection.retire()

    async def _wait(self, deadline: float) -> None:
        check_pending(len(self._waiters), self._limits, self.origin, self.circuit_breakers)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        timer = None if deadline == math.inf else self._loop.call_at(deadline, self._expire, waiter)
        try:
            await waiter
        except BaseException:
            with suppress(ValueError):
                self._waiters.remove(waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Woken in the moment of its cancellation: the next one has its turn.
                self._wake()
            self._forget_if_empty()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_exception(pool_timeout(self.origin))

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        for _ in range(len(self._waiters)):
            self._wake()

    def _fail_waiters(self, error: UpstreamError) -> None:
        """An error of its own for each, since what tries again writes into it."""
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(type(error)(str(error)))

    async def _connect(self, security: ConnectionSecurity, deadline: float, connect_timeout: float) -> GrpcConnection:
        self._connecting = True
        try:
            connection = await self._open_connection(security, deadline, connect_timeout)
        except BaseException as exc:
            self._connecting = False
            # Those that wait for the same connection have failed with it, unless it was this call that took too long.
            if isinstance(exc, UpstreamError) and not isinstance(exc, UpstreamTimeout):
                self._fail_waiters(exc)
            else:
                self._wake()
            self._forget_if_empty()
            raise
        self._connecting = False
        self._connections.append(connection)
        connection.register()
        self._wake_all()
        return connection

    async def _open_connection(
        self, security: ConnectionSecurity, deadline: float, connect_timeout: float
    ) -> GrpcConnection:
        origin = self.origin
        limit = min(self._loop.time() + connect_timeout, deadline)
        try:
            async with asyncio.timeout_at(None if limit == math.inf else limit):
                connection = await open_connection(
                    lambda: GrpcConnection(self, origin.authority, security.context, self._alive), origin, security
                )
        except (OSError, ValueError, OverflowError) as exc:
            raise connect_error(exc, origin, connect_timeout, at_deadline=limit == deadline) from exc
        try:
            if self._closed:
                raise client_closed()
            check_protocol(origin, connection.selected_protocol)
        except UpstreamConnectError as exc:
            connection.fail(exc)
            raise
        if connection.closed:
            raise UpstreamConnectError(f"{origin.authority}: closed the connection at once")
        return connection

    def _sweep(self) -> None:
        """Close the connections that were idle for too long; look again when the next one may be."""
        self._timer = None
        now = self._loop.time()
        idle = [each for each in self._connections if not each.busy]
        for connection in idle:
            if now >= connection.idle_since + self._keepalive:
                connection.fail(UpstreamConnectError(IDLE_TIMEOUT))
        left = [each.idle_since for each in idle if not each.closed]
        if left:
            self._timer = self._loop.call_at(min(left) + self._keepalive, self._sweep)

    def _forget_if_empty(self) -> None:
        if not self._connections and not self._waiters and not self._connecting:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._on_empty(self)
