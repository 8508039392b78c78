"""Who answers for a service, and how a conversation with it is driven.

A service is answered by our own HTTP/1.1 client, by an httpx transport, or by an app in this process.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from collections.abc import Mapping as Dict
from typing import NamedTuple

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.aio.connection import Connection
from canary_mw.client.aio.httpx_transport import AsyncTransport, HttpxTransport
from canary_mw.client.aio.timed_parser import TIMER_SLACK
from canary_mw.client.interfaces import RequestBody, Transport, UpstreamResponse
from canary_mw.client.limits import Limits
from canary_mw.client.tls import TLSContexts, with_tls
from canary_mw.exceptions import UpstreamConnectError, UpstreamError
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.rules.service import Service, parse_service
from canary_mw.rules.upstream import CircuitBreakers, EndpointOptions, Origin, UpstreamOptions, UpstreamTLS
from canary_mw.types import ASGIApp
from canary_mw.upstreams.attempts import Attempts, next_endpoint
from canary_mw.upstreams.circuit_breakers import InFlight, Slot
from canary_mw.upstreams.endpoints import DNS_INTERVAL, EndpointSet, Environment, Lease
from canary_mw.upstreams.health_checks import HealthChecker
from canary_mw.upstreams.overrides import find_override, parse_origins

OpenBody = Callable[[], Awaitable[bytes | AsyncIterator[bytes]]]


class Route(NamedTuple):
    """Who carries requests to a service, and where it is; a route is for one event loop."""

    transport: Transport
    endpoints: EndpointSet


# The text of a service, or that and what a Mapping asks of the way to it.
RouteKey = str | tuple[str, EndpointOptions | None, UpstreamTLS | None]


class LoopState(NamedTuple):
    """What belongs to one event loop."""

    client: HTTP11Client
    health_checker: HealthChecker
    routes: dict[RouteKey, Route]


class Upstreams:
    """Resolves services and keeps the connections to them.

    Everything is looked up by the names of a service, the most specific first: its text, host:port, host.

    Args:
        overrides: URL (scheme, host, port), or several used in turn, in place of a service's own address; "*" catches
            the services that are not named.
        transports: httpx transports in place of our own client. They are the caller's to close.
        apps: ASGI apps of this process that answer for a service; no network then.
        limits: bounds of our own client, per origin.
        dns_interval: seconds between two look-ups of the same name.
        loads: what is in flight, where others count it too.
        secrets: directory of the Secrets that TLSContexts name; by default the environment's `CANARY_MW_SECRETS`.

    Attributes:
        contexts: how connections are secured.

    Raises:
        ConfigError: an override that is not such a URL.
    """

    def __init__(
        self,
        overrides: Dict[str, str | Sequence[str]] | None = None,
        transports: Dict[str, AsyncTransport] | None = None,
        apps: Dict[str, ASGIApp] | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        dns_interval: float = DNS_INTERVAL,
        loads: InFlight | None = None,
        secrets: str | os.PathLike[str] | None = None,
    ) -> None:
        self.contexts = TLSContexts(secrets)
        self._overrides = {name.lower(): parse_origins(name, urls) for name, urls in (overrides or {}).items()}
        self._senders = {name.lower(): HttpxTransport(each) for name, each in (transports or {}).items()}
        self._apps = {name.lower(): app for name, app in (apps or {}).items()}
        self._limits = limits
        self._dns_interval = dns_interval
        self._loop: asyncio.AbstractEventLoop | None = None
        self._here: LoopState | None = None
        self._own: dict[asyncio.AbstractEventLoop, LoopState] = {}
        self._loads = loads or InFlight()

    def app(self, service: Service) -> ASGIApp | None:
        """The app of this process that answers for a service, if one does."""
        return find_override(self._apps, service) if self._apps else None

    async def run(
        self,
        conversation: Exchange,
        body: OpenBody,
        loop: asyncio.AbstractEventLoop | None = None,
        handed_over: Callable[[UpstreamRequest], None] | None = None,
    ) -> tuple[Relay | Reply, UpstreamResponse | None]:
        """Drive a conversation to its outcome.

        Args:
            body: gives the body of the request; called for each try, and only when the upstream is to get one.
            loop: the running one, if the caller has it at hand.
            handed_over: is given the shadow of a request once its first try has an answer, or has failed.

        Returns:
            The outcome, and with a `Relay` the answer whose body is to be relayed; the caller closes it.
        """
        loop = loop or asyncio.get_running_loop()
        tries: Attempts[UpstreamResponse] = Attempts(conversation, loop.time, TIMER_SLACK, handed_over)
        try:
            while tries.outcome is None:
                try:
                    if tries.is_retry:
                        response = await self._send_again(tries, body, loop)
                    else:
                        request = tries.request
                        content = await body() if request.body is not None and request.body.length != 0 else None
                        response = await self.send(request, content, loop, tries.begin())
                except UpstreamError as exc:
                    tries.finish_with_error(exc)
                else:
                    tries.finish_with_response(response)
        except BaseException:
            tries.close()
            raise
        return tries.outcome, tries.response

    async def _send_again(
        self, tries: Attempts[UpstreamResponse], open_body: OpenBody, loop: asyncio.AbstractEventLoop
    ) -> UpstreamResponse:
        request = tries.request
        with tries.acquire(self._loads):
            await asyncio.sleep(tries.backoff())
            tries.check()
            body = await open_body() if request.body is not None and request.body.length != 0 else None
            return await self.send(request, body, loop, tries.begin())

    async def send(
        self, request: UpstreamRequest, body: RequestBody, loop: asyncio.AbstractEventLoop, deadline: float
    ) -> UpstreamResponse:
        """Send a request to its service once.

        Args:
            loop: the running one.
            deadline: loop time for all of the exchange, `math.inf` for no limit.

        Raises:
            UpstreamError: there is no answer, or a limit of `circuit_breakers` is reached.
        """
        sender, endpoints = self._route(request, loop)
        breakers = request.options.circuit_breakers
        origin = endpoints.only_endpoint()
        if breakers is None and origin is not None:
            return await sender.send(origin, request, body, deadline)
        if breakers is None:
            return await _send_to_one(endpoints, sender, request, body, deadline)
        with self._loads.acquire_request(request.service, breakers) as place:
            return place.held_by(await _send_to_one(endpoints, sender, request, body, deadline))

    def idle_connection(self, request: UpstreamRequest, loop: asyncio.AbstractEventLoop) -> Connection | None:
        """A connection of our own client to the only endpoint of a service, if one is idle."""
        sender, endpoints = self._route(request, loop)
        origin = endpoints.only_endpoint()
        if origin is None or not isinstance(sender, HTTP11Client):
            return None
        return sender.idle(origin)

    async def send_on_new_connection(
        self, origin: Origin, request: UpstreamRequest, loop: asyncio.AbstractEventLoop, deadline: float
    ) -> UpstreamResponse:
        """Send a request without a body by our own client, over a connection that nothing was sent on before.

        Raises:
            UpstreamError: there is no answer.
        """
        return await self._own_of(loop).client.send(origin, request, None, deadline, fresh=True)

    def may_retry(self, service: str, breakers: CircuitBreakers | None) -> bool:
        """Whether `max_retries` leaves room for one more retry."""
        return breakers is None or self._loads.may_retry(service, breakers)

    def ejections(self) -> dict[str, int]:
        """How often endpoints were ejected, by the text of the service, where they may be."""
        found: dict[str, int] = {}
        for own in list(self._own.values()):
            add_ejections(own.routes, found)
        return found

    def acquire(self, request: UpstreamRequest) -> Slot | None:
        """A place among the `max_requests` of its service, for what `send` does not send; None where all have one.

        Raises:
            UpstreamOverloaded: there is none.
        """
        breakers = request.options.circuit_breakers
        return None if breakers is None else self._loads.acquire_request(request.service, breakers)

    async def lease(self, request: UpstreamRequest, loop: asyncio.AbstractEventLoop, deadline: float) -> Lease:
        """Where a websocket goes, which neither our client nor a transport opens; see `EndpointSet.lease`."""
        return await self._route(request, loop).endpoints.lease(request.key, deadline, request.connect_timeout)

    def _route(self, request: UpstreamRequest, loop: asyncio.AbstractEventLoop) -> Route:
        own = self._here if loop is self._loop and self._here is not None else self._own_of(loop)
        options = request.options
        plain = options.endpoints is None and options.tls is None
        key = request.service if plain else (request.service, options.endpoints, options.tls)
        return own.routes.get(key) or self._resolve(own, key, request.service, options)

    def _resolve(self, own: LoopState, key: RouteKey, text: str, options: UpstreamOptions) -> Route:
        service, _ = parse_service(text)
        sender = find_override(self._senders, service)
        tools = Environment(own.health_checker, dns_interval=self._dns_interval)
        # A transport looks names up by itself.
        endpoints = endpoints_of(service, self._overrides, options, tools, look_up=sender is None)
        route = own.routes[key] = Route(sender or own.client, endpoints)
        return route

    def _own_of(self, loop: asyncio.AbstractEventLoop) -> LoopState:
        """Connections and background tasks belong to a loop."""
        for other in [other for other in self._own if other.is_closed()]:
            del self._own[other]
        own = self._own.get(loop)
        if own is None:
            own = self._own[loop] = LoopState(
                HTTP11Client(limits=self._limits, contexts=self.contexts), HealthChecker(self.contexts), {}
            )
        self._loop, self._here = loop, own
        return own

    async def aclose(self) -> None:
        """Close what belongs to the running loop; a later request opens it anew."""
        own = self._own.pop(asyncio.get_running_loop(), None)
        if own is self._here:
            self._loop = self._here = None
        if own is not None:
            await asyncio.gather(*(route.endpoints.aclose() for route in own.routes.values()))
            await own.health_checker.aclose()
            await own.client.aclose()
        for sender in self._senders.values():
            await sender.settle()


async def _send_to_one(
    endpoints: EndpointSet, sender: Transport, request: UpstreamRequest, body: RequestBody, deadline: float
) -> UpstreamResponse:
    """Send to the endpoint whose turn it is, and to the next where that is safe and the first is not to be had.

    While endpoints are restarted one after the other no request is lost so. It takes no longer than a connection may.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + request.connect_timeout
    lease = await endpoints.lease(request.key, deadline, request.connect_timeout)
    tried: list[Origin] = []
    while True:
        tried.append(lease.origin)
        try:
            with lease:
                return lease.held_by(await sender.send(lease.origin, request, body, deadline))
        except UpstreamConnectError as exc:
            other = next_endpoint(exc, request, endpoints, tried) if loop.time() < until else None
            if other is None:
                raise
            lease = other


def endpoints_of(
    service: Service, overrides: Dict[str, list[Origin]], options: UpstreamOptions, tools: Environment, *, look_up: bool
) -> EndpointSet:
    """Where a service is: what is given in its place, or its own address."""
    given = find_override(overrides, service) or overrides.get("*") or [service.origin]
    return EndpointSet(with_tls(given, options.tls), options.endpoints or EndpointOptions(), tools, look_up=look_up)


def add_ejections(routes: Dict[RouteKey, tuple[object, EndpointSet]], found: dict[str, int]) -> None:
    """Count, by the text of the service, how often endpoints were ejected, where they may be."""
    for key, (_, endpoints) in list(routes.items()):
        service = key if isinstance(key, str) else key[0]
        if endpoints.may_eject:
            found[service] = found.get(service, 0) + endpoints.ejections
