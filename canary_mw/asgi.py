"""The ASGI shell: `CanaryMiddleware` decides about every HTTP request, and forwards those that are another service's.

Nothing is buffered, and nothing that goes to the wrapped app is touched but for `scope["canary_mw"]`.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Dict
from http import HTTPStatus
from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .decision import decide
from .exceptions import BadTarget, ClientDisconnected, ClientError, UpstreamError
from .exchange import Conversation, exchange, plain_reply
from .forwarding import Hop
from .group import Decision
from .hops import default_hop_id, hop_mark, local_names, new_request_id, trust
from .http11 import Limits
from .inbox import Inbox, Rounds
from .messages import RawHeaders, Relay, Reply, RequestHead
from .observers import Decided, Finished, Observer, notify
from .sources import ConfigSource, FileSource
from .store import RuleStore
from .transports import UpstreamResponse
from .upstreams import ASGIApp, Message, Receive, Scope, Send, Upstreams, call_app

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("canary_mw.asgi")

_SAFE = "/:@!$&'()*+,;=~"
_BODILESS = (204, 304)
_REFUSALS = {
    400: "the request is not one that can be forwarded\n",
    413: "the request body is too large\n",
    508: "the request came back to where it was: a loop\n",
}


class CanaryMiddleware:
    """Pure ASGI middleware that routes by Mappings.

    A request that matches nothing, or whose Mapping leads to the service that this process is, goes to the wrapped app
    with `scope["canary_mw"]` set to the `Decision` or None. All others are forwarded to their service. Websockets and
    everything else go to the wrapped app. Rules are loaded at lifespan startup, or at the first request without it.

    Args:
        app: the ASGI app behind.
        rules: a file or directory of rules, a `ConfigSource`, or a `RuleStore`, which its owner stops.
        local: names of the service that this process is; the environment's `CANARY_MW_LOCAL` wins. A shared store
            brings its own.
        services: ASGI apps of this process by the service that they answer for.
        transports: httpx transports by service, in place of our own client.
        upstreams: URLs by service, "*" for all that are not named.
        roll: draws a percent in [0, 100).
        trusted: addresses and networks (CIDR, "*" for all) of the peers whose X-Forwarded-* headers count.
        observers: told of every request.
        hop_id: name of this deployment in `via`; made from the workload's name by default.
        limits: bounds of our own client.

    Raises:
        ConfigError: an argument that cannot work.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        rules: str | os.PathLike[str] | ConfigSource | RuleStore,
        local: str | Iterable[str] = (),
        services: Dict[str, ASGIApp] | None = None,
        transports: Dict[str, "httpx.AsyncBaseTransport"] | None = None,
        upstreams: Dict[str, str | Sequence[str]] | None = None,
        roll: Callable[[], float] = lambda: random() * 100.0,
        trusted: Iterable[str] = (),
        observers: Sequence[Observer] = (),
        hop_id: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        names = local_names(local)
        self.app = app
        self._owned = not isinstance(rules, RuleStore)
        self.store = rules if isinstance(rules, RuleStore) else _store(rules, names, observers)
        self._upstreams = Upstreams(upstreams, transports, services, limits)
        self._roll = roll
        # Records that nobody wants are not made.
        self._deciding = [each for each in observers if getattr(type(each), "decided", None) is not Observer.decided]
        self._finishing = [each for each in observers if getattr(type(each), "finished", None) is not Observer.finished]
        self._trusts = trust(trusted)
        paths = [os.fspath(rules)] if isinstance(rules, str | os.PathLike) else []
        mark = hop_mark(hop_id or default_hop_id("asgi", names, paths))
        self._hops = Hop(mark, False, new_request_id), Hop(mark, True, new_request_id)
        self._rounds: Rounds | None = None
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one lifespan."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._lifespan(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        if not self._started:
            self.start()
        try:
            head = request_head(scope)
        except BadTarget as exc:
            await self._refuse(scope, send, exc)
            return
        decision = decide(self.store.table, head, self._roll())
        if self._deciding or self._finishing:
            await self._observed(decision, head, scope, receive, send)
        elif decision is None or decision.local:
            await self.app({**scope, "canary_mw": decision}, receive, send)
        else:
            await self.forward(decision, head, scope, receive, send)

    def start(self) -> None:
        """Load the rules and follow them; harmless when done already."""
        self.store.start()
        self._started = True

    async def aclose(self) -> None:
        """Close the connections of this loop, and follow the rules no longer; a later request starts again."""
        self._started = False
        if self._owned:
            self.store.stop()
        await self._upstreams.aclose()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def starting() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
            return message

        async def ending(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await self.aclose()
            await send(message)

        try:
            await self.app(scope, starting, ending)
        finally:
            # The app may know no lifespan, or fail; requests then start what they need.
            if self._started:
                await self.aclose()

    async def _observed(
        self, decision: Decision | None, head: RequestHead, scope: Scope, receive: Receive, send: Send
    ) -> None:
        began = perf_counter()
        request: dict[str, Any] = {"method": head.method, "path": head.path.decode("latin-1")}
        if decision is not None:
            mapping = decision.mapping
            request |= {"mapping": mapping.name, "service": mapping.service.text, "variant": decision.variant}
        if self._deciding:
            notify(self._deciding, Decided(**request))
        status: int | None = None
        reason: str | None = None

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if decision is None or decision.local:
                await self.app({**scope, "canary_mw": decision}, receive, noting)
            else:
                reason = await self.forward(decision, head, scope, receive, noting)
        except BaseException as exc:
            reason = type(exc).__name__
            raise
        finally:
            seconds = perf_counter() - began
            notify(self._finishing, Finished(status=status, seconds=seconds, reason=reason, **request))

    async def forward(
        self, decision: Decision, head: RequestHead, scope: Scope, receive: Receive, send: Send
    ) -> str | None:
        """Send a request to the service of its Mapping and relay the answer.

        Returns:
            Why the answer is not the upstream's, or why there is none; None when it was relayed whole.

        Raises:
            UpstreamError: the upstream failed after its head was relayed. That must reach the server, which then cuts
                the connection: every server does on an exception, not every one when the end is just missing.
        """
        # Some servers add trailers to this list while the body comes in.
        head.headers = list(head.headers)
        conversation = exchange(decision, head, self._hops[self._trusts(head.client)])
        app = self._upstreams.app(decision.mapping.service)
        try:
            if app is None:
                return await self._converse(conversation, head, receive, send)
            reply = await call_app(app, conversation, {**scope, "canary_mw": decision}, receive, send)
        except ClientError as exc:
            reply = _refusal(exc)
        except UpstreamError as exc:
            logger.warning("upstream %s failed in mid-answer: %s", decision.mapping.service.text, exc)
            raise exc.with_traceback(None) from None
        return None if reply is None else await send_reply(send, reply)

    async def _converse(
        self, conversation: Conversation, head: RequestHead, receive: Receive, send: Send
    ) -> str | None:
        # Asked once and handed on: it costs a system call.
        loop = asyncio.get_running_loop()
        if self._rounds is None or self._rounds.loop is not loop:
            self._rounds = Rounds(loop)
        inbox = Inbox(receive, self._rounds)
        response: UpstreamResponse | None = None
        inbox.watch_soon()
        try:
            outcome, response = await self._upstreams.arun(conversation, inbox.open, loop)
            if isinstance(outcome, Reply):
                return await send_reply(send, outcome)
            assert response is not None
            await relay(response, outcome, head, inbox, send)
        except ClientDisconnected:
            return "client left"
        except asyncio.CancelledError:
            if inbox.took_part():
                return "client left"
            raise
        finally:
            inbox.close()
            if response is not None:
                response.close()
        return None

    async def _refuse(self, scope: Scope, send: Send, error: ClientError) -> None:
        reason = await send_reply(send, _refusal(error))
        path = scope.get("raw_path") or b""
        record = {"method": scope["method"], "path": path.decode("latin-1"), "status": error.status_hint}
        notify(self._finishing, Finished(**record, seconds=0.0, reason=reason))


def _store(
    rules: str | os.PathLike[str] | ConfigSource, local: frozenset[str], observers: Sequence[Observer]
) -> RuleStore:
    source = FileSource(rules) if isinstance(rules, str | os.PathLike) else rules
    return RuleStore(source, local=local, middleware=True, observers=observers)


def request_head(scope: Scope) -> RequestHead:
    """The request as the rules see it: the whole path that the client sent, whatever `root_path` says.

    Raises:
        BadTarget: see `RequestHead`.
    """
    client = scope.get("client")
    return RequestHead.from_wire(
        scope["method"],
        scope.get("raw_path") or quote(scope["path"], safe=_SAFE).encode(),
        scope["query_string"],
        scope["headers"],
        client[0] if client else None,
        scope.get("scheme", "http"),
        scope["http_version"],
    )


async def relay(response: UpstreamResponse, outcome: Relay, head: RequestHead, inbox: Inbox, send: Send) -> None:
    """Pass an answer on as it comes; one that is complete already goes out in one piece."""
    status, headers = outcome.head.status, outcome.head.headers
    body = b"" if head.method == "HEAD" or status in _BODILESS else response.take()
    if body is not None:
        inbox.close()
        if head.http_version == "1.0" and body and not any(name == b"content-length" for name, _ in headers):
            # Such a client does not know the chunks that the server would make of it.
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    if _is_event_stream(headers):
        response.cancel_deadline()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while piece := await response.read():
        rest = response.take()
        if rest is not None:
            inbox.close()
            await send({"type": "http.response.body", "body": piece + rest})
            return
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    inbox.close()
    await send({"type": "http.response.body", "body": b""})


def _is_event_stream(headers: RawHeaders) -> bool:
    return any(name == b"content-type" and value[:17].lower() == b"text/event-stream" for name, value in headers)


async def send_reply(send: Send, reply: Reply) -> str:
    """Send an answer of our own; returns what it is called in a log."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers or []})
    await send({"type": "http.response.body", "body": reply.body})
    return HTTPStatus(reply.status).phrase.lower()


def _refusal(exc: ClientError) -> Reply:
    return plain_reply(exc.status_hint, _REFUSALS[exc.status_hint])
