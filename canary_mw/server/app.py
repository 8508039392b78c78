"""The standalone proxy as an ASGI app: `uvicorn canary_mw.proxy:create_app --factory`, configured by `CANARY_MW_*`."""

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from canary_mw.admin.commands.tokens import checked
from canary_mw.admin.server import AdminServer, url_of
from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.sources.named import local_names_in, source_of
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.messages import Reply
from canary_mw.host import HostLogger
from canary_mw.middleware.admin_app import admin_app
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.asgi.replies import deny_handshake
from canary_mw.middleware.asgi.shutdown import on_sigterm
from canary_mw.middleware.identity import default_hop_id
from canary_mw.middleware.settings import ENABLED, is_enabled
from canary_mw.observability.counters import RefusalCounters
from canary_mw.observability.logs.batches import BatchWriter
from canary_mw.observability.observers import Observer
from canary_mw.observability.opentelemetry_sdk import start_sdk
from canary_mw.observability.prometheus import Metrics
from canary_mw.run_folder.opened import run_folder
from canary_mw.server.access_log import open_access_log
from canary_mw.server.admin_protocol import AdminProtocol
from canary_mw.server.fast_path.path import FastPath
from canary_mw.server.settings import Settings
from canary_mw.server.tcp.listeners import TCPListeners
from canary_mw.server.traced_app import serve_traced
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

logger = HostLogger(logging.getLogger("canary_mw.start"))
# Whether a request has its server span.
_TRACED = "canary_mw.traced"
_EMPTY_BODY: Message = {"type": "http.response.body", "body": b""}


def create_app(settings: Settings | None = None) -> "Proxy":
    """Create the app from settings, by default those of the environment.

    Raises:
        ConfigError: a setting is invalid.
    """
    return Proxy(settings or Settings.from_environ())


def _source(settings: Settings) -> ConfigSource:
    if not settings.rules:
        return StaticSource("", "no --rules")
    folder = partial(run_folder, settings.run_dir)
    return source_of(settings.rules, may_exec=True, **settings.of_sources, folder=folder)


class _Forwarder(CanaryMiddleware):
    wraps = False

    def __init__(self, app: ASGIApp, settings: Settings, **arguments: Any) -> None:
        self._settings = settings
        super().__init__(app, **arguments)

    def _read_settings(self) -> Settings:
        return self._settings


class Proxy:
    """Forwards every request that a Mapping matches; answers 404 to the others, as Envoy does.

    It starts with the rules that are valid, even with none, and loads the others once they are valid. With `strict` it
    does not start while a rule is in error.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        if settings.admin_port and settings.admin_token_file:
            checked(settings.admin_token_file)
        self._metrics = Metrics() if settings.admin_port else None
        observers: list[Observer] = [self._metrics] if self._metrics else []
        self._log_writer: BatchWriter | None = None
        if settings.access_log:
            log, self._log_writer = open_access_log(settings.access_log_format, self._count_dropped_line)
            observers.append(log)
        source = _source(settings)
        self.store = RuleStore(
            source,
            local=local_names_in(source, settings.local_names),
            environ=os.environ,
            ambassador_id=settings.ambassador_id,
            observers=observers,
        )
        self._middleware = _Forwarder(
            self._not_found,
            settings,
            rules=self.store,
            observers=observers,
            hop_id=settings.hop_id or default_hop_id("proxy", settings.local_names, settings.rules),
        )
        if self._metrics is not None:
            self._metrics.follow(self._middleware)
        self.fast_path = FastPath(self._middleware) if settings.fast_path else None
        self._admin: AdminServer | None = None
        self._tracer = self._middleware.tracer
        self._end_tracing: Callable[[], None] = lambda: None
        self._remove_sigterm_handler: Callable[[], None] = lambda: None
        middleware, taken = self._middleware, (settings.port, settings.admin_port)
        self._tcp = TCPListeners(middleware.upstreams, taken, middleware.tally, told=middleware.tell_connection)
        self.store.tell(self._tcp.take_table)
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "http":
            if self._tracer is not None and _TRACED not in scope:
                scope[_TRACED] = True
                await serve_traced(self._tracer, self, scope, receive, send)
                return
            started = scope.get("canary_mw.started_request")
            try:
                if started is None:
                    await self._middleware(scope, receive, send)
                else:
                    await self._middleware.resume(started, scope, receive, send)
            except UpstreamError:
                # Logged already, as the guarded protocol knows. Other servers end the connection of a response that is
                # not complete; returning makes them log one line instead of a traceback.
                if "canary_mw.checked" in scope:
                    raise
        elif scope["type"] == "lifespan":
            scope.setdefault("state", {})[RefusalCounters.KEY] = self._middleware.refusals
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._middleware(scope, receive, send)

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404: no Mapping matches, and no app is wrapped."""
        name = self.store.table.settings.server_name
        server_header = [] if name is None else [(b"server", name.encode())]
        if scope["type"] == "websocket":
            await deny_handshake(scope, receive, send, Reply(404, headers=server_header))
            return
        headers = [(b"content-length", b"0"), *server_header]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send(_EMPTY_BODY)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except Exception as exc:  # noqa: BLE001 - the server has to report why it cannot start, whatever the error is
            await self._stop()
            await send({"type": "lifespan.startup.failed", "message": f"canary-mw cannot start: {exc}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        if self._tracer is not None:
            self._end_tracing = start_sdk()
        self._middleware.start()
        if os.environ.get(ENABLED) and not is_enabled(os.environ):
            logger.warning("%s is 0: the rules are served, and all releases are stopped: nobody gets gray", ENABLED)
        self._remove_sigterm_handler = on_sigterm(self._drain)
        self._tcp.start(self.store.table)
        if self._metrics is not None:
            app = admin_app(
                self._middleware,
                self._metrics,
                self.settings,
                token_file=self.settings.admin_token_file,
                draining=lambda: self.draining,
            )
            host, port = self.settings.admin_host, self.settings.admin_port
            self._admin = await AdminServer.start(app, host, port, AdminProtocol)
            logger.info("admin port: %s with /healthz, /readyz, /rules and /metrics", url_of(host, port))

    def _drain(self) -> list[asyncio.Task[Any]]:
        """Report not ready and close websockets at SIGTERM, while the server still finishes running requests."""
        self.draining = True
        self._tcp.close()
        return self._middleware.end_websockets()

    async def _stop(self) -> None:
        self._remove_sigterm_handler()
        await self._tcp.stop(self.settings.grace)
        if self._admin is not None:
            await self._admin.stop()
        # The thread of the rules may begin what drives the releases.
        self.store.stop()
        self._middleware.rollouts.stop()
        await self._middleware.aclose()
        self._end_tracing()
        if self._log_writer is not None:
            self._log_writer.close()

    def _count_dropped_line(self) -> None:
        if self._metrics is not None:
            self._metrics.tally("access_log_dropped_lines")
