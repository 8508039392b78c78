"""The endpoints of a service: where its names lead, which of them are well, and whose turn it is.

As in Envoy, names are looked up again and again in the background (`strict_dns`), an endpoint that keeps failing is
left alone for a while (`outlier_detection`) or until it passes its `health_checks`, and when more than half of them are
not well, all of them are used (panic threshold 50 %). All numbers are this process's.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import random
from threading import RLock
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.rules.upstream import EndpointOptions, HealthCheck, Origin, OutlierDetection
from canary_mw.upstreams.circuit_breakers import TrackedResponse
from canary_mw.upstreams.dns import is_looked_up, resolve
from canary_mw.upstreams.health import Endpoint, HealthState
from canary_mw.upstreams.load_balancers import HashTable, hash_table, pick

if TYPE_CHECKING:
    from canary_mw.client.interfaces import UpstreamResponse


logger = logging.getLogger("canary_mw.endpoints")

DNS_INTERVAL = 5.0
# Seconds without a request after which a set rests: so end those of Mappings that are gone, without being told.
IDLE_AFTER = 300.0
_UNKNOWN_INTERVAL = 1.0


class Environment(NamedTuple):
    """What endpoint sets see of the world.

    Attributes:
        resolve: see the function of that name, also for its errors.
        dns_interval: seconds between two look-ups of a name.
        clock: seconds that only grow.
        random: in [0, 1).
    """

    probe: Callable[[Origin, HealthCheck], Awaitable[int]]
    resolve: Callable[[str, int], Awaitable[Sequence[str]]] = resolve
    dns_interval: float = DNS_INTERVAL
    clock: Callable[[], float] = monotonic
    random: Callable[[], float] = random
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


class EndpointSet:
    """The endpoints of one service under one `Balancing`; belongs to one event loop, but for `take` and the leases.

    Its background tasks start with the first request, and end with `aclose` or when no request comes any more.

    Args:
        origins: where the service is; each name among them may stand for several addresses.
        tools: shared with the other sets of the loop.
        look_up: False leaves names to whoever opens the connections.
    """

    def __init__(
        self, origins: Sequence[Origin], balancing: EndpointOptions, tools: Environment, *, look_up: bool = True
    ) -> None:
        self.endpoints: list[Endpoint] = []
        self._balancing = balancing
        self.counts = balancing.load_balancer.policy == "least_request"
        self._tools = tools
        self._given = origins
        self._names = [origin for origin in dict.fromkeys(origins) if look_up and is_looked_up(origin.host)]
        self._found = {origin: [origin] for origin in origins if origin not in self._names}
        self._failed: dict[str, str] = {}
        self._turn = int(tools.random() * 65536)
        self._uses = 0
        self.ejections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked_up: asyncio.Future[None] | None = None
        self._awake = False
        self._only: Origin | None = None
        self._choice: tuple[list[Endpoint], HashTable | None] = ([], None)
        self._until = math.inf
        # Other threads take and record.
        self.lock = RLock()
        if not self._names and not balancing.health_checks:
            self._arrange()

    @property
    def may_eject(self) -> bool:
        """Whether endpoints are left alone when they keep failing; `ejections` says how often they were."""
        return self._balancing.outlier_detection is not None

    def only_endpoint(self) -> Origin | None:
        """The only endpoint, if it is known that there is but one: with nothing to choose, there is nothing to do."""
        self._uses += 1
        return self._only

    async def lease(self, key: int | None, deadline: float, connect_timeout: float) -> "Lease":
        """The endpoint for one request; waits only while none is known.

        Args:
            key: what a hashing policy goes by, see `balancers.hash_key`.
            deadline: loop time at which waiting ends.
            connect_timeout: seconds after which it ends too.

        Raises:
            UpstreamConnectError: no address is known.
            UpstreamTimeout: the deadline passed before one was.
        """
        lease = self.take(key)
        if lease is None:
            await self._wake(deadline, connect_timeout)
            lease = self.take(key)
            assert lease is not None
        return lease

    def take(self, key: int | None) -> "Lease | None":
        """The endpoint for one request, None while none is known; never waits, and any thread may ask."""
        self._uses += 1
        if not self._awake:
            return None
        if self._until != math.inf and self._tools.clock() >= self._until:
            self._review()
        self._turn += 1
        policy = self._balancing.load_balancer.policy
        usable, places = self._choice
        return Lease(self, usable[pick(policy, usable, places, key, self._turn, self._tools.random)])

    def next_untried(self, tried: Sequence[Origin]) -> "Lease | None":
        """An endpoint in use besides those that were tried, None when there is none; any thread may ask."""
        left = [endpoint for endpoint in self._choice[0] if endpoint.origin not in tried]
        return Lease(self, left[self._turn % len(left)]) if left else None

    def record(self, endpoint: Endpoint, status: int) -> None:
        """Count what an endpoint answered, or what Envoy would have answered for it."""
        settings = self._balancing.outlier_detection
        if settings is not None:
            with self.lock:
                self._record(endpoint, status, settings)

    def _record(self, endpoint: Endpoint, status: int, settings: OutlierDetection) -> None:
        if not endpoint.record(status, settings):
            return
        now = self._tools.clock()
        ejected = sum(each.ejected_until > now for each in self.endpoints)
        too_many = (ejected + 1) * 100 > settings.max_ejection_percent * len(self.endpoints)
        if endpoint.ejected_until > now or (ejected and too_many):
            return
        seconds = endpoint.eject(now, settings)
        self.ejections += 1
        logger.warning("%s (%s) keeps failing: left alone for %g s", endpoint.origin.host, endpoint.name, seconds)
        self._review()

    async def aclose(self) -> None:
        """End the background tasks; a later request starts them again."""
        tasks = self._tasks
        self._rest()
        if tasks:
            await asyncio.wait(tasks)

    async def _wake(self, deadline: float, connect_timeout: float) -> None:
        loop = asyncio.get_running_loop()
        if not self._tasks:
            self._start(loop)
        until = min(deadline, loop.time() + connect_timeout)
        in_time = self._looked_up is None or await _done_before(self._looked_up, until, loop)
        if self._awake:
            return
        self._arrange()
        if not self.endpoints:
            raise self._unknown(not in_time and until == deadline)

    def _unknown(self, at_deadline: bool) -> UpstreamError:
        names = ", ".join(origin.host for origin in self._names)
        if at_deadline:
            return UpstreamTimeout(f"{names}: the deadline passed while the name was looked up")
        return UpstreamConnectError("; ".join(self._failed.values()) or f"{names}: the name was not looked up in time")

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, or begin again after a rest; then what was known of the endpoints' health counts no more."""
        self._looked_up = loop.create_future()
        for endpoint in self.endpoints:
            endpoint.health_states = self._standings(True)
        if self._names:
            self._tasks.add(loop.create_task(self._repeat(self._look_up_all)))
        else:
            self._arrange()
        for number in range(len(self._balancing.health_checks)):
            self._tasks.add(loop.create_task(self._repeat(partial(self._check_all, number))))

    def _rest(self) -> None:
        self._let_go()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        if self._tasks:
            self._tasks = set()
            self._awake = False
            self._only = None

    async def _repeat(self, step: Callable[[], Awaitable[float]]) -> None:
        """Do something again and again while requests come; it says when next."""
        uses, unused = self._uses, 0.0
        while unused < IDLE_AFTER:
            pause = await step()
            await self._tools.sleep(pause)
            unused = unused + pause if uses == self._uses else 0.0
            uses = self._uses
        self._rest()

    async def _look_up_all(self) -> float:
        await asyncio.gather(*map(self._look_up, self._names))
        self._let_go()
        return self._tools.dns_interval if self.endpoints else min(self._tools.dns_interval, _UNKNOWN_INTERVAL)

    async def _look_up(self, origin: Origin) -> None:
        """What cannot be found keeps its last addresses."""
        try:
            addresses = await self._tools.resolve(origin.host, origin.port)
        except (OSError, UnicodeError) as exc:
            self._note_failure(origin.host, f"{origin.host}: no address: {exc}")
            return
        self._failed.pop(origin.host, None)
        # Servers deal the addresses out in turn; the order is not to change with every answer.
        self._found[origin] = [origin._replace(address=address) for address in sorted(addresses)]
        self._arrange()

    def _note_failure(self, host: str, text: str) -> None:
        if host not in self._failed:
            logger.warning("%s", text)
        self._failed[host] = text

    def _let_go(self) -> None:
        if self._looked_up is not None and not self._looked_up.done():
            self._looked_up.set_result(None)

    def _arrange(self) -> None:
        """Take what was found; an endpoint that stays keeps its state."""
        origins = dict.fromkeys(origin for given in self._given for origin in self._found.get(given, ()))
        if not origins:
            return
        known = {endpoint.origin: endpoint for endpoint in self.endpoints}
        # One that joins others which were checked has to pass too before it gets requests.
        guess = not any(standing.checked for endpoint in self.endpoints for standing in endpoint.health_states)
        with self.lock:
            self.endpoints = [known.get(origin) or Endpoint(origin, self._standings(guess)) for origin in origins]
            self._only = next(iter(origins)) if len(origins) == 1 else None
            self._review()
            self._awake = True
        self._let_go()

    def _standings(self, well: bool) -> list[HealthState]:
        return [HealthState(well) for _ in self._balancing.health_checks]

    def _review(self) -> None:
        """Choose anew who is to get requests."""
        with self.lock:
            now = self._tools.clock()
            well = [endpoint for endpoint in self.endpoints if endpoint.is_healthy(now)]
            usable = well if 2 * len(well) >= len(self.endpoints) else self.endpoints
            ejected = [each.ejected_until for each in self.endpoints if each.ejected_until > now]
            self._until = min(ejected, default=math.inf)
            names = tuple(endpoint.name for endpoint in usable)
            # One value: who reads it gets endpoints and their table, never the one with the other's.
            self._choice = usable, hash_table(self._balancing.load_balancer.policy, names)

    async def _check_all(self, number: int) -> float:
        """One round of a health check, which begins when addresses are known."""
        if not self.endpoints and self._looked_up is not None:
            await asyncio.wait({self._looked_up})
        await asyncio.gather(*(self._check(endpoint, number) for endpoint in self.endpoints))
        return self._balancing.health_checks[number].interval

    async def _check(self, endpoint: Endpoint, number: int) -> None:
        check = self._balancing.health_checks[number]
        try:
            status = await self._tools.probe(endpoint.origin, check)
        except UpstreamError:
            status = 0
        good = any(low <= status <= high for low, high in check.statuses)
        if endpoint.health_states[number].record(good, status > 0, check):
            passes = "passes" if good else "does not pass"
            logger.warning("%s (%s) %s its health check", endpoint.origin.host, endpoint.name, passes)
            self._review()


class Lease:
    """One request at one endpoint; its block tells how that went, unless an answer does."""

    __slots__ = ("_endpoint", "_kept", "_set")

    def __init__(self, of: EndpointSet, endpoint: Endpoint) -> None:
        self._set = of
        self._endpoint = endpoint
        self._kept = False
        with of.lock:
            endpoint.in_flight += 1

    @property
    def origin(self) -> Origin:
        """Where the request goes."""
        return self._endpoint.origin

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(exc, UpstreamError) and _is_its_fault(exc):
            self._set.record(self._endpoint, exc.status_hint)
        if not self._kept:
            self.release()

    def held_by(self, response: "UpstreamResponse") -> "UpstreamResponse":
        """The answer, whose status is counted."""
        return TrackedResponse(response, self) if self.keep(response.head.status) else response

    def keep(self, status: int) -> bool:
        """Count the status of an answer; True where that keeps the lease to its end, because the policy counts."""
        self.record(status)
        self._kept = self._set.counts
        return self._kept

    def record(self, status: int) -> None:
        """Count the status of an answer."""
        self._set.record(self._endpoint, status)

    def release(self) -> None:
        """The request is over."""
        with self._set.lock:
            self._endpoint.in_flight -= 1


async def _done_before(future: asyncio.Future[None], until: float, loop: asyncio.AbstractEventLoop) -> bool:
    if not future.done():
        await asyncio.wait({future}, timeout=None if until == math.inf else until - loop.time())
    return future.done()


def _is_its_fault(exc: UpstreamError) -> bool:
    """Neither our own limits nor a head that we would not send say anything about an endpoint."""
    return not isinstance(exc, UpstreamOverloaded) and (exc.sent or exc.status_hint != 502)
