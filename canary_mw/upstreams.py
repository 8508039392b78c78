"""Who answers for a service, and how a conversation with it is driven.

A service is answered by our own HTTP/1.1 client, by an httpx transport, or by an app in this process.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from collections.abc import Mapping as Dict
from contextlib import nullcontext
from itertools import cycle, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from .breakers import Loads
from .exceptions import ConfigError, UpstreamError, UpstreamTimeout
from .exchange import Conversation
from .http11 import TIMER_SLACK, HTTP11Client, Limits
from .messages import Breakers, Origin, Relay, Reply, UpstreamRequest
from .service import Service, parse_service
from .transports import HttpxSender, RequestBody, Sender, UpstreamResponse

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
OpenBody = Callable[[], Awaitable[bytes | AsyncIterator[bytes]]]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Route(NamedTuple):
    """What a service resolved to; `sender` None is our own client of the running loop, `origins` never ends."""

    sender: Sender | None
    origins: Iterator[Origin]


class Upstreams:
    """Resolves services and keeps the connections to them.

    Everything is looked up by the names of a service, the most specific first: its text, host:port, host.

    Args:
        overrides: URL (scheme, host, port), or several used in turn, in place of a service's own address; "*" catches
            the services that are not named.
        transports: httpx transports in place of our own client. They are the caller's to close.
        apps: ASGI apps of this process that answer for a service; no network then.
        limits: bounds of our own client, per origin.

    Raises:
        ConfigError: an override that is not such a URL.
    """

    def __init__(
        self,
        overrides: Dict[str, str | Sequence[str]] | None = None,
        transports: Dict[str, "httpx.AsyncBaseTransport"] | None = None,
        apps: Dict[str, ASGIApp] | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        self._overrides = {name.lower(): _origins(name, urls) for name, urls in (overrides or {}).items()}
        self._senders = {name.lower(): HttpxSender(each) for name, each in (transports or {}).items()}
        self._apps = {name.lower(): app for name, app in (apps or {}).items()}
        self._limits = limits
        self._routes: dict[str, Route] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: HTTP11Client | None = None
        self._clients: dict[asyncio.AbstractEventLoop, HTTP11Client] = {}
        self._loads = Loads()

    def app(self, service: Service) -> ASGIApp | None:
        """The app of this process that answers for a service, if one does."""
        return _by_name(self._apps, service) if self._apps else None

    async def arun(
        self,
        conversation: Conversation,
        body: OpenBody,
        loop: asyncio.AbstractEventLoop | None = None,
        handed_over: Callable[[UpstreamRequest], None] | None = None,
    ) -> tuple[Relay | Reply, UpstreamResponse | None]:
        """Drive a conversation to its outcome.

        A request that is yielded again is a retry: its deadline is that of the first try.

        Args:
            body: gives the body of the request; called for each try, and only when the upstream is to get one.
            loop: the running one, if the caller has it at hand.
            handed_over: is given the shadow of a request once its first try has an answer, or has failed.

        Returns:
            The outcome, and with a `Relay` the answer whose body is to be relayed; the caller closes it.
        """
        loop = loop or asyncio.get_running_loop()
        response: UpstreamResponse | None = None
        deadline = math.inf
        asked: UpstreamRequest | None = None
        try:
            request = next(conversation)
            while True:
                try:
                    if request is asked:
                        response = await self._send_again(request, body, loop, deadline)
                    else:
                        content = await body() if request.body is not None and request.body.length != 0 else None
                        deadline = math.inf if request.timeout is None else loop.time() + request.timeout
                        asked = request
                        send = self.send if request.options.try_timeout is None else self._send_in_time
                        response = await send(request, content, loop, deadline)
                except UpstreamError as exc:
                    if request.shadow is not None:
                        _hand_over(request, handed_over)
                    request = conversation.throw(exc)
                else:
                    if request.shadow is not None:
                        _hand_over(request, handed_over)
                    request = conversation.send(response.head)
                    response.close()
                    response = None
        except StopIteration as stop:
            outcome: Relay | Reply = stop.value
        except BaseException:
            if response is not None:
                response.close()
            raise
        if response is not None and isinstance(outcome, Reply):
            response.close()
            response = None
        return outcome, response

    async def _send_again(
        self, request: UpstreamRequest, open_body: OpenBody, loop: asyncio.AbstractEventLoop, deadline: float
    ) -> UpstreamResponse:
        breakers = request.options.breakers
        with self._loads.retrying(request.service, breakers) if breakers is not None else nullcontext():
            await asyncio.sleep(min(request.delay, max(deadline - loop.time(), 0.0)))
            if loop.time() >= deadline - TIMER_SLACK:
                raise UpstreamTimeout(f"{request.service}: no answer to any try before the deadline", sent=True)
            body = await open_body() if request.body is not None and request.body.length != 0 else None
            return await self._send_in_time(request, body, loop, deadline)

    async def _send_in_time(
        self, request: UpstreamRequest, body: RequestBody, loop: asyncio.AbstractEventLoop, deadline: float
    ) -> UpstreamResponse:
        """One try; the limit of a try ends at the head, as Envoy's `per_try_timeout` does."""
        limit = request.options.try_timeout
        if limit is None:
            return await self.send(request, body, loop, deadline)
        until = min(deadline, loop.time() + limit)
        try:
            response = await self.send(request, body, loop, until)
        except UpstreamTimeout as exc:
            # Neither where the deadline of all tries passed, nor where nothing moved for too long.
            exc.whole = until == deadline or loop.time() < until - TIMER_SLACK
            raise
        response.move_deadline(deadline)
        return response

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
        route = self._routes.get(request.service) or self._resolve(request.service)
        sender = route.sender or self._own_client(loop)
        breakers = request.options.breakers
        if breakers is None:
            return await sender.send(next(route.origins), request, body, deadline)
        with self._loads.requesting(request.service, breakers) as place:
            return place.kept_by(await sender.send(next(route.origins), request, body, deadline))

    def may_retry(self, service: str, breakers: Breakers | None) -> bool:
        """Whether `max_retries` leaves room for one more retry."""
        return breakers is None or self._loads.may_retry(service, breakers)

    def origin(self, service: str) -> Origin:
        """Where the next connection goes that is a websocket's: neither our client nor a transport opens it."""
        return next((self._routes.get(service) or self._resolve(service)).origins)

    def _resolve(self, text: str) -> Route:
        service, _ = parse_service(text)
        origins = _by_name(self._overrides, service) or self._overrides.get("*") or [service.origin]
        turns = cycle(origins) if len(origins) > 1 else repeat(origins[0])
        route = self._routes[text] = Route(_by_name(self._senders, service), turns)
        return route

    def _own_client(self, loop: asyncio.AbstractEventLoop) -> HTTP11Client:
        """Connections belong to a loop: one client for each that runs us."""
        if loop is self._loop and self._client is not None:
            return self._client
        for other in [other for other in self._clients if other.is_closed()]:
            del self._clients[other]
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = HTTP11Client(limits=self._limits)
        self._loop, self._client = loop, client
        return client

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later request opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is self._client:
            self._loop = self._client = None
        if client is not None:
            await client.aclose()
        for sender in self._senders.values():
            await sender.settle()


def _hand_over(request: UpstreamRequest, handed_over: Callable[[UpstreamRequest], None] | None) -> None:
    shadow, request.shadow = request.shadow, None
    if shadow is not None and handed_over is not None:
        handed_over(shadow)


def _by_name(table: Dict[str, T], service: Service) -> T | None:
    for name in service.names:
        if name in table:
            return table[name]
    return None


def _origins(name: str, urls: str | Sequence[str]) -> list[Origin]:
    origins = [_origin(name, url) for url in ([urls] if isinstance(urls, str) else urls)]
    if not origins:
        raise ConfigError(f"upstream {name}: no URL", hint="write NAME=http://host:port")
    return origins


def _origin(name: str, url: str) -> Origin:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ConfigError(f"upstream {name}: {url!r} is not a URL of a host", hint="write http://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        hint = "leave it out: the Mapping's rewrite decides about the path"
        raise ConfigError(f"upstream {name}: {url!r} holds more than scheme, host and port", hint=hint)
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))
