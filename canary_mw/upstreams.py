"""Who answers for a service, and how a conversation with it is driven.

A service is answered by our own HTTP/1.1 client, by an httpx transport, or by an app in this process.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from collections.abc import Mapping as Dict
from itertools import cycle, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from .exceptions import ConfigError, UpstreamError
from .exchange import Conversation
from .http11 import HTTP11Client, Limits
from .messages import Origin, Relay, Reply, ResponseHead, UpstreamRequest
from .service import Service, parse_service
from .transports import HttpxSender, Sender, UpstreamResponse, framed_headers

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

    def app(self, service: Service) -> ASGIApp | None:
        """The app of this process that answers for a service, if one does."""
        return _by_name(self._apps, service) if self._apps else None

    async def arun(
        self, conversation: Conversation, body: OpenBody, loop: asyncio.AbstractEventLoop | None = None
    ) -> tuple[Relay | Reply, UpstreamResponse | None]:
        """Drive a conversation to its outcome.

        Args:
            body: gives the body of the request; called once, and only when the upstream is to get one.
            loop: the running one, if the caller has it at hand.

        Returns:
            The outcome, and with a `Relay` the answer whose body is to be relayed; the caller closes it.
        """
        loop = loop or asyncio.get_running_loop()
        response: UpstreamResponse | None = None
        try:
            request = next(conversation)
            while True:
                try:
                    response = await self._send(request, body, loop)
                except UpstreamError as exc:
                    request = conversation.throw(exc)
                else:
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

    async def _send(
        self, request: UpstreamRequest, open_body: OpenBody, loop: asyncio.AbstractEventLoop
    ) -> UpstreamResponse:
        route = self._routes.get(request.service) or self._resolve(request.service)
        body = await open_body() if request.body is not None and request.body.length != 0 else None
        sender = route.sender or self._own_client(loop)
        return await sender.send(next(route.origins), request, body)

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


async def call_app(
    app: ASGIApp, conversation: Conversation, scope: Scope, receive: Receive, send: Send
) -> Reply | None:
    """Let an app of this process answer; its messages pass as they come, only its head goes through the conversation.

    Returns:
        None when the app has answered, else the reply that is to be sent in its place.
    """
    try:
        request = next(conversation)
    except StopIteration as stop:
        return _reply_of(stop.value)
    reply: Reply | None = None

    async def relay(message: Message) -> None:
        nonlocal reply
        if message["type"] == "http.response.start":
            head = ResponseHead(message["status"], [(bytes(n), bytes(v)) for n, v in message.get("headers", ())])
            outcome = _answered(conversation, head)
            reply = _reply_of(outcome)
            if isinstance(outcome, Relay):
                message = {**message, "status": outcome.head.status, "headers": outcome.head.headers}
        if reply is None:
            await send(message)

    await app(_app_scope(scope, request), receive, relay)
    return reply


def _reply_of(outcome: Relay | Reply) -> Reply | None:
    return outcome if isinstance(outcome, Reply) else None


def _answered(conversation: Conversation, head: ResponseHead) -> Relay | Reply:
    try:
        conversation.send(head)
    except StopIteration as stop:
        outcome: Relay | Reply = stop.value
        return outcome
    raise RuntimeError("an app that is running already cannot be asked a second time")


def _app_scope(scope: Scope, request: UpstreamRequest) -> Scope:
    path, _, query = request.target.partition(b"?")
    return {
        **scope,
        "method": request.method,
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": framed_headers(request),
    }
