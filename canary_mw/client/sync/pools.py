"""The pools of a client for threads, one for each origin."""

import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from canary_mw.client.held import Held, held_by
from canary_mw.client.limits import Limits
from canary_mw.client.sync.pool import SyncPool
from canary_mw.client.sync.pooled import PooledConnection
from canary_mw.client.tls import TLSContexts
from canary_mw.forking import after_fork
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.locks import new_lock
from canary_mw.rules.upstream import CircuitBreakers, Origin

# Seconds between two searches for connections that were idle for too long.
_SWEEP_INTERVAL = 1.0

C = TypeVar("C", bound=PooledConnection)


class SyncPools(Generic[C]):
    """What the clients for threads have in common. Any thread may use it.

    Pools are chosen as in `HTTP11Client`. Expired idle connections are closed by later requests, not by a timer. A
    forked child starts without connections: the descriptors of its parent's are closed in it, and nothing is sent.

    Args:
        limits: see `Limits`.
        contexts: TLS settings of https origins.
        make: makes a connection of a socket that is connected.
    """

    __slots__ = ("__weakref__", "_closed", "_contexts", "_limits", "_make", "_pools", "_sweep_at", "_sweep_lock")

    def __init__(self, limits: Limits, contexts: TLSContexts, make: Callable[[SyncPool[C], socket.socket], C]) -> None:
        self._limits = limits
        self._contexts = contexts
        self._make = make
        self._pools: dict[Origin | tuple[Origin, CircuitBreakers], SyncPool[C]] = {}
        self._sweep_at = monotonic() + _SWEEP_INTERVAL
        self._sweep_lock = new_lock()
        self._closed = False
        _clients.add(self)

    def held(self) -> dict[Origin, Held]:
        """What is held, by origin; any thread may ask."""
        return held_by(list(self._pools.values()))

    def close(self) -> None:
        """Close every connection. Exchanges in progress raise UpstreamConnectError."""
        self._closed = True
        for pool in list(self._pools.values()):
            pool.close()

    def abandon(self) -> None:
        """In a forked child: drop the connections of the parent."""
        pools, self._pools = self._pools, {}
        self._sweep_lock = new_lock()
        for pool in pools.values():
            pool.abandon()

    def _acquire(self, origin: Origin, request: UpstreamRequest, deadline: float, *, fresh: bool = False) -> C:
        options = request.options
        if options.idle_timeout is not None:
            # Nothing is sent or received while the request waits for a connection.
            deadline = min(deadline, monotonic() + options.idle_timeout)
        if request.timeout is not None and request.timeout_ends_at_head:
            deadline = min(deadline, monotonic() + request.timeout)
        return self._pool(origin, options.circuit_breakers).acquire(deadline, request.connect_timeout, fresh=fresh)

    def _pool(self, origin: Origin, circuit_breakers: CircuitBreakers | None = None) -> SyncPool[C]:
        key = origin if circuit_breakers is None else (origin, circuit_breakers)
        pool = self._pools.get(key)
        if pool is None:
            made = SyncPool(origin, self._limits, self._make, self._contexts, circuit_breakers)
            pool = self._pools.setdefault(key, made)
            if self._closed:
                # `close` may have closed the other pools before this one was added.
                pool.close()
        return pool

    def _sweep(self, now: float) -> None:
        """Close expired idle connections, and remove the pools that are empty."""
        if not self._sweep_lock.acquire(blocking=False):
            # Another thread sweeps. Two at once could remove a pool that was added after the other removed its key.
            return
        try:
            self._sweep_at = now + _SWEEP_INTERVAL
            for key, pool in list(self._pools.items()):
                if pool.sweep(now):
                    del self._pools[key]
        finally:
            self._sweep_lock.release()


def _abandon_all() -> None:
    for client in list(_clients):
        client.abandon()


_clients: "WeakSet[SyncPools[Any]]" = WeakSet()
after_fork(_abandon_all)
