"""Connections of one origin: the idle ones, the slots, and the requests that wait for either.

A slot is the right to hold one connection, open or being opened; there are `Limits.max_connections` of them. Whoever
gives a connection or a slot back hands it straight to the first that waits: nobody overtakes, no wake-up is lost.
"""

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from canary_mw.client.aio.connection import Connection
from canary_mw.client.aio.timed_parser import TIMER_SLACK
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
    """See the module; belongs to one event loop.

    Args:
        origin: where the connections go.
        limits: see `Limits`.
        secure: how a new connection is secured; when that changes, those from before take no new request.
        alive: connections of any origin whose transport is open; see `Connection`.
        emptied: called when neither connections nor waiting requests are left.
        breakers: narrower limits; as in Envoy, a request that opens its connection is pending too then, and one
            connection is always allowed.
    """

    __slots__ = (
        "_alive",
        "_closed",
        "_connecting",
        "_context",
        "_emptied",
        "_idle",
        "_limits",
        "_loop",
        "_outdated",
        "_secure",
        "_size",
        "_timer",
        "_timer_at",
        "_waiters",
        "breakers",
        "origin",
    )

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        secure: Callable[[Origin], ConnectionSecurity],
        alive: set[Connection],
        emptied: Callable[["Pool"], object],
        breakers: CircuitBreakers | None = None,
    ) -> None:
        self.origin = origin
        self.breakers = breakers
        self._limits = limits_under(limits, breakers)
        self._secure = secure
        self._context: ssl.SSLContext | None = None
        self._outdated = -math.inf
        self._alive = alive
        self._emptied = emptied
        self._loop = asyncio.get_running_loop()
        # Until when each is kept. Insertion order is the order of giving back: popitem() takes the warmest.
        self._idle: dict[Connection, float] = {}
        self._size = 0
        self._connecting = 0
        self._closed: Exception | None = None
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def take(self) -> Connection | None:
        """The idle connection that was used last, or None."""
        return self._idle.popitem()[0] if self._idle else None

    async def acquire(self, deadline: float, connect_timeout: float, *, fresh: bool = False) -> Connection:
        """A connection that is ours alone.

        Args:
            deadline: loop time at which waiting ends, `math.inf` for never.
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
            if self.breakers is not None:
                check_pending(self._connecting + len(self._waiters), self._limits, self.origin, self.breakers)
            if self._size < self._limits.max_connections:
                self._size += 1
            elif self._idle:
                self._size += 1
                self._close_oldest()
            elif (handed := await self._wait(deadline)) is not None:
                if handed.closed:
                    continue
                return handed
            return await self._connect(deadline, connect_timeout)

    def release(self, connection: Connection) -> None:
        """Give back a connection that may serve again."""
        connection.reused = True
        if connection.since < self._outdated:
            connection.fail(UpstreamConnectError("the certificates have changed since it was opened"))
            return
        options = connection.options
        now = self._loop.time()
        if options.lifetime is not None and now >= connection.since + options.lifetime - TIMER_SLACK:
            connection.fail(UpstreamConnectError("the connection was too old to be kept"))
            return
        if self._hand_over(connection):
            return
        keep = self._limits.keepalive_idle if options.keepalive_idle is None else options.keepalive_idle
        if keep <= 0:
            connection.fail(UpstreamConnectError("idle connections are not kept"))
            return
        expires = now + keep
        if options.lifetime is not None:
            expires = min(expires, connection.since + options.lifetime)
        self._idle[connection] = expires
        if expires < self._timer_at:
            self._arm(expires)

    def discard(self, connection: Connection) -> None:
        """A connection was closed; its slot is free."""
        self._idle.pop(connection, None)
        self._free_slot()

    def close(self, error: Exception) -> None:
        """Fail with `error` whoever waits for a connection or opens one; the open ones are the caller's to close."""
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
        if self._hand_over(None):
            return
        self._size -= 1
        if not self._size:
            self._stop_timer()
            self._emptied(self)

    def _hand_over(self, thing: Connection | None) -> bool:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(thing)
                return True
        return False

    async def _wait(self, deadline: float) -> Connection | None:
        """A connection, or None for a slot that is now ours."""
        check_pending(len(self._waiters), self._limits, self.origin, self.breakers)
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        timer = None if deadline == math.inf else self._loop.call_at(deadline, self._expire, waiter)
        try:
            return await waiter
        except BaseException:
            self._return_of(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, waiter: asyncio.Future[Connection | None]) -> None:
        if not waiter.done():
            waiter.set_exception(pool_timeout(self.origin))

    def _return_of(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Pass on what a waiter was given but, being cancelled in the same moment, cannot use."""
        if waiter.cancelled() or waiter.exception() is not None:
            with suppress(ValueError):
                self._waiters.remove(waiter)
            return
        handed = waiter.result()
        if handed is None:
            self._free_slot()
        elif not handed.closed:
            self.release(handed)

    async def _connect(self, deadline: float, connect_timeout: float) -> Connection:
        """Open a connection into the slot that the caller holds; the slot is freed when that fails."""
        self._connecting += 1
        try:
            connection = await self._open_one(deadline, connect_timeout)
        except BaseException:
            self._free_slot()
            raise
        finally:
            self._connecting -= 1
        connection.register()
        return connection

    async def _open_one(self, deadline: float, connect_timeout: float) -> Connection:
        origin = self.origin
        began = self._loop.time()
        limit = min(began + connect_timeout, deadline)
        security = self._secure(origin)
        if security.context is not self._context:
            self._retire(security.context, began)
        try:
            # A context of its own is affordable here: once per connection, not per request.
            async with asyncio.timeout_at(None if limit == math.inf else limit):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self, origin.authority, self._limits.max_head, self._alive),
                    origin.address or origin.host,
                    origin.port,
                    ssl=security.context,
                    server_hostname=security.name,
                )
        except (OSError, ValueError, OverflowError) as exc:
            raise connect_error(exc, origin, connect_timeout, at_deadline=limit == deadline) from exc
        if self._closed is not None:
            connection.fail(self._closed)
            raise self._closed
        if connection.closed:
            raise UpstreamConnectError(f"{origin.authority}: closed the connection at once")
        connection.since = began
        return connection

    def _retire(self, context: ssl.SSLContext | None, now: float) -> None:
        """From now on connections are secured otherwise: close the idle ones, and the others when they are done."""
        self._context = context
        self._outdated = now
        for connection in list(self._idle):
            connection.fail(UpstreamConnectError(CERTIFICATES_CHANGED))

    def _close_oldest(self) -> None:
        next(iter(self._idle)).fail(UpstreamConnectError(EVICTED))

    def _sweep(self) -> None:
        """Close what was idle for too long; the first of those that stay says when to look again."""
        self._timer = None
        self._timer_at = math.inf
        now = self._loop.time() + TIMER_SLACK
        for connection in [connection for connection, expires in self._idle.items() if expires <= now]:
            connection.fail(UpstreamConnectError(IDLE_TIMEOUT))
        if self._idle:
            self._arm(min(self._idle.values()))
