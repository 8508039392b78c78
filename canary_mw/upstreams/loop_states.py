"""What belongs to one event loop each: client, health checks and endpoints. It is closed with its loop.

Several loops may run at once, in a thread each: `async_to_sync` of asgiref and test clients make one for every call.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from collections.abc import Mapping as Dict
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.held import Held
from canary_mw.client.interfaces import Transport
from canary_mw.rules.upstream import EndpointOptions, Origin, UpstreamOptions, UpstreamTLS
from canary_mw.upstreams.endpoints import EndpointSet
from canary_mw.upstreams.health import EndpointStatus, status_of
from canary_mw.upstreams.health_checks import HealthChecker

if TYPE_CHECKING:
    from canary_mw.client.aio.grpc import GrpcClient


class Route(NamedTuple):
    """The transport and the endpoints of a service, for one event loop."""

    transport: Transport
    endpoints: EndpointSet


# The text of a service, alone or with the options of a Mapping that need endpoints of their own.
RouteKey = str | tuple[str, EndpointOptions | None, UpstreamTLS | None]


def route_key(service: str, options: UpstreamOptions) -> RouteKey:
    """What requests to a service have in common that share their endpoints."""
    plain = options.endpoints is None and options.tls is None
    return service if plain else (service, options.endpoints, options.tls)


class LoopState(NamedTuple):
    """What belongs to one event loop.

    Attributes:
        grpc: the client for gRPC, made at its first call because it needs an extra; empty before.
    """

    loop: asyncio.AbstractEventLoop
    client: HTTP11Client
    health_checker: HealthChecker
    routes: dict[RouteKey, Route]
    grpc: "list[GrpcClient]"

    async def aclose(self) -> None:
        """Close connections and background tasks."""
        await asyncio.gather(*(route.endpoints.aclose() for route in self.routes.values()))
        await self.health_checker.aclose()
        await asyncio.gather(self.client.aclose(), *(each.aclose() for each in self.grpc))

    def close_after_loop(self) -> None:
        """The same after the loop was closed, from any thread."""
        # The connections first: what a task does at its end finds them closed.
        self.client.close_after_loop()
        for grpc in self.grpc:
            grpc.close_after_loop()
        self.health_checker.close_after_loop()
        for route in self.routes.values():
            route.endpoints.close_after_loop()


class LoopStates:
    """The states of the event loops of a process; any thread may call it.

    Each step on the dictionary is atomic, and only the thread of a loop adds its state.

    Args:
        create: makes the state of a loop.

    Attributes:
        last: the state of the loop that asked last, or None; the loop of another thread may replace it at any time.
    """

    def __init__(self, create: Callable[[asyncio.AbstractEventLoop], LoopState]) -> None:
        self.last: LoopState | None = None
        self._create = create
        self._states: dict[asyncio.AbstractEventLoop, tuple[LoopState, AsyncGenerator[None, None]]] = {}

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopState:
        """The state of the running loop, new if it has none."""
        found = self._states.get(loop)
        if found is None:
            self._close_after_loops()
            state = self._create(loop)
            found = self._states[loop] = state, _close_with_loop(state, ref(self))
            # The first step makes the generator known to its loop.
            with suppress(StopIteration):
                found[1].__anext__().send(None)
        state = self.last = found[0]
        return state

    def all(self) -> list[LoopState]:
        """The states of all loops."""
        return [state for state, _ in list(self._states.values())]

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop has no state any more."""
        self.last = None
        self._states.pop(loop, None)

    async def aclose(self) -> None:
        """Close the state of the running loop."""
        found = self._states.get(asyncio.get_running_loop())
        if found is not None:
            await found[1].aclose()

    def _close_after_loops(self) -> None:
        for loop in list(self._states):
            if loop.is_closed() and (found := self._states.pop(loop, None)) is not None:
                found[0].close_after_loop()


async def _close_with_loop(state: LoopState, states: "ref[LoopStates]") -> AsyncGenerator[None, None]:
    """Close a state at the end of this generator.

    `asyncio.run`, servers and test clients end the asynchronous generators of a loop before they close it. A generator
    that is dropped, here with its `Upstreams`, is ended by its loop, too.
    """
    try:
        yield
    finally:
        if (owner := states()) is not None:
            owner.forget(state.loop)
        await state.aclose()


def statuses_of(
    routes: Dict[RouteKey, tuple[object, EndpointSet]], held: Dict[Origin, Held]
) -> Iterable[EndpointStatus]:
    """The addresses of all services that were asked; any thread may call it."""
    now = monotonic()
    for key, (_, endpoints) in list(routes.items()):
        service = key if isinstance(key, str) else key[0]
        known = list(endpoints.endpoints)
        yield from (status_of(service, each, now)._replace(held=held.get(each.origin)) for each in known)
        if not known:
            yield EndpointStatus(service, "", "unresolved", "no address is known")


def add_ejections(routes: Dict[RouteKey, tuple[object, EndpointSet]], found: dict[str, int]) -> None:
    """Add the ejections of services with `outlier_detection` to `found`, by the text of the service."""
    for key, (_, endpoints) in list(routes.items()):
        service = key if isinstance(key, str) else key[0]
        if endpoints.may_eject:
            found[service] = found.get(service, 0) + endpoints.ejections
