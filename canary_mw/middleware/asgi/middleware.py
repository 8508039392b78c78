"""The ASGI middleware: `CanaryMiddleware` routes every HTTP request, and forwards those of other services.

Bodies are not buffered. The wrapped app gets the scope of the server itself, so that layers outside see what the app
writes into it; `scope["canary_mw"]` is added. Headers of `trusted_headers` from untrusted peers are removed.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Dict
from functools import partial
from random import random
from typing import TYPE_CHECKING, Any

from canary_mw.client.limits import Limits
from canary_mw.exceptions import ClientError, ConfigError
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.hop import HopContext
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.host_server import HostProbe
from canary_mw.middleware.asgi.lifespan import in_event_loop, run_lifespan
from canary_mw.middleware.asgi.open_tunnels import close_tunnels, wait_tunnels
from canary_mw.middleware.asgi.relay import Forwarder, PendingResult, StartedRequest
from canary_mw.middleware.asgi.release import noting, with_headers
from canary_mw.middleware.asgi.replies import ObservedSend, deny_handshake, send_reply
from canary_mw.middleware.asgi.scope import request_head, websocket_request, with_user
from canary_mw.middleware.asgi.services import ServiceApps
from canary_mw.middleware.audience.aio import Asker
from canary_mw.middleware.base import MiddlewareBase, Rules
from canary_mw.middleware.fallback import SafetyNets
from canary_mw.middleware.filters.asgi import Gate, change_scope
from canary_mw.middleware.options import Arguments
from canary_mw.observability.observers import Observer
from canary_mw.propagate.carried import Carried
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.types import ASGIApp, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.shadows import ShadowSender

if TYPE_CHECKING:
    import httpx


class CanaryMiddleware(MiddlewareBase):
    """Pure ASGI middleware that routes by Mappings.

    A request that matches no Mapping, or whose Mapping leads to the service that this process runs, goes to the wrapped
    app, with `scope["canary_mw"]` set to the `Decision` or None. All others are forwarded to their service, websockets
    too, where the Mapping allows the upgrade. Other scope types go to the wrapped app. Rules are loaded at lifespan
    startup, or else at the first request. An argument that is not given is read from its variable; README lists them.

    Args:
        app: the wrapped ASGI app.
        rules: a file or directory of rules, a `ConfigSource`, or a `RuleStore`, which its owner stops. Of the variables
            that they name, only those listed in the environment's `CANARY_MW_ENV_NAMES` are put in.
        local: names of the service that this process runs. The environment's `CANARY_MW_LOCAL` overrides it, because
            the gray version usually runs the same code, and a `RuleStore` has names of its own.
        services: ASGI apps of this process by service; they serve its requests in place of an upstream. They start
            after the wrapped app, and end before it; one that does not start gets no requests (503).
        transports, upstreams: by service: httpx transports in place of our client, or URLs; "*" for all others.
        trusted: addresses and networks (CIDR, "*" for all) of the peers whose X-Forwarded-* headers are used.
        trusted_headers: headers that only those peers may send; removed from other requests before anything reads them.
        header_key_file: file of secrets, one per line; any peer may send a trusted header that is signed with one.
        roll, observers: draws a percent in [0, 100); notified of every request.
        hop_id: name of this deployment in `via`; derived from the workload's name by default.
        limits, dns_interval: of the built-in client; seconds between two look-ups of the name of an upstream.
        replay_limit: bytes of a request body that are kept for retries and shadows, 65536 by default.
        shadow_limit, shadow_writes: copies in flight, 100 by default; of all requests, not only GET, HEAD and OPTIONS.
        strict: do not start with rules that are missing or in error; without it the app gets what no rule takes.
        secrets, state: directories of the Secrets that TLSContexts name, and of the states of releases with steps.
        run_dir: folder that the workers of this server share; told from the server by default, where possible.
        admin_host, admin_port: where one of its workers answers health, rules and metrics; nowhere by default.
        admin_token_file: file with a line `SCOPE TOKEN` for each who may give commands there; nobody by default.
        filters, guard_unmapped: whether AuthServices are asked, and also about what no Mapping takes; both by default.
        unguarded: paths of the app that they are never asked about, by default those of probes.

    Raises:
        ConfigError: an argument is not valid. In a running event loop the start raises it instead: the startup of the
            lifespan fails with it, so that the server does not start, or else each request.
    """

    upstreams: Upstreams

    def __init__(
        self,
        app: ASGIApp,
        *,
        rules: Rules | None = None,
        local: str | Iterable[str] = (),
        services: Dict[str, ASGIApp] | None = None,
        transports: Dict[str, "httpx.AsyncBaseTransport"] | None = None,
        upstreams: Dict[str, str | Sequence[str]] | None = None,
        roll: Callable[[], float] = lambda: random() * 100.0,
        trusted: Iterable[str] | None = None,
        trusted_headers: Iterable[str] | None = None,
        header_key_file: str | os.PathLike[str] | None = None,
        observers: Sequence[Observer] = (),
        hop_id: str | None = None,
        limits: Limits | None = None,
        dns_interval: float | None = None,
        replay_limit: int | None = None,
        shadow_limit: int | None = None,
        shadow_writes: bool | None = None,
        strict: bool | None = None,
        secrets: str | os.PathLike[str] | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        admin_host: str | None = None,
        admin_port: int | None = None,
        admin_token_file: str | os.PathLike[str] | None = None,
        filters: bool | None = None,
        guard_unmapped: bool | None = None,
        unguarded: Iterable[str] | None = None,
    ) -> None:
        self.app, self.started = app, False
        self.host, self.services = HostProbe(wraps=self.wraps), ServiceApps(services)
        given = Arguments(
            *(upstreams, trusted, trusted_headers, header_key_file, secrets, hop_id, limits, dns_interval),
            *(replay_limit, shadow_limit, shadow_writes, strict, run_dir, state, admin_host, admin_port),
            *(admin_token_file, filters, guard_unmapped, unguarded),
        )
        try:
            super().__init__("asgi", rules, local, roll=roll, observers=observers, arguments=given)
            self._set_up(transports)
        except ConfigError as exc:
            if not (self.wraps and in_event_loop()):
                raise
            self._config_error = exc

    def _set_up(self, transports: Dict[str, "httpx.AsyncBaseTransport"] | None) -> None:
        if not self.enabled:
            self.services = ServiceApps(None)
        options, apps = self.options, self.services.by_name
        create = partial(Upstreams, secrets=options.secrets, tracer=self.tracer, discovery=self.discovery)
        self.upstreams = create(options.upstreams, transports, apps, options.limits, options.dns_interval)
        self.upstreams.errors.tally, self.audience = self.tally, Asker(self.answers)
        self.shadows, self.nets = ShadowSender(self.upstreams, options.shadow_limit, self.tally), SafetyNets(self)
        self._forwarder = Forwarder(self.upstreams, self.shadows, options.replay_limit, self.refusals)
        self.gate = None if self.filters is None else Gate(self, self.filters, self._forwarder.refusal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one lifespan."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await run_lifespan(self, self.app, scope, receive, send)
            elif scope["type"] == "websocket":
                if not self.started:
                    self.start()
                await self._call_with_extras(self.store.table, scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        if not self.started:
            self.start()
        table = self.store.table
        if table.has_extras or self.told.on:
            await self._call_with_extras(table, scope, receive, send)
            return
        if self.trusted_headers is not None:
            self._remove_untrusted(scope)
        try:
            head = self.host.request_head(scope, receive, send) if scope.get("root_path") else request_head(scope)
        except ClientError as exc:
            await self._refuse(scope, send, exc)
            return
        decision = scope["canary_mw"] = self.decide(table, head, self.roll(), self.person)
        if self.observed:
            await self._observe(decision, head, self.hop(head, table.settings), scope, receive, send)
        elif decision is None or (decision.local and self.wraps and decision.shadow is None):
            await self.app(scope, receive, send)
        elif not (decision.local and self.wraps):
            send = self.host.without_own_headers(receive, send)
            await self._forwarder.forward(decision, head, self.hop(head, table.settings), scope, receive, send)
        else:
            await self._serve(decision, head, self.hop(head, table.settings), scope, receive, send)

    async def _call_with_extras(self, table: RouteTable, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one websocket, or one request of a table whose Module or releases ask for more than a look-up."""
        self._remove_untrusted(scope, table)
        websocket = scope["type"] == "websocket"
        try:
            seen = websocket_request(scope) if websocket else scope
            head = self._begin(table, self.host.request_head(seen, receive, send), change_scope, scope)
        except ClientError as exc:
            if websocket:
                await deny_handshake(scope, receive, send, self._forwarder.refusal(exc))
            else:
                await self._refuse(scope, send, exc)
        else:
            await self._route(table, head, scope, receive, send)

    async def _route(self, table: RouteTable, head: RequestHead, scope: Scope, receive: Receive, send: Send) -> None:
        head.look_up_often()
        person = with_user(self.release.person_of(table, head), table, scope)
        began = None
        if table.filters is not None and self.gate is not None:
            if (passage := await self.gate.admit(table, head, person, scope, receive, send)) is None:
                return
            decision, head, person, receive, send, began = passage
        elif table.asks_person:
            decision, person = await self.audience.decide(self.decide, table, head, self.roll(), person, scope)
        else:
            decision = self.decide(table, head, self.roll(), person)
        scope["canary_mw"] = decision
        send = with_headers(noting(send, head, table), self.release.headers(table, decision, head))
        net = self.nets.open(table, decision, head, person)
        serve = partial(self._observe, began=began) if self.observed else self._serve
        with Carried(head.headers, decision, table):
            await serve(decision, head, self.hop(head, table.settings), scope, receive, send, net=net)

    async def resume(self, request: StartedRequest, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that is decided."""
        decision, head, hop, since, pending, table, net = request
        scope["canary_mw"] = decision
        send = with_headers(send, None if table is None else self.release.headers(table, decision, head))
        if self.observed:
            await self._observe(decision, head, hop, scope, receive, send, since, pending, net)
        else:
            await self._serve(decision, head, hop, scope, receive, send, pending, net)

    def _remove_untrusted(self, scope: Scope, table: RouteTable | None = None) -> None:
        headers, client = scope.get("headers", ()), scope.get("client")
        scope["headers"] = self._strip_untrusted(headers, client[0] if client else None, table)

    def end_websockets(self) -> list[asyncio.Task[Any]]:
        """Close both sides of every websocket of this loop with 1001 (going away); returns the tasks that do it."""
        return close_tunnels(self.upstreams)

    async def aclose(self) -> None:
        """Close the connections of this loop, and stop following the rules; a later request starts again."""
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
        pending: PendingResult | None = None,
        net: SafetyNet | None = None,
        began: float | None = None,
    ) -> None:
        decided_at = self.notify_decided(decision, head) if since is None else since
        started_at = began or decided_at
        reason: str | None = None

        def count(sent: ObservedSend) -> None:
            self.count_finished(decision, head, sent.status, started_at, None, net, sent.first_byte, sent.body)

        sent = ObservedSend(send, count)
        try:
            reason = await self._serve(decision, head, hop, scope, receive, sent, pending, net)
        except BaseException as exc:
            reason = type(exc).__name__
            raise
        finally:
            about = sent.status, started_at, reason, net, sent.first_byte, sent.body
            self.notify_finished(decision, head, *about, counted=sent.counted)

    async def _serve(
        self,
        decision: Decision | None,
        head: RequestHead,
        hop: HopContext,
        scope: Scope,
        receive: Receive,
        send: Send,
        pending: PendingResult | None = None,
        net: SafetyNet | None = None,
    ) -> str | None:
        """Call the wrapped app, or forward the request; returns as `Forwarder.forward` does."""
        if decision is not None and not (decision.local and self.wraps):
            send = self.host.without_own_headers(receive, send)
            if scope["type"] == "websocket":
                # Loads `websockets`, which most apps never need.
                from canary_mw.middleware.asgi.websocket import serve_websocket

                refuse = self._forwarder.refusal
                await serve_websocket(decision, head, hop, scope, receive, send, self.upstreams, refuse, net)
                return None
            return await self._forwarder.forward(decision, head, hop, scope, receive, send, pending, net)
        app = self.app
        if decision is not None and decision.shadow is not None and scope["type"] != "websocket":
            app = partial(self._forwarder.serve_and_shadow, app, decision, head, hop)
        if net is not None and decision is not None and scope["type"] != "websocket":
            return await self._forwarder.call_gray(app, net, decision, head, hop, scope, receive, send)
        await app(scope, receive, send)
        return None

    async def _refuse(self, scope: Scope, send: Send, error: ClientError) -> None:
        reason = await send_reply(send, self._forwarder.refusal(error, scope["http_version"]))
        path = (scope.get("raw_path") or b"").decode("latin-1")
        self.notify_refused(scope["method"], path, error.status_hint, reason)
