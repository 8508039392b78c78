"""The endpoints of a service: which exist, which of them are healthy, and which one gets the next request.

As in Envoy, names are looked up again and again in the background (`strict_dns`). An endpoint that keeps failing is
ejected for a time (`outlier_detection`), one that fails its `health_checks` gets no requests until it passes them. With
more than half of the endpoints unhealthy, all of them are used (panic threshold 50 %). All numbers are per process.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from canary_mw.exceptions import UpstreamError
from canary_mw.host import HostLogger
from canary_mw.locks import new_rlock
from canary_mw.rules.upstream import EndpointOptions, Origin, OutlierDetection
from canary_mw.upstreams.discovery.dns import OriginResolver, pause_after
from canary_mw.upstreams.discovery.interface import Resolver, Sleep
from canary_mw.upstreams.environment import Environment
from canary_mw.upstreams.health import Endpoint, HealthState
from canary_mw.upstreams.lease import Lease
from canary_mw.upstreams.load_balancers import HashTable, hash_table, pick

logger = HostLogger(logging.getLogger("canary_mw.endpoints"))

# Seconds without a request after which the background tasks of a set end. Nothing reports that a Mapping was removed.
IDLE_AFTER = 300.0

Pause = Callable[[float, Sleep], Awaitable[float]]


class EndpointSet:
    """The endpoints of one service under one `EndpointOptions`.

    It belongs to one event loop; any thread may call `lease_nowait`, `next_untried`, `record` and the leases. The
    background tasks start with the first request. They end with `aclose`, or after `IDLE_AFTER` without a request.

    Args:
        origins: where the service is; each name among them may have several addresses.
        environment: shared with the other sets of the loop.
        look_up: False leaves names to the transport that opens the connections.
        resolver: finds the endpoints in place of look-ups by DNS.

    Attributes:
        endpoints: all that are known, healthy or not.
        ejections: how many there were.
        counts_in_flight: see `Lease.keep`.
    """

    def __init__(
        self,
        origins: Sequence[Origin],
        options: EndpointOptions,
        environment: Environment,
        *,
        look_up: bool = True,
        resolver: Resolver | None = None,
    ) -> None:
        self.endpoints: list[Endpoint] = []
        self.ejections = 0
        self.counts_in_flight = options.load_balancer.policy == "least_request"
        self._options = options
        self._environment = environment
        self._resolver: Resolver = resolver or OriginResolver(origins, environment.resolve, look_up=look_up)
        self._turn = int(environment.random() * 65536)
        self._uses = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._first_lookup: asyncio.Future[None] | None = None
        # Names that were not looked up since the start of the tasks, and look-ups in a row that failed.
        self._unanswered: set[Origin] = set()
        self._failures: dict[Origin, int] = {}
        self._ready = False
        self._only: Origin | None = None
        self._usable: tuple[list[Endpoint], HashTable | None] = ([], None)
        self._next_return = math.inf
        # Leases of other threads change counts and ejections, too.
        self.lock = new_rlock()
        if not self._resolver.names and not options.health_checks:
            self._update_endpoints()

    @property
    def may_eject(self) -> bool:
        """Whether endpoints that keep failing are ejected; `ejections` counts that."""
        return self._options.outlier_detection is not None

    def only_endpoint(self) -> Origin | None:
        """The only endpoint, None if there are several or none is known; a request to it needs no lease."""
        self._uses += 1
        return self._only

    async def lease(self, key: int | None, deadline: float, connect_timeout: float) -> "Lease":
        """The endpoint for one request; waits only while no endpoint is known.

        Args:
            key: the hash that a hashing policy uses; see `hash_policy.hash_key`.
            deadline: loop time at which waiting ends.
            connect_timeout: seconds after which it ends, too.

        Raises:
            UpstreamConnectError: no address is known.
            UpstreamTimeout: the deadline passed before one was known.
        """
        lease = self.lease_nowait(key)
        if lease is None:
            await self._wait_ready(deadline, connect_timeout)
            lease = self.lease_nowait(key)
            assert lease is not None
        return lease

    def lease_nowait(self, key: int | None) -> "Lease | None":
        """The endpoint for one request, None while none is known; any thread may call it."""
        self._uses += 1
        if not self._ready:
            return None
        if self._next_return != math.inf and self._environment.clock() >= self._next_return:
            self._update_usable()
        self._turn += 1
        policy = self._options.load_balancer.policy
        usable, table = self._usable
        if not usable:
            return None
        return Lease(self, usable[pick(policy, usable, table, key, self._turn, self._environment.random)])

    def next_untried(self, tried: Sequence[Origin]) -> "Lease | None":
        """A usable endpoint that is not among those tried, None if there is none; any thread may call it."""
        left = [endpoint for endpoint in self._usable[0] if endpoint.origin not in tried]
        return Lease(self, left[self._turn % len(left)]) if left else None

    def record(self, endpoint: Endpoint, status: int) -> None:
        """Count the status of a response, or for an error the status that Envoy would have sent."""
        settings = self._options.outlier_detection
        if settings is not None:
            with self.lock:
                seconds = self._record(endpoint, status, settings)
            # Without the lock: handlers may write to anywhere.
            if seconds is not None:
                logger.warning("%s (%s) keeps failing: ejected for %g s", endpoint.origin.host, endpoint.name, seconds)

    def _record(self, endpoint: Endpoint, status: int, settings: OutlierDetection) -> float | None:
        """Seconds for which the endpoint is ejected now, None if it is not."""
        if not endpoint.record(status, settings):
            return None
        now = self._environment.clock()
        ejected = sum(each.ejected_until > now for each in self.endpoints)
        too_many = (ejected + 1) * 100 > settings.max_ejection_percent * len(self.endpoints)
        if endpoint.ejected_until > now or (ejected and too_many):
            return None
        seconds = endpoint.eject(now, settings)
        self.ejections += 1
        self._update_usable()
        return seconds

    async def aclose(self) -> None:
        """End the background tasks; a later request starts them again."""
        tasks = self._tasks
        self._stop()
        if tasks:
            await asyncio.wait(tasks)

    def close_after_loop(self) -> None:
        """Drop the background tasks after their loop was closed: they can be neither cancelled nor run to their end."""
        for task in self._tasks:
            # Else asyncio logs an error about the task.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if coroutine := task.get_coro():  # an eager task that has ended has none
                with suppress(RuntimeError):
                    coroutine.close()
        self._tasks = set()

    async def _wait_ready(self, deadline: float, connect_timeout: float) -> None:
        loop = asyncio.get_running_loop()
        if not self._tasks:
            self._start(loop)
        until = min(deadline, loop.time() + connect_timeout)
        in_time = self._first_lookup is None or await _done_before(self._first_lookup, until, loop)
        if self._ready:
            return
        self._update_endpoints()
        if not self.endpoints:
            raise self._resolver.error(at_deadline=not in_time and until == deadline)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the background tasks; health states from before `_stop` are dropped."""
        self._first_lookup = loop.create_future()
        for endpoint in self.endpoints:
            endpoint.health_states = self._new_health_states(healthy=True)
        self._unanswered = set(self._resolver.names)
        self._failures.clear()
        for origin in self._resolver.names:
            self._tasks.add(loop.create_task(self._repeat(partial(self._look_up, origin), self._resolver.pause)))
        if not self._resolver.names:
            self._update_endpoints()
        for number in range(len(self._options.health_checks)):
            self._tasks.add(loop.create_task(self._repeat(partial(self._check_all, number), _pause)))

    def _stop(self) -> None:
        self._end_first_lookup()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        if self._tasks:
            self._tasks = set()
            self._ready = False
            self._only = None

    async def _repeat(self, step: Callable[[], Awaitable[float]], pause: Pause) -> None:
        """Call a function again and again while requests come; it returns the seconds to the next call at latest."""
        uses, unused = self._uses, 0.0
        while unused < IDLE_AFTER:
            paused = await pause(await step(), self._environment.sleep)
            unused = unused + paused if uses == self._uses else 0.0
            uses = self._uses
        self._stop()

    async def _look_up(self, origin: Origin) -> float:
        """Look a name up; returns the seconds to its next look-up."""
        if await self._resolver.look_up(origin):
            self._failures.pop(origin, None)
            self._update_endpoints()
        else:
            self._failures[origin] = self._failures.get(origin, 0) + 1
        self._unanswered.discard(origin)
        if not self._unanswered:
            self._end_first_lookup()
        failures, interval = self._failures.get(origin, 0), self._environment.dns_interval
        return pause_after(failures, interval, known=bool(self.endpoints))

    def _end_first_lookup(self) -> None:
        if self._first_lookup is not None and not self._first_lookup.done():
            self._first_lookup.set_result(None)

    def _update_endpoints(self) -> None:
        """Use the origins that are resolved now; an endpoint that stays keeps its state."""
        origins = self._resolver.resolved()
        if origins is None:
            return
        known = {endpoint.origin: endpoint for endpoint in self.endpoints}
        # One that joins others which were checked has to pass, too, before it gets requests.
        healthy = not any(state.checked for endpoint in self.endpoints for state in endpoint.health_states)
        with self.lock:
            self.endpoints = [
                known.get(origin) or Endpoint(origin, self._new_health_states(healthy=healthy)) for origin in origins
            ]
            self._only = origins[0] if len(origins) == 1 else None
            self._update_usable()
            self._ready = bool(origins)
        self._end_first_lookup()

    def _new_health_states(self, *, healthy: bool) -> list[HealthState]:
        return [HealthState(healthy) for _ in self._options.health_checks]

    def _update_usable(self) -> None:
        """Choose the endpoints that get requests, and when to choose again: at the end of the next ejection."""
        with self.lock:
            now = self._environment.clock()
            healthy = [endpoint for endpoint in self.endpoints if endpoint.is_healthy(now)]
            usable = healthy if 2 * len(healthy) >= len(self.endpoints) else self.endpoints
            ejected = [each.ejected_until for each in self.endpoints if each.ejected_until > now]
            self._next_return = min(ejected, default=math.inf)
            names = tuple(endpoint.name for endpoint in usable)
            table = hash_table(self._options.load_balancer.policy, names) if names else None
            # One assignment: a thread that reads it gets endpoints and the table that belongs to them.
            self._usable = usable, table

    async def _check_all(self, number: int) -> float:
        """One round of a health check, which begins when addresses are known."""
        if not self.endpoints and self._first_lookup is not None:
            await asyncio.wait({self._first_lookup})
        await asyncio.gather(*(self._check(endpoint, number) for endpoint in self.endpoints))
        return self._options.health_checks[number].interval

    async def _check(self, endpoint: Endpoint, number: int) -> None:
        check = self._options.health_checks[number]
        try:
            status = await self._environment.check_health(endpoint.origin, check)
        except UpstreamError:
            status = 0
        passed = any(low <= status <= high for low, high in check.statuses)
        if endpoint.health_states[number].record(passed, status > 0, check):
            passes = "passes" if passed else "does not pass"
            logger.warning("%s (%s) %s its health check", endpoint.origin.host, endpoint.name, passes)
            self._update_usable()


async def _pause(seconds: float, sleep: Sleep) -> float:
    await sleep(seconds)
    return seconds


async def _done_before(future: asyncio.Future[None], until: float, loop: asyncio.AbstractEventLoop) -> bool:
    if not future.done():
        await asyncio.wait({future}, timeout=None if until == math.inf else until - loop.time())
    return future.done()
