"""Sends requests to services from event loops: transport, endpoint, limits and retries.

A service is reached by our own HTTP/1.1 client or by an httpx transport, or it is an app in this process.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from collections.abc import Mapping as Dict
from functools import partial
from typing import TypeVar

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.aio.connection import Connection
from canary_mw.client.aio.httpx_transport import AsyncTransport, HttpxTransport
from canary_mw.client.aio.timed_parser import TIMER_SLACK
from canary_mw.client.aio.traced_transport import traced
from canary_mw.client.extra import GRPC_PROTOCOLS, importing_grpc, is_grpc
from canary_mw.client.interfaces import RequestBody, Transport, UpstreamResponse
from canary_mw.client.limits import Limits
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.observability.opentelemetry import OpenTelemetry
from canary_mw.observability.upstream_errors import UpstreamErrors
from canary_mw.routing.decided import Decision
from canary_mw.rules.service import Service, parse_service
from canary_mw.rules.upstream import CircuitBreakers, Origin, UpstreamOptions
from canary_mw.types import ASGIApp
from canary_mw.upstreams.attempts import Attempts, try_endpoints
from canary_mw.upstreams.circuit_breakers import InFlight, Slot
from canary_mw.upstreams.discovery.discovery import Discovery
from canary_mw.upstreams.discovery.dns import DNS_INTERVAL
from canary_mw.upstreams.endpoints import EndpointSet
from canary_mw.upstreams.environment import Environment
from canary_mw.upstreams.health import EndpointStatus
from canary_mw.upstreams.health_checks import HealthChecker
from canary_mw.upstreams.lease import Lease
from canary_mw.upstreams.loop_states import (
    LoopState,
    LoopStates,
    Route,
    RouteKey,
    add_ejections,
    route_key,
    statuses_of,
)
from canary_mw.upstreams.overrides import endpoints_of, find_override, is_replaced, parse_origins, place_of

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop
OpenBody = Callable[[], Awaitable[bytes | AsyncIterator[bytes]]]


class Upstreams:
    """Resolves services and keeps the connections to them.

    Overrides, transports and apps are keyed by a name of a service, the most specific first: its text, host:port, host.

    Args:
        overrides: URL (scheme, host, port), or several used in turn, in place of a service's own address; "*" is for
            all services that are not named.
        transports: httpx transports in place of our own client; the caller closes them.
        apps: ASGI apps in this process in place of a service, without a network.
        limits: limits of our own client, per origin.
        dns_interval: seconds between two look-ups of the same name.
        in_flight: counts of requests and retries, if shared with other upstreams.
        errors: counts and logs failures, if shared with other upstreams.
        discovery: the endpoints of services whose Mappings ask for them; None where they are looked up by DNS.
        tracer: makes a span of each attempt.
        secrets: directory of the Secrets that TLSContexts name; by default the variable `CANARY_MW_SECRETS`.

    Attributes:
        contexts: TLS of connections to upstreams.
        grpc_contexts: the same for gRPC.
        errors: as given.

    Raises:
        ConfigError: an override is not such a URL.
    """

    def __init__(
        self,
        overrides: Dict[str, str | Sequence[str]] | None = None,
        transports: Dict[str, AsyncTransport] | None = None,
        apps: Dict[str, ASGIApp] | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        dns_interval: float = DNS_INTERVAL,
        in_flight: InFlight | None = None,
        secrets: str | os.PathLike[str] | None = None,
        errors: UpstreamErrors | None = None,
        discovery: Discovery | None = None,
        tracer: OpenTelemetry | None = None,
    ) -> None:
        self._tracer = tracer
        self.errors = errors or UpstreamErrors()
        self._discovery = discovery
        self.contexts = TLSContexts(secrets)
        self._limits = limits
        self.grpc_contexts = TLSContexts(secrets, alpn=GRPC_PROTOCOLS)
        self._overrides = {name.lower(): parse_origins(name, urls) for name, urls in (overrides or {}).items()}
        self._transports = {name.lower(): HttpxTransport(each) for name, each in (transports or {}).items()}
        self._apps = {name.lower(): app for name, app in (apps or {}).items()}
        self._dns_interval = dns_interval
        self._states = LoopStates(partial(_create_state, limits, self.contexts))
        self.in_flight = in_flight or InFlight()

    def app(self, decision: Decision) -> ASGIApp | None:
        """The app in this process in place of the service of a decision, if there is one."""
        return find_override(self._apps, decision.mapping.service) if self._apps else None

    def is_replaced(self, service: Service) -> bool:
        """Whether requests to a service go elsewhere than to its own address."""
        return is_replaced(service, self._apps, self._transports, self._overrides)

    def place(self, service: Service) -> str:
        """Where requests to a service go, for the log."""
        return place_of(service, self._apps, self._transports, self._overrides)

    async def run(
        self,
        exchange: Exchange,
        open_body: OpenBody,
        loop: Loop | None = None,
        on_shadow: Callable[[UpstreamRequest], None] | None = None,
    ) -> tuple[Relay | Reply, UpstreamResponse | None]:
        """Drive an exchange to its outcome.

        Args:
            open_body: gives the body of the request; called for each attempt that sends a body.
            loop: the running one, if the caller has it at hand.
            on_shadow: is called with the shadow of a request once the first attempt has a response, or has failed.

        Returns:
            The outcome, and with a `Relay` the response whose body is to be relayed; the caller closes it.
        """
        loop = loop or asyncio.get_running_loop()
        attempts: Attempts[UpstreamResponse] = Attempts(exchange, loop.time, TIMER_SLACK, on_shadow)
        try:
            while attempts.outcome is None:
                try:
                    if attempts.is_retry:
                        response = await self._retry(attempts, open_body, loop)
                    else:
                        request = attempts.request
                        body = await open_body() if request.body is not None and request.body.length != 0 else None
                        response = await self.send(request, body, loop, attempts.start_attempt(body))
                except UpstreamError as exc:
                    request = attempts.request
                    attempts.finish_with_error(exc)
                    self.errors.failed(request.service, request.mapping, exc, retried=attempts.outcome is None)
                else:
                    if self.errors.failing:
                        self.errors.succeeded(attempts.request.service)
                    attempts.finish_with_response(response)
        except BaseException:
            attempts.close()
            raise
        return attempts.outcome, attempts.response

    async def _retry(self, attempts: Attempts[UpstreamResponse], open_body: OpenBody, loop: Loop) -> UpstreamResponse:
        request = attempts.request
        with attempts.acquire_retry(self.in_flight):
            await asyncio.sleep(attempts.backoff())
            attempts.check_deadline()
            body = await open_body() if request.body is not None and request.body.length != 0 else None
            return await self.send(request, body, loop, attempts.start_attempt(body))

    async def send(self, request: UpstreamRequest, body: RequestBody, loop: Loop, deadline: float) -> UpstreamResponse:
        """Send a request to its service once.

        Args:
            loop: the running one.
            deadline: loop time at which the whole response must be there, `math.inf` for no limit.

        Raises:
            UpstreamError: there is no response, or a limit of `circuit_breakers` is reached.
        """
        transport, endpoints = self._route(request, loop)
        circuit_breakers = request.options.circuit_breakers
        origin = endpoints.only_endpoint()
        if circuit_breakers is None and origin is not None:
            request.sent_to(origin)
            try:
                return await transport.send(origin, request, body, deadline)
            except UpstreamError as exc:
                exc.address = origin.endpoint
                raise
        if circuit_breakers is None:
            return await _send_to_endpoint(endpoints, transport, request, body, deadline, self.errors)
        with self.in_flight.acquire_request(request.service, circuit_breakers) as slot:
            return slot.held_by(await _send_to_endpoint(endpoints, transport, request, body, deadline, self.errors))

    def idle_connection(self, key: RouteKey, service: str, options: UpstreamOptions, loop: Loop) -> Connection | None:
        """An idle connection of our own client to the only endpoint of a service, if there is one."""
        state = self._states.last
        if state is None or state.loop is not loop or (route := state.routes.get(key)) is None:
            route = self._find_route(key, service, options, loop)
        origin = route.endpoints.only_endpoint()
        transport = route.transport
        return transport.take_idle(origin) if origin is not None and isinstance(transport, HTTP11Client) else None

    async def send_on_new_connection(
        self, origin: Origin, request: UpstreamRequest, loop: Loop, deadline: float
    ) -> UpstreamResponse:
        """Send a request without a body once more by our own client, over a new connection; it is the same attempt.

        Raises:
            UpstreamError: there is no response.
        """
        return await self._states.of(loop).client.send(origin, request, None, deadline, fresh=True)

    def may_retry(self, service: str, circuit_breakers: CircuitBreakers | None) -> bool:
        """Whether `max_retries` allows one more retry."""
        return circuit_breakers is None or self.in_flight.may_retry(service, circuit_breakers)

    def ejections(self) -> dict[str, int]:
        """Ejections of endpoints by the text of the service, for services with `outlier_detection`."""
        found: dict[str, int] = {}
        for state in self._states.all():
            add_ejections(state.routes, found)
        return found

    def endpoint_statuses(self) -> list[EndpointStatus]:
        """The addresses of all services that were asked."""
        return [status for state in self._states.all() for status in statuses_of(state.routes, state.client.held())]

    def acquire(self, request: UpstreamRequest) -> Slot | None:
        """A slot of `max_requests` for a request that `send` does not send; None if the service has no limits.

        Raises:
            UpstreamOverloaded: no slot is free.
        """
        circuit_breakers = request.options.circuit_breakers
        return None if circuit_breakers is None else self.in_flight.acquire_request(request.service, circuit_breakers)

    async def at_endpoint(
        self,
        request: UpstreamRequest,
        loop: Loop,
        deadline: float,
        attempt: Callable[[Lease], Awaitable[T]],
    ) -> T:
        """Make an attempt that the caller sends itself, that of a websocket, at an endpoint; see `try_endpoints`."""
        return await try_endpoints(self._route(request, loop).endpoints, request, deadline, attempt, self.errors)

    def _route(self, request: UpstreamRequest, loop: Loop) -> Route:
        service, options = request.service, request.options
        return self._find_route(route_key(service, options), service, options, loop)

    def _find_route(self, key: RouteKey, service: str, options: UpstreamOptions, loop: Loop) -> Route:
        state = self._states.last
        if state is None or state.loop is not loop:
            state = self._states.of(loop)
        return state.routes.get(key) or self._resolve(state, key, service, options)

    def _resolve(self, state: LoopState, key: RouteKey, text: str, options: UpstreamOptions) -> Route:
        service, _ = parse_service(text)
        transport = None if is_grpc(options) else find_override(self._transports, service)
        environment = Environment(state.health_checker, dns_interval=self._dns_interval, discovery=self._discovery)
        # A transport resolves names itself.
        endpoints = endpoints_of(service, self._overrides, options, environment, look_up=transport is None)
        ours = self._grpc_client(state) if is_grpc(options) else state.client
        route = state.routes[key] = Route(traced(transport or ours, self._tracer), endpoints)
        return route

    def _grpc_client(self, state: LoopState) -> Transport:
        if not state.grpc:
            with importing_grpc():
                from canary_mw.client.aio.grpc import GrpcClient

            state.grpc.append(GrpcClient(self._limits, self.grpc_contexts))
        return state.grpc[0]

    async def aclose(self) -> None:
        """Close connections and background tasks of the running loop; a later request opens new ones."""
        await self._states.aclose()
        for transport in self._transports.values():
            await transport.wait_closed()


def _create_state(limits: Limits, contexts: TLSContexts, loop: Loop) -> LoopState:
    return LoopState(loop, HTTP11Client(limits=limits, contexts=contexts), HealthChecker(contexts), {}, [])


async def _send_to_endpoint(
    endpoints: EndpointSet,
    transport: Transport,
    request: UpstreamRequest,
    body: RequestBody,
    deadline: float,
    errors: UpstreamErrors,
) -> UpstreamResponse:
    """Send to an endpoint; see `try_endpoints`."""

    async def attempt(lease: Lease) -> UpstreamResponse:
        return lease.held_by(await transport.send(lease.origin, request, body, deadline))

    return await try_endpoints(endpoints, request, deadline, attempt, errors)
