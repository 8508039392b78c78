"""Sends requests to services from threads: the twin of `upstreams.aio`, which awaits where this blocks.

Endpoints are the same code. Their look-ups and health checks run in a background loop; a request waits for that loop
only while no address of its service is known.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Dict
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from canary_mw.client.extra import importing_grpc, is_grpc
from canary_mw.client.interfaces import SyncBody, SyncResponse, SyncTransport
from canary_mw.client.limits import Limits
from canary_mw.client.sync.client import SyncHTTP11Client
from canary_mw.client.sync.httpx_transport import SyncHttpxTransport, ThreadedTransport
from canary_mw.client.sync.pools import SyncPools
from canary_mw.client.sync.traced_transport import traced
from canary_mw.exceptions import UpstreamConnectError, UpstreamError
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.locks import new_lock
from canary_mw.observability.opentelemetry import OpenTelemetry
from canary_mw.observability.upstream_errors import UpstreamErrors
from canary_mw.routing.decided import Decision
from canary_mw.rules.service import Service, parse_service
from canary_mw.rules.upstream import CircuitBreakers, Origin, UpstreamOptions
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.attempts import Attempts, next_endpoint
from canary_mw.upstreams.circuit_breakers import InFlight, SyncTrackedResponse
from canary_mw.upstreams.discovery.discovery import Discovery
from canary_mw.upstreams.discovery.dns import DNS_INTERVAL
from canary_mw.upstreams.endpoints import EndpointSet
from canary_mw.upstreams.environment import Environment
from canary_mw.upstreams.health import EndpointStatus
from canary_mw.upstreams.health_checks import HealthChecker
from canary_mw.upstreams.lease import Lease
from canary_mw.upstreams.loop_states import RouteKey, add_ejections, statuses_of
from canary_mw.upstreams.loop_thread import LoopThread, run_in_thread
from canary_mw.upstreams.overrides import endpoints_of, find_override, is_replaced, parse_origins, place_of

if TYPE_CHECKING:
    import httpx

    from canary_mw.client.sync.grpc import SyncGrpcClient
    from canary_mw.types import WSGIApp

OpenBody = Callable[[], bytes | Iterator[bytes]]


class Route(NamedTuple):
    """The transport and the endpoints of a service."""

    transport: SyncTransport
    endpoints: EndpointSet


class SyncUpstreams:
    """Resolves services and keeps the connections to them, for the threads of one process.

    Args:
        overrides: see `Upstreams`, also for the other arguments.
        transports: httpx transports for threads.
        apps: WSGI apps.

    Attributes:
        background: the loop of look-ups, health checks and shadows.
        background_upstreams: sends shadows in that loop; services, limits and counts are shared with the threads.
        errors: counts and logs failures.

    Raises:
        ConfigError: see `Upstreams`.
    """

    def __init__(
        self,
        overrides: Dict[str, str | Sequence[str]] | None = None,
        transports: "Dict[str, httpx.BaseTransport] | None" = None,
        apps: "Dict[str, WSGIApp] | None" = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        dns_interval: float = DNS_INTERVAL,
        *,
        secrets: str | os.PathLike[str] | None = None,
        discovery: Discovery | None = None,
        tracer: OpenTelemetry | None = None,
    ) -> None:
        self._tracer = tracer
        self._settings = overrides, transports, limits, dns_interval, secrets
        self._discovery = discovery
        self._overrides = {name.lower(): parse_origins(name, urls) for name, urls in (overrides or {}).items()}
        self._transports = {name.lower(): SyncHttpxTransport(each) for name, each in (transports or {}).items()}
        self._apps = {name.lower(): app for name, app in (apps or {}).items()}
        self.background = LoopThread()
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Create what each process has for itself; called again in a forked child, which cannot use the parent's."""
        overrides, transports, limits, dns_interval, secrets = self._settings
        self.background.reset_after_fork()
        self.in_flight = InFlight()
        self.errors = UpstreamErrors()
        background_transports = {
            name: ThreadedTransport(each, run_in_thread) for name, each in (transports or {}).items()
        }
        self.background_upstreams = Upstreams(
            overrides,
            background_transports,
            None,
            limits,
            dns_interval,
            self.in_flight,
            secrets,
            self.errors,
            self._discovery,
            tracer=self._tracer,
        )
        self._client = SyncHTTP11Client(limits=limits, contexts=self.background_upstreams.contexts)
        self._grpc: list[SyncGrpcClient] = []
        self._health_checker = HealthChecker(self.background_upstreams.contexts)
        self.background.on_end = partial(_close_background, self._health_checker, self.background_upstreams)
        self._environment = Environment(self._health_checker, dns_interval=dns_interval, discovery=self._discovery)
        self._routes: dict[RouteKey, Route] = {}
        self._lock = new_lock()

    def app(self, decision: Decision) -> "WSGIApp | None":
        """The app in this process in place of the service of a decision, if there is one."""
        return find_override(self._apps, decision.mapping.service) if self._apps else None

    def is_replaced(self, service: Service) -> bool:
        """Whether requests to a service go elsewhere than to its own address."""
        return is_replaced(service, self._apps, self._transports, self._overrides)

    def place(self, service: Service) -> str:
        """Where requests to a service go, for the log."""
        return place_of(service, self._apps, self._transports, self._overrides)

    def run(
        self,
        exchange: Exchange,
        open_body: OpenBody,
        on_shadow: Callable[[UpstreamRequest], None] | None = None,
    ) -> tuple[Relay | Reply, SyncResponse | None]:
        """Drive an exchange to its outcome; see `Upstreams.run`."""
        attempts: Attempts[SyncResponse] = Attempts(exchange, monotonic, 0.0, on_shadow)
        try:
            while attempts.outcome is None:
                try:
                    if attempts.is_retry:
                        response = self._retry(attempts, open_body)
                    else:
                        request = attempts.request
                        body = open_body() if request.body is not None and request.body.length != 0 else None
                        response = self.send(request, body, attempts.start_attempt(body))
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

    def _retry(self, attempts: Attempts[SyncResponse], open_body: OpenBody) -> SyncResponse:
        request = attempts.request
        with attempts.acquire_retry(self.in_flight):
            # Looked up now: gevent may have patched it since the import.
            time.sleep(attempts.backoff())
            attempts.check_deadline()
            body = open_body() if request.body is not None and request.body.length != 0 else None
            return self.send(request, body, attempts.start_attempt(body))

    def send(self, request: UpstreamRequest, body: SyncBody, deadline: float) -> SyncResponse:
        """Send a request to its service once.

        Args:
            deadline: time of `time.monotonic` at which the whole response must be there, `math.inf` for no limit.

        Raises:
            UpstreamError: there is no response, or a limit of `circuit_breakers` is reached.
        """
        transport, endpoints = self._route(request)
        circuit_breakers = request.options.circuit_breakers
        origin = endpoints.only_endpoint()
        if circuit_breakers is None and origin is not None:
            request.sent_to(origin)
            try:
                return transport.send(origin, request, body, deadline)
            except UpstreamError as exc:
                exc.address = origin.endpoint
                raise
        if circuit_breakers is None:
            return self._send_to_endpoint(endpoints, transport, request, body, deadline)
        with self.in_flight.acquire_request(request.service, circuit_breakers) as slot:
            response = self._send_to_endpoint(endpoints, transport, request, body, deadline)
            slot.keep()
            return SyncTrackedResponse(response, slot)

    def may_retry(self, service: str, circuit_breakers: CircuitBreakers | None) -> bool:
        """Whether `max_retries` allows one more retry."""
        return circuit_breakers is None or self.in_flight.may_retry(service, circuit_breakers)

    def ejections(self) -> dict[str, int]:
        """Ejections of endpoints by the text of the service, for services with `outlier_detection`."""
        found = self.background_upstreams.ejections()
        add_ejections(self._routes, found)
        return found

    def endpoint_statuses(self) -> list[EndpointStatus]:
        """The addresses of all services that were asked."""
        return [*self.background_upstreams.endpoint_statuses(), *statuses_of(self._routes, self._client.held())]

    def _send_to_endpoint(
        self,
        endpoints: EndpointSet,
        transport: SyncTransport,
        request: UpstreamRequest,
        body: SyncBody,
        deadline: float,
    ) -> SyncResponse:
        """Send to the endpoint that load balancing picks, or to another; see the function of that name in `aio`."""
        connect_deadline = monotonic() + request.connect_timeout
        lease = endpoints.lease_nowait(request.hash_key) or self._lease(endpoints, request, deadline)
        tried: list[Origin] = []
        sent = False
        while True:
            tried.append(lease.origin)
            request.sent_to(lease.origin)
            try:
                with lease:
                    response = transport.send(lease.origin, request, body, deadline)
                    return SyncTrackedResponse(response, lease) if lease.keep(response.head.status) else response
            except UpstreamError as exc:
                sent = exc.tried_before = sent or exc.sent or exc.tried_before
                other = next_endpoint(exc, request, endpoints, tried) if monotonic() < connect_deadline else None
                if other is None:
                    raise
                self.errors.failed(request.service, request.mapping, exc, retried=True)
                lease = other

    def _lease(self, endpoints: EndpointSet, request: UpstreamRequest, deadline: float) -> Lease:
        # `deadline` is one of that loop, too: the clock of asyncio's own loops is `time.monotonic`.
        try:
            return self.background.run(endpoints.lease(request.hash_key, deadline, request.connect_timeout))
        except TimeoutError as exc:
            raise UpstreamConnectError(f"{request.service}: no address: {exc}") from exc

    def _route(self, request: UpstreamRequest) -> Route:
        options = request.options
        plain = options.endpoints is None and options.tls is None
        key = request.service if plain else (request.service, options.endpoints, options.tls)
        return self._routes.get(key) or self._resolve(key, request.service, options)

    def _resolve(self, key: RouteKey, text: str, options: UpstreamOptions) -> Route:
        service, _ = parse_service(text)
        given = None if is_grpc(options) else find_override(self._transports, service)
        ours = self._grpc_client() if is_grpc(options) else self._client
        with self._lock:
            if key not in self._routes:
                # A transport resolves names itself.
                endpoints = endpoints_of(service, self._overrides, options, self._environment, look_up=given is None)
                self._routes[key] = Route(traced(given or ours, self._tracer), endpoints)
            return self._routes[key]

    def _grpc_client(self) -> SyncTransport:
        if not self._grpc:
            with importing_grpc():
                from canary_mw.client.sync.grpc import SyncGrpcClient

            self._grpc.append(SyncGrpcClient(self._settings[2], self.background_upstreams.grpc_contexts))
        return self._grpc[0]

    def close(self) -> None:
        """Close the connections and stop the background loop; a later request opens new ones."""
        with self._lock:
            routes, self._routes = self._routes, {}
        if self.background.started:
            self.background.run(_close_endpoints(list(routes.values())))
            self.background.stop()
        clients: list[SyncPools[Any]] = [self._client, *self._grpc]
        self._grpc = []
        self._client = SyncHTTP11Client(limits=self._settings[2], contexts=self.background_upstreams.contexts)
        for client in clients:
            client.close()


async def _close_endpoints(routes: Sequence[Route]) -> None:
    for route in routes:
        await route.endpoints.aclose()


async def _close_background(health_checker: HealthChecker, upstreams: Upstreams) -> None:
    await health_checker.aclose()
    await upstreams.aclose()
