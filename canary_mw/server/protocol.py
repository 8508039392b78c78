"""uvicorn's HTTP protocol with checks before the app, for the standalone server: `http=` of uvicorn takes the class.

uvicorn and its parser accept what an upstream may read differently, have no deadline for a client that stalls, and turn
trailers into headers. Here the size of a head is limited while it arrives, and a complete head is checked. A refused
request gets a constant response and the end of its connection, and no app sees it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httptools

from canary_mw.exceptions import ClientError
from canary_mw.http.authority import split_absolute, with_host
from canary_mw.http.framing import MAX_HEAD, body_framing, check_head
from canary_mw.http.messages import BodyFraming
from canary_mw.middleware.asgi.relay import StartedRequest
from canary_mw.server.deadlines import (
    BODY_TIMEOUT,
    FIRST_BYTE_TIMEOUT,
    HEAD_TIMEOUT,
    NEVER,
    SHUTDOWN_IDLE,
    DeadlineProtocol,
)
from canary_mw.server.fast_path.exchange import FastPathRequest
from canary_mw.server.fast_path.path import FastPath
from canary_mw.server.fast_path.plans import Sender
from canary_mw.server.response_cycle import GuardedCycle, http_scope
from canary_mw.server.uvicorn_internals import RequestResponseCycle, WebSocketsSansIOProtocol, service_unavailable
from canary_mw.server.websocket import GuardedWebSocketProtocol

logger = logging.getLogger("canary_mw.protocol")

# Pipelined requests that may wait behind the one that is being answered.
MAX_PIPELINED = 256


class _RequestAfterClose(Exception):
    """A request after one that ends the connection."""


class _BodyCallbacks:
    """Callbacks of a parser that reads one body for a protocol."""

    def __init__(self, protocol: "GuardedProtocol") -> None:
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete
        self._begun = False

    def on_message_begin(self) -> None:
        if self._begun:
            raise _RequestAfterClose
        self._begun = True


class GuardedProtocol(DeadlineProtocol):
    """One connection of a client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        # Bytes since a head was complete or body data came, and whether either happened in this read.
        self._bytes_without_progress = 0
        self._progressed = False
        # The framing of the body of a request for an upgrade, which the parser does not read.
        self._upgrade_body: BodyFraming | None = None
        self._disconnect_callback: Callable[[], object] | None = None
        fast_path = getattr(self.app, "fast_path", None)
        plain = not (self.access_log or self.root_path or self.server_state.default_headers)
        self._fast_path: FastPath | None = fast_path if plain and self.limit_concurrency is None else None
        self.sender: Sender | None = None
        self.started: StartedRequest | None = None
        host, port = self.client or (None, 0)
        # As `RequestHead.from_wire` takes it.
        self.peer = (host, self.scheme or "http", "1.1", port, self.server[1] or 0 if self.server else 0)
        self._deadline = self._timer.now + (SHUTDOWN_IDLE if self._shutting_down else FIRST_BYTE_TIMEOUT)
        self._timer.add(self, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has disconnected; uvicorn notifies only the last of several pipelined requests."""
        self._timer.remove(self)
        self.pipeline.clear()
        if self._active_cycle is not None:
            self._active_cycle.on_disconnect()
        if isinstance(self.cycle, FastPathRequest):
            self.cycle = None
        super().connection_lost(exc)
        if self._disconnect_callback is not None:
            self._disconnect_callback()

    def on_disconnect(self, callback: Callable[[], object] | None) -> None:
        """See `DisconnectNotifier` of `canary_mw.middleware.asgi.receive`."""
        self._disconnect_callback = callback
        if callback is not None and self.transport.is_closing():
            callback()

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the client."""
        if self._phase == "closing":
            return
        if self._fast_path is not None and self._may_take() and self._fast_path.take(self, data):
            self._bytes_without_progress = 0
            return
        self._progressed = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._upgrade(data[exc.args[0] :])
            return
        except httptools.HttpParserError as exc:
            cause = exc.__context__
            if isinstance(cause, _RequestAfterClose):
                self._phase = "closing"
                return
            logger.debug("refused a request of %s: %s", self.client, cause or exc)
            self.refuse(cause.status_hint if isinstance(cause, ClientError) else 400)
            return
        finally:
            self.started = None
        self._bytes_without_progress = 0 if self._progressed else self._bytes_without_progress + len(data)
        if self._bytes_without_progress > MAX_HEAD:
            self.refuse(431)

    def _upgrade(self, rest: bytes) -> None:
        if self._upgrade_body is not None:
            self._read_body(self._upgrade_body, rest)
        elif not self._should_upgrade():
            # The upgrade is ignored, so what follows is the next request.
            if rest:
                self.data_received(rest)
        elif self._busy() or self.parser.get_method() != b"GET":
            self.refuse(400)
        else:
            self._timer.remove(self)
            self.handle_websocket_upgrade()

    def _should_upgrade(self) -> bool:
        """Whether the request asks for a WebSocket. HTTP/1.0 has no upgrades (RFC 9110, section 7.8)."""
        return self.parser.get_http_version() != "1.0" and super()._should_upgrade()

    def _get_upgrade(self) -> bytes | None:
        """The protocol that is asked for, if Connection names the upgrade; either header may have several lines."""
        options = b",".join(value for name, value in self.headers if name == b"connection").lower().split(b",")
        if b"upgrade" not in [option.strip(b" \t") for option in options]:
            return None
        return b",".join(value.strip(b" \t") for name, value in self.headers if name == b"upgrade").lower() or None

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol: to the guarded one in place of uvicorn's own."""
        if self.ws_protocol_class is WebSocketsSansIOProtocol:
            self.ws_protocol_class = GuardedWebSocketProtocol
        super().handle_websocket_upgrade()

    def _read_body(self, body: BodyFraming, rest: bytes) -> None:
        """Read the body of a request for an upgrade: the parser stops after its head (Java sends `Upgrade: h2c`)."""
        self._upgrade_body = None
        self.parser = httptools.HttpRequestParser(_BodyCallbacks(self))
        framing = b"transfer-encoding: chunked" if body.length is None else b"content-length: %d" % body.length
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        if rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        """A head begins."""
        if self.cycle is not None and not self.cycle.keep_alive:
            raise _RequestAfterClose
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ClientError("too many requests at once")
        self.url = b""
        self.headers = []
        self._phase = "head"
        self._deadline = self._timer.now + HEAD_TIMEOUT

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; the parser leaves trailing whitespace on the value. Trailers are dropped."""
        if self._phase == "head":
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """A head is complete: check it, then start the request or queue it behind the one that runs.

        Raises:
            ClientError: the head is refused; the parser passes the error on.
        """
        version = self.parser.get_http_version()
        method = self.parser.get_method().decode("ascii")
        headers_by_name = check_head(method, self.url, self.headers, version)
        if self.url[:1] != b"/":
            headers_by_name = self._to_origin_form()
        self._progressed = True
        if self.parser.should_upgrade():
            body = body_framing(headers_by_name)
            self._upgrade_body = body if body != (0,) else None
            if self._should_upgrade():
                if self._upgrade_body is not None:
                    raise ClientError("a request for a websocket has a body")
                self.scope = http_scope(self, method, version, self.url, self.headers)
                return
        self._phase = "body"
        self._deadline = self._timer.now + BODY_TIMEOUT
        keep_alive = (
            version != "1.0"
            and not self._shutting_down
            and self.parser.should_keep_alive()
            and self._upgrade_body is None
        )
        started, self.started = self.started, None
        self.expect_100_continue = headers_by_name.get(b"expect", b"").lower() == b"100-continue"
        scope = http_scope(self, method, version, self.url, self.headers)
        if started is not None:
            scope["canary_mw.started_request"] = started
        cycle = self.cycle = GuardedCycle(self, scope, keep_alive)
        app = service_unavailable if self._over_concurrency_limit() else self.app
        if self._busy():
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        else:
            self._start_asgi_task(cycle, app)

    def _to_origin_form(self) -> dict[bytes, bytes]:
        """Let the authority of an absolute-form target take the place of Host, for all that read the request."""
        absolute = split_absolute(self.url)
        if absolute is not None:
            self.url, self.headers = absolute.origin_form, list(with_host(self.headers, absolute.authority))
        return dict(self.headers)

    def _may_take(self) -> bool:
        """Whether no request is being read or answered, so that the next one may take the fast path."""
        cycle = self.cycle
        ready = cycle is None or (cycle.response_complete and cycle.keep_alive)
        return ready and self._phase == "idle" and not self.flow.write_paused and not self._shutting_down

    def on_fast_path(self, request: FastPathRequest) -> None:
        """A request takes the fast path: there is no deadline for its answer but that of its Mapping."""
        self.cycle = self._active_cycle = request
        self._deadline = NEVER

    def continue_in_asgi(self, request: FastPathRequest, started: StartedRequest) -> None:
        """Let the app continue with a request of the fast path."""
        head = started.head
        scope = http_scope(self, head.method, "1.1", head.path + head.query, head.headers)
        scope["canary_mw.started_request"] = started
        cycle = GuardedCycle(self, scope, request.keep_alive)
        cycle.more_body = cycle.waiting_for_100_continue = False
        if self.cycle is request:
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _over_concurrency_limit(self) -> bool:
        limit = self.limit_concurrency
        return limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A chunk of a body."""
        self._progressed = True
        self._deadline = self._timer.now + BODY_TIMEOUT
        super().on_body(body)
        if self.flow.read_paused and not self._polling_disconnect:
            if self._sender_ended:
                self.flow.resume_reading()
            else:
                self._start_disconnect_poll()

    def on_message_complete(self) -> None:
        """A request is complete; there is no deadline for the app."""
        if self._upgrade_body is not None:
            return
        self._progressed = True
        self._phase = "idle"
        self._deadline = NEVER
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A response is written: start the next request, wait for one, or end the connection."""
        self.server_state.total_requests += 1
        cycle = self._active_cycle
        if self.transport.is_closing() or cycle is None:
            return
        if not cycle.keep_alive:
            self._end_connection(linger=cycle.more_body or self._phase == "closing")
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if self._half_closed:
                self._watch_half_closed()
        elif self._pending_error is not None:
            self._send_error(self._pending_error)
        elif self._phase == "idle":
            self._deadline = self._timer.now + (SHUTDOWN_IDLE if self._shutting_down else self.timeout_keep_alive)
