"""uvicorn's HTTP protocol with a guard at the door, for the standalone server: `http=` of uvicorn takes it as a class.

uvicorn and its parser let through what an upstream may read differently, have no deadline for a client that stalls,
and make headers of trailers. Here a head is checked when it is complete and measured while it is not; what is refused
gets a constant answer and the end of its connection, and no app sees it.
"""

import asyncio
import logging
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .clock import clock_of
from .cycle import GuardedCycle
from .exceptions import ClientError
from .framing import MAX_HEAD, check_head

logger = logging.getLogger("canary_mw.protocol")

# In ticks of the clock, which are seconds; each deadline may be late by one. A connection that has not yet sent
# anything; a head, from its first byte to its last; a body, between two pieces; and the rest of what a refused client
# sends, thrown away so that a reset does not overtake the answer.
FIRST_BYTE, HEAD, BODY, LINGER = 60, 10, 30, 5
# Seconds that an idle connection stays open when the server is going away.
LAST_CALL = 1
NEVER = 1 << 62
# Requests that wait behind one that runs.
MAX_PIPELINED = 256

_REASONS = {
    400: b"the request is not well-formed HTTP/1.1\n",
    408: b"the request came too slowly\n",
    431: b"the request head is too large\n",
}


def _refusal(status: int) -> bytes:
    reason = _REASONS[status]
    head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(reason)
    return STATUS_LINE[status] + head + reason


REFUSALS = {status: _refusal(status) for status in _REASONS}


class _AfterTheLast(Exception):
    """A request behind one that ends the connection."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._clock = clock_of(self.loop)
        # What is being read: "idle" between requests, "head", "body", or "closing" when nobody reads any more.
        self._phase = "idle"
        self._due = NEVER
        self._running: RequestResponseCycle | None = None
        self._refused: bytes | None = None
        # Bytes since a head began or a body went on, and whether either has happened in this read.
        self._barren = 0
        self._moved = False
        self._last = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        self._due = self._clock.now + FIRST_BYTE
        self._clock.enter(self, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """It left; uvicorn tells only the last of several pipelined requests."""
        self._clock.leave(self)
        self.pipeline.clear()
        if isinstance(self._running, GuardedCycle):
            self._running.drop()
        super().connection_lost(exc)

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
        if not self._should_upgrade():
            # Not taken up, so what follows is the next request.
            if rest:
                self.data_received(rest)
        elif self._busy():
            self.refuse(400)
        else:
            self._clock.leave(self)
            self.handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        if self.cycle is not None and not self.cycle.keep_alive:
            raise _AfterTheLast
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ClientError("too many requests at once")
        super().on_message_begin()
        self._phase = "head"
        self._due = self._clock.now + HEAD

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field, its value with the blanks behind it; those of trailers are dropped."""
        if self._phase == "head":
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """A whole head: check it, and begin with the request or let it wait.

        Raises:
            ClientError: the head is refused; the parser hands that on.
        """
        version = self.parser.get_http_version()
        method = self.parser.get_method().decode("ascii")
        check_head(method, self.url, self.headers, version)
        scope = self.scope
        scope["method"] = method
        scope["http_version"] = version
        self._moved = True
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        self._phase = "body"
        self._due = self._clock.now + BODY
        self._set_target(self.url)
        scope["canary_mw.checked"] = True  # type: ignore[typeddict-unknown-key]
        keep_alive = version != "1.0" and not self._last and self.parser.should_keep_alive()
        cycle = self.cycle = GuardedCycle(self, keep_alive)
        app = service_unavailable if self._crowded() else self.app
        if self._busy():
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        else:
            self._start_asgi_task(cycle, app)

    def _set_target(self, url: bytes) -> None:
        if url[:1] == b"/":
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path or b"/", parsed.query or b""
        path = raw_path.decode("ascii")
        self.scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        self.scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        self.scope["query_string"] = query

    def _crowded(self) -> bool:
        limit = self.limit_concurrency
        return limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit)

    def _busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._moved = True
        self._due = self._clock.now + BODY
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request; its app now takes the time that it takes."""
        self._moved = True
        self._phase = "idle"
        self._due = NEVER
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
            self._due = self._clock.now + self.timeout_keep_alive

    def shutdown(self) -> None:
        """The server is going away: a request that is on its way still is answered, and told to be the last.

        To close at once, as uvicorn does, would lose what an idle client sends in that moment.
        """
        self._last = True
        if self._busy():
            self.cycle.keep_alive = False
        else:
            self._due = min(self._due, self._clock.now + LAST_CALL)

    def look(self, now: int) -> None:
        """See to the deadlines, at every tick."""
        if now <= self._due:
            return
        if self._phase == "closing":
            self.transport.abort()
        elif self._phase == "idle":
            self.transport.close()
        elif self.flow.read_paused or (self._phase == "body" and self._app_is_late()):
            self._due = now + BODY
        else:
            self.refuse(408)

    def _app_is_late(self) -> bool:
        """The client has done its part: the app has not taken what came, or has not asked for any."""
        return bool(self.cycle.body) or self.cycle.waiting_for_100_continue

    def refuse(self, status: int) -> None:
        """Answer the request that is being read with an error, after those before it, and read no more."""
        answer = REFUSALS[status]
        running = self._running
        if self._phase == "body" and self.pipeline:
            self.pipeline.popleft()
        elif self._phase == "body" and isinstance(running, GuardedCycle):
            running.drop()
            if running.response_started:
                running.cut()
            else:
                self._refuse_now(answer)
            return
        self._phase = "closing"
        self._due = NEVER
        self.headers = []
        if self._busy():
            self._refused = answer
        else:
            self._refuse_now(answer)

    def _refuse_now(self, answer: bytes) -> None:
        self.transport.write(answer)
        self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        """End the connection.

        Args:
            linger: more may come, and closing now would reset the connection before the client has the answer.
        """
        self._phase = "closing"
        if linger and self.transport.can_write_eof():
            self._due = self._clock.now + LINGER
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()
