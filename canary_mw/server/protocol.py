"""uvicorn's HTTP protocol with a guard at the door, for the standalone server: `http=` of uvicorn takes it as a class.

uvicorn and its parser let through what an upstream may read differently, have no deadline for a client that stalls,
and make headers of trailers. Here a head is checked when it is complete and measured while it is not; what is refused
gets a constant answer and the end of its connection, and no app sees it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from canary_mw.exceptions import ClientError
from canary_mw.http.framing import MAX_HEAD, body_framing, check_head
from canary_mw.http.messages import BodyFraming
from canary_mw.middleware.asgi.middleware import StartedRequest
from canary_mw.server.deadlines import (
    BODY_TIMEOUT,
    FIRST_BYTE_TIMEOUT,
    HEAD_TIMEOUT,
    NEVER,
    SHUTDOWN_IDLE,
    DeadlineProtocol,
)
from canary_mw.server.fast_path import FastPath, FastPathRequest
from canary_mw.server.response_cycle import GuardedCycle, http_scope

logger = logging.getLogger("canary_mw.protocol")

# Requests that wait behind one that runs.
MAX_PIPELINED = 256


class _AfterTheLast(Exception):
    """A request behind one that ends the connection."""


class _BodyOnly:
    """Callbacks of a parser that reads one body for a protocol."""

    def __init__(self, protocol: "GuardedProtocol") -> None:
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete
        self._begun = False

    def on_message_begin(self) -> None:
        if self._begun:
            raise _AfterTheLast
        self._begun = True


class GuardedProtocol(DeadlineProtocol):
    """One connection of a client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        # Bytes since a head began or a body went on, and whether either has happened in this read.
        self._barren = 0
        self._moved = False
        # The body of a request for an upgrade.
        self._skipped: BodyFraming | None = None
        self._to_be_told: Callable[[], object] | None = None
        way = getattr(self.app, "fast_path", None)
        plain = not (self.access_log or self.root_path or self.server_state.default_headers)
        self._fast_path: FastPath | None = way if plain and self.limit_concurrency is None else None
        host, port = self.client or (None, 0)
        # As `RequestHead.from_wire` takes it.
        self.peer = (host, self.scheme or "http", "1.1", port, self.server[1] or 0 if self.server else 0)
        self._due = self._timer.now + (SHUTDOWN_IDLE if self._last else FIRST_BYTE_TIMEOUT)
        self._timer.enter(self, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """It left; uvicorn tells only the last of several pipelined requests."""
        self._timer.leave(self)
        self.pipeline.clear()
        if self._running is not None:
            self._running.on_disconnect()
        if isinstance(self.cycle, FastPathRequest):
            self.cycle = None
        super().connection_lost(exc)
        if self._to_be_told is not None:
            self._to_be_told()

    def on_disconnect(self, tell: Callable[[], object] | None) -> None:
        """See `inbox.Client`."""
        self._to_be_told = tell
        if tell is not None and self.transport.is_closing():
            tell()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._phase == "closing":
            return
        self._moved = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._upgrade(data[exc.args[0] :])
            return
        except httptools.HttpParserError as exc:
            cause = exc.__context__
            if isinstance(cause, _AfterTheLast):
                self._phase = "closing"
                return
            logger.debug("refused a request of %s: %s", self.client, cause or exc)
            self.refuse(cause.status_hint if isinstance(cause, ClientError) else 400)
            return
        self._barren = 0 if self._moved else self._barren + len(data)
        if self._barren > MAX_HEAD:
            self.refuse(431)

    def _upgrade(self, rest: bytes) -> None:
        if self._skipped is not None:
            self._read_body(self._skipped, rest)
        elif not self._should_upgrade():
            # Not taken up, so what follows is the next request.
            if rest:
                self.data_received(rest)
        elif self._busy():
            self.refuse(400)
        else:
            self._timer.leave(self)
            self.handle_websocket_upgrade()

    def _read_body(self, body: BodyFraming, rest: bytes) -> None:
        """Read what the parser skipped: to it a request for an upgrade ends with its head (`Upgrade: h2c` of Java)."""
        self._skipped = None
        self.parser = httptools.HttpRequestParser(_BodyOnly(self))
        framing = b"transfer-encoding: chunked" if body.length is None else b"content-length: %d" % body.length
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        if rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        if self.cycle is not None and not self.cycle.keep_alive:
            raise _AfterTheLast
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ClientError("too many requests at once")
        self.url = b""
        self.headers = []
        self._phase = "head"
        self._due = self._timer.now + HEAD_TIMEOUT

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field, its value with the blanks behind it; those of trailers are dropped."""
        if self._phase == "head":
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """A whole head: check it, and begin with the request or let it wait.

        Raises:
            ClientError: the head is refused; the parser hands that on.
        """
        version = self.parser.get_http_version()
        method = self.parser.get_method().decode("ascii")
        known = check_head(method, self.url, self.headers, version)
        self._moved = True
        if self.parser.should_upgrade():
            body = body_framing(known)
            self._skipped = body if body != (0,) else None
            if self._should_upgrade():
                if self._skipped is not None:
                    raise ClientError("a request for a websocket has a body")
                self.scope = http_scope(self, method, version, self.url, self.headers)
                return
        self._phase = "body"
        self._due = self._timer.now + BODY_TIMEOUT
        keep_alive = version != "1.0" and not self._last and self.parser.should_keep_alive() and self._skipped is None
        begun = None
        if self._fast_path is not None and version == "1.1" and not self._busy() and not self.flow.write_paused:
            begun = self._fast_path.try_start(self, method, known, keep_alive=keep_alive)
            if isinstance(begun, FastPathRequest):
                self.cycle = self._running = begun
                return
        self.expect_100_continue = known.get(b"expect", b"").lower() == b"100-continue"
        scope = http_scope(self, method, version, self.url, self.headers)
        if begun is not None:
            scope["canary_mw.begun"] = begun
        cycle = self.cycle = GuardedCycle(self, scope, keep_alive)
        app = service_unavailable if self._crowded() else self.app
        if self._busy():
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        else:
            self._start_asgi_task(cycle, app)

    def continue_in_asgi(self, trip: FastPathRequest, begun: StartedRequest) -> None:
        """Let the app go on with a request that was on the short way."""
        head = begun.head
        scope = http_scope(self, head.method, "1.1", head.path + head.query, head.headers)
        scope["canary_mw.begun"] = begun
        cycle = GuardedCycle(self, scope, trip.keep_alive)
        cycle.more_body = cycle.waiting_for_100_continue = False
        if self.cycle is trip:
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _crowded(self) -> bool:
        limit = self.limit_concurrency
        return limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._moved = True
        self._due = self._timer.now + BODY_TIMEOUT
        super().on_body(body)
        if self.flow.read_paused and not self._glancing:
            self._glance_soon()

    def on_message_complete(self) -> None:
        """The last byte of a request; its app now takes the time that it takes."""
        if self._skipped is not None:
            return
        self._moved = True
        self._phase = "idle"
        self._due = NEVER
        if not isinstance(self.cycle, FastPathRequest):
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is written: go on with the next request, wait for one, or end."""
        self.server_state.total_requests += 1
        cycle = self._running
        if self.transport.is_closing() or cycle is None:
            return
        if not cycle.keep_alive:
            self._end(linger=cycle.more_body or self._phase == "closing")
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refused is not None:
            self._refuse_now(self._refused)
        elif self._phase == "idle":
            self._due = self._timer.now + (SHUTDOWN_IDLE if self._last else self.timeout_keep_alive)
