"""How a conversation is driven in a thread: the twin of `Upstreams`, which differs where that awaits.

Endpoints are the same code, and looked after in a background loop; a request meets that loop only while no address of
its service is known.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Dict
from threading import Lock
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple

from canary_mw.client.interfaces import SyncBody, SyncResponse, SyncTransport
from canary_mw.client.limits import Limits
from canary_mw.client.sync.client import SyncHTTP11Client
from canary_mw.client.sync.httpx_transport import SyncHttpxTransport, ThreadedTransport
from canary_mw.exceptions import UpstreamConnectError, UpstreamError
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.rules.service import Service, parse_service
from canary_mw.rules.upstream import CircuitBreakers, Origin, UpstreamOptions
from canary_mw.upstreams.aio import RouteKey, Upstreams, add_ejections, endpoints_of
from canary_mw.upstreams.attempts import Attempts, next_endpoint
from canary_mw.upstreams.circuit_breakers import InFlight, SyncTrackedResponse
from canary_mw.upstreams.endpoints import DNS_INTERVAL, EndpointSet, Environment, Lease
from canary_mw.upstreams.health_checks import HealthChecker
from canary_mw.upstreams.loop_thread import LoopThread, resolve_in_thread, run_in_thread
from canary_mw.upstreams.overrides import find_override, parse_origins

if TYPE_CHECKING:
    import httpx

    from canary_mw.types import WSGIApp


OpenBody = Callable[[], bytes | Iterator[bytes]]


class Route(NamedTuple):
    """Who carries requests to a service, and where it is."""

    transport: SyncTransport
    endpoints: EndpointSet


class SyncUpstreams:
    """Resolves services and keeps the connections to them, for the threads of one process.

    Args:
        overrides: see `Upstreams`, also for the others.
        transports: httpx transports for threads.
        apps: WSGI apps.

    Attributes:
        background: where endpoints are looked after.
        background_upstreams: carries what nobody waits for, in that loop; the same services, limits and counts.

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
    ) -> None:
        self._given = overrides, transports, limits, dns_interval, secrets
        self._overrides = {name.lower(): parse_origins(name, urls) for name, urls in (overrides or {}).items()}
        self._senders = {name.lower(): SyncHttpxTransport(each) for name, each in (transports or {}).items()}
        self._apps = {name.lower(): app for name, app in (apps or {}).items()}
        self.background = LoopThread()
        self.begin()

    def begin(self) -> None:
        """What each process has for itself: again in a forked child, where the parent's is of no use."""
        overrides, transports, limits, dns_interval, secrets = self._given
        self.background.forked()
        self._loads = InFlight()
        beside = {name: ThreadedTransport(each, run_in_thread) for name, each in (transports or {}).items()}
        self.background_upstreams = Upstreams(overrides, beside, None, limits, dns_interval, self._loads, secrets)
        self._client = SyncHTTP11Client(limits=limits, contexts=self.background_upstreams.contexts)
        self._prober = HealthChecker(self.background_upstreams.contexts)
        self._tools = Environment(self._prober, resolve_in_thread, dns_interval)
        self._routes: dict[RouteKey, Route] = {}
        self._lock = Lock()

    def app(self, service: Service) -> "WSGIApp | None":
        """The app of this process that answers for a service, if one does."""
        return find_override(self._apps, service) if self._apps else None

    def run(
        self,
        conversation: Exchange,
        body: OpenBody,
        handed_over: Callable[[UpstreamRequest], None] | None = None,
    ) -> tuple[Relay | Reply, SyncResponse | None]:
        """Drive a conversation to its outcome; see `Upstreams.arun`."""
        tries: Attempts[SyncResponse] = Attempts(conversation, monotonic, 0.0, handed_over)
        try:
            while tries.outcome is None:
                try:
                    if tries.is_retry:
                        response = self._send_again(tries, body)
                    else:
                        request = tries.request
                        content = body() if request.body is not None and request.body.length != 0 else None
                        response = self.send(request, content, tries.begin())
                except UpstreamError as exc:
                    tries.finish_with_error(exc)
                else:
                    tries.finish_with_response(response)
        except BaseException:
            tries.close()
            raise
        return tries.outcome, tries.response

    def _send_again(self, tries: Attempts[SyncResponse], open_body: OpenBody) -> SyncResponse:
        request = tries.request
        with tries.acquire(self._loads):
            sleep(tries.backoff())
            tries.check()
            body = open_body() if request.body is not None and request.body.length != 0 else None
            return self.send(request, body, tries.begin())

    def send(self, request: UpstreamRequest, body: SyncBody, deadline: float) -> SyncResponse:
        """Send a request to its service once.

        Args:
            deadline: a time of `time.monotonic` for all of the exchange, `math.inf` for no limit.

        Raises:
            UpstreamError: there is no answer, or a limit of `circuit_breakers` is reached.
        """
        sender, endpoints = self._route(request)
        breakers = request.options.circuit_breakers
        origin = endpoints.only_endpoint()
        if breakers is None and origin is not None:
            return sender.send(origin, request, body, deadline)
        if breakers is None:
            return self._send_to_one(endpoints, sender, request, body, deadline)
        with self._loads.acquire_request(request.service, breakers) as place:
            response = self._send_to_one(endpoints, sender, request, body, deadline)
            place.keep()
            return SyncTrackedResponse(response, place)

    def may_retry(self, service: str, breakers: CircuitBreakers | None) -> bool:
        """Whether `max_retries` leaves room for one more retry."""
        return breakers is None or self._loads.may_retry(service, breakers)

    def ejections(self) -> dict[str, int]:
        """How often endpoints were ejected, by the text of the service, where they may be."""
        found = self.background_upstreams.ejections()
        add_ejections(self._routes, found)
        return found

    def _send_to_one(
        self, endpoints: EndpointSet, sender: SyncTransport, request: UpstreamRequest, body: SyncBody, deadline: float
    ) -> SyncResponse:
        """Send to the endpoint whose turn it is, or to the next; see the function of that name in `upstreams`."""
        until = monotonic() + request.connect_timeout
        lease = endpoints.take(request.key) or self._lease(endpoints, request, deadline)
        tried: list[Origin] = []
        while True:
            tried.append(lease.origin)
            try:
                with lease:
                    response = sender.send(lease.origin, request, body, deadline)
                    return SyncTrackedResponse(response, lease) if lease.keep(response.head.status) else response
            except UpstreamConnectError as exc:
                other = next_endpoint(exc, request, endpoints, tried) if monotonic() < until else None
                if other is None:
                    raise
                lease = other

    def _lease(self, endpoints: EndpointSet, request: UpstreamRequest, deadline: float) -> Lease:
        # Times of asyncio's own loops are monotonic ones.
        finding = endpoints.lease(request.key, deadline, request.connect_timeout)
        try:
            return self.background.run(finding)
        except TimeoutError as exc:
            raise UpstreamConnectError(f"{request.service}: no address: {exc}") from exc

    def _route(self, request: UpstreamRequest) -> Route:
        options = request.options
        plain = options.endpoints is None and options.tls is None
        key = request.service if plain else (request.service, options.endpoints, options.tls)
        return self._routes.get(key) or self._resolve(key, request.service, options)

    def _resolve(self, key: RouteKey, text: str, options: UpstreamOptions) -> Route:
        service, _ = parse_service(text)
        sender = find_override(self._senders, service)
        with self._lock:
            if key not in self._routes:
                # A transport looks names up by itself.
                endpoints = endpoints_of(service, self._overrides, options, self._tools, look_up=sender is None)
                self._routes[key] = Route(sender or self._client, endpoints)
            return self._routes[key]

    def close(self) -> None:
        """Close the connections and end what goes on in the background; a later request begins anew."""
        with self._lock:
            routes, self._routes = self._routes, {}
        if self.background.started:
            self.background.run(self._aclose(list(routes.values())))
            self.background.stop()
        client, self._client = (
            self._client,
            SyncHTTP11Client(limits=self._given[2], contexts=self.background_upstreams.contexts),
        )
        client.close()

    async def _aclose(self, routes: Sequence[Route]) -> None:
        for route in routes:
            await route.endpoints.aclose()
        await self._prober.aclose()
        await self.background_upstreams.aclose()
