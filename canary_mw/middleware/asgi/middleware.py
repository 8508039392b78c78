"""The ASGI shell: `CanaryMiddleware` decides about every HTTP request, and forwards those that are another service's.

Nothing is buffered, and nothing that goes to the wrapped app is touched but for `scope["canary_mw"]`, and for headers
that count from trusted peers only, where some are named.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Mapping as Dict
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from canary_mw.client.limits import Limits
from canary_mw.exceptions import ClientError
from canary_mw.forwarding.hop import HopContext
from canary_mw.http.framing import check_head
from canary_mw.http.messages import RequestHead
from canary_mw.http.target import PATH_SAFE
from canary_mw.middleware.asgi.lifespan import run_lifespan
from canary_mw.middleware.asgi.relay import Forwarder, PendingResult, send_reply
from canary_mw.middleware.asgi.websocket import close_tunnels, deny_handshake, tunnel, wait_tunnels, websocket_request
from canary_mw.middleware.base import MiddlewareBase, Rules
from canary_mw.observability.observers import Observer
from canary_mw.routing.decision import decide
from canary_mw.routing.group import Decision
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.endpoints import DNS_INTERVAL
from canary_mw.upstreams.shadows import ShadowSender

if TYPE_CHECKING:
    import httpx


# What a websocket is answered with, where the message itself does not say it.
_STATUSES = {"websocket.accept": 101, "websocket.close": 403}


class StartedRequest(NamedTuple):
    """What was done for a request before it came here.

    Attributes:
        since: `perf_counter` when observers were told of the decision, None when they were not.
        pending: gives what is to be relayed, once the request was sent.
    """

    decision: Decision | None
    head: RequestHead
    hop: HopContext
    since: float | None = None
    pending: PendingResult | None = None


class CanaryMiddleware(MiddlewareBase):
    """Pure ASGI middleware that routes by Mappings.

    A request that matches nothing, or whose Mapping leads to the service that this process is, goes to the wrapped app
    with `scope["canary_mw"]` set to the `Decision` or None. All others are forwarded to their service, websockets too
    where the Mapping allows the upgrade. Everything else goes to the wrapped app. Rules are loaded at lifespan startup,
    or at the first request without it.

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
        trusted_headers: names of headers that count from those peers only; all others' are removed before anybody reads
            them.
        header_key_file: file of secrets, one a line; a trusted header then counts with a signature only, from any peer.
        observers: told of every request.
        hop_id: name of this deployment in `via`; made from the workload's name by default.
        limits: bounds of our own client.
        dns_interval: seconds between two look-ups of the name of an upstream.
        replay_limit: bytes of a request body that are kept for retries and shadows.
        shadow_limit: copies for shadows that may be in flight.
        shadow_writes: shadows get copies of all requests, not only of GET, HEAD and OPTIONS.
        secrets: directory of the Secrets that TLSContexts name; by default the environment's `CANARY_MW_SECRETS`.

    Raises:
        ConfigError: an argument that cannot work.
    """

    # Whether the service that this process is, is the wrapped app; a proxy forwards to it as to any other.
    wraps = True

    def __init__(
        self,
        app: ASGIApp,
        *,
        rules: Rules,
        local: str | Iterable[str] = (),
        services: Dict[str, ASGIApp] | None = None,
        transports: Dict[str, "httpx.AsyncBaseTransport"] | None = None,
        upstreams: Dict[str, str | Sequence[str]] | None = None,
        roll: Callable[[], float] = lambda: random() * 100.0,
        trusted: Iterable[str] = (),
        trusted_headers: Iterable[str] = (),
        header_key_file: str | os.PathLike[str] | None = None,
        observers: Sequence[Observer] = (),
        hop_id: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        dns_interval: float = DNS_INTERVAL,
        replay_limit: int = 65536,
        shadow_limit: int = 100,
        shadow_writes: bool = False,
        secrets: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            "asgi",
            rules,
            local,
            roll=roll,
            trusted=trusted,
            trusted_headers=trusted_headers,
            header_key_file=header_key_file,
            observers=observers,
            hop_id=hop_id,
            shadow_writes=shadow_writes,
        )
        self.app = app
        self.upstreams = Upstreams(upstreams, transports, services, limits, dns_interval, secrets=secrets)
        self.shadows = ShadowSender(self.upstreams, shadow_limit)
        self._forwarder = Forwarder(self.upstreams, self.shadows, replay_limit, self.refusals)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one lifespan."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await run_lifespan(self, self.app, scope, receive, send)
            elif scope["type"] == "websocket":
                await self._websocket(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        if not self.started:
            self.start()
        table = self.store.table
        if self.trusted_headers is not None:
            scope = self._scope_without_untrusted(scope)
        try:
            head = request_head(scope)
            if table.request_policy is not None:
                head = table.admit(head)
        except ClientError as exc:
            await self._refuse(scope, send, exc)
            return
        decision = decide(table, head, self.roll())
        if self.observed:
            await self._observe(decision, head, self.hop(head, table.settings), scope, receive, send)
        elif decision is None or (decision.local and self.wraps and decision.shadow is None):
            await self.app({**scope, "canary_mw": decision}, receive, send)
        elif not (decision.local and self.wraps):
            hop = self.hop(head, table.settings)
            await self._forwarder.forward(decision, head, hop, scope, receive, send)
        else:
            await self._serve(decision, head, self.hop(head, table.settings), scope, receive, send)

    async def resume(self, begun: StartedRequest, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that was decided already."""
        decision, head, hop, since, answering = begun
        if self.observed:
            await self._observe(decision, head, hop, scope, receive, send, since, answering)
        else:
            await self._serve(decision, head, hop, scope, receive, send, answering)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.started:
            self.start()
        table = self.store.table
        if self.trusted_headers is not None:
            scope = self._scope_without_untrusted(scope)
        try:
            head = request_head(websocket_request(scope))
            if table.request_policy is not None:
                head = table.admit(head)
        except ClientError as exc:
            await deny_handshake(scope, receive, send, self._forwarder.refusal(exc))
            return
        decision = decide(table, head, self.roll())
        serve = self._observe if self.observed else self._serve
        await serve(decision, head, self.hop(head, table.settings), scope, receive, send)

    def _scope_without_untrusted(self, scope: Scope) -> Scope:
        client = scope.get("client")
        return {**scope, "headers": self._strip_untrusted(scope["headers"], client[0] if client else None)}

    def ejections(self) -> dict[str, int]:
        """How often endpoints were ejected; see `Upstreams.ejections`."""
        return self.upstreams.ejections()

    def end_websockets(self) -> list[asyncio.Task[Any]]:
        """Tell both sides of every websocket of this loop that we are going away; returns the tasks that do it."""
        return close_tunnels(self.upstreams)

    async def aclose(self) -> None:
        """Close the connections of this loop, and follow the rules no longer; a later request starts again."""
        self._stop()
        await wait_tunnels(self.upstreams)
        await self.shadows.aclose()
        await self.upstreams.aclose()

    async def _observe(
        self,
        decision: Decision | None,
        head: RequestHead,
        hop: HopContext,
        scope: Scope,
        receive: Receive,
        send: Send,
        since: float | None = None,
        answering: PendingResult | None = None,
    ) -> None:
        began = self.notify_decided(decision, head) if since is None else since
        status: int | None = None
        reason: str | None = None

        # Not a coroutine of its own: every message passes here.
        def noting(message: Message) -> Awaitable[None]:
            nonlocal status
            if status is None:
                status = message.get("status") or _STATUSES.get(message["type"])
            return send(message)

        try:
            reason = await self._serve(decision, head, hop, scope, receive, noting, answering)
        except BaseException as exc:
            reason = type(exc).__name__
            raise
        finally:
            self.notify_finished(decision, head, status, began, reason)

    async def _serve(
        self,
        decision: Decision | None,
        head: RequestHead,
        hop: HopContext,
        scope: Scope,
        receive: Receive,
        send: Send,
        answering: PendingResult | None = None,
    ) -> str | None:
        """Have a request answered by who is to; see `Forwarder.forward`."""
        if decision is not None and not (decision.local and self.wraps):
            if scope["type"] == "websocket":
                await self._tunnel(decision, head, hop, scope, receive, send)
                return None
            return await self._forwarder.forward(decision, head, hop, scope, receive, send, answering)
        app_scope = {**scope, "canary_mw": decision}
        if decision is None or decision.shadow is None or scope["type"] == "websocket":
            await self.app(app_scope, receive, send)
        else:
            await self._forwarder.serve_and_shadow(self.app, decision, head, hop, app_scope, receive, send)
        return None

    async def _tunnel(
        self, decision: Decision, head: RequestHead, hop: HopContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            if "canary_mw.checked" not in scope:
                check_head("GET", scope.get("raw_path") or b"/", list(head.headers), "1.1")
            await tunnel(decision, head, hop, scope, receive, send, self.upstreams)
        except ClientError as exc:
            await deny_handshake(scope, receive, send, self._forwarder.refusal(exc))

    async def _refuse(self, scope: Scope, send: Send, error: ClientError) -> None:
        reason = await send_reply(send, self._forwarder.refusal(error, scope["http_version"]))
        path = scope.get("raw_path") or b""
        self.notify_refused(scope["method"], path.decode("latin-1"), error.status_hint, reason)


def request_head(scope: Scope) -> RequestHead:
    """The request as the rules see it: the whole path that the client sent, whatever `root_path` says.

    Raises:
        ClientError: see `RequestHead`.
    """
    client, server = scope.get("client"), scope.get("server")
    return RequestHead.from_wire(
        scope["method"],
        scope.get("raw_path") or quote(scope["path"], safe=PATH_SAFE).encode(),
        scope["query_string"],
        scope["headers"],
        client[0] if client else None,
        scope.get("scheme", "http"),
        scope["http_version"],
        client[1] or 0 if client else 0,
        server[1] or 0 if server else 0,
    )
