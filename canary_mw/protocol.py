"""uvicorn's HTTP protocol with a guard at the door, for the standalone server: `http=` of uvicorn takes it as a class.

uvicorn and its parser let through what an upstream may read differently, have no deadline for a client that stalls,
and make headers of trailers. Here a head is checked when it is complete and measured while it is not; what is refused
gets a constant answer and the end of its connection, and no app sees it.
"""

import asyncio
import logging
import select
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .asgi import Begun
from .clock import clock_of
from .cycle import GuardedCycle, http_scope
from .direct import DirectWay, Trip
from .exceptions import ClientError
from .framing import MAX_HEAD, check_head, request_body
from .messages import Body
from .observers import DoorCounts
from .rendering import REFUSALS

logger = logging.getLogger("canary_mw.protocol")

# In ticks of the clock, which are seconds; each deadline may be late by one. A connection that has not yet sent
# anything; a head, from its first byte to its last; a body, between two pieces; the rest of what a refused client
# sends, thrown away so that a reset does not overtake the answer; and an answer of which the client takes nothing.
FIRST_BYTE, HEAD, BODY, LINGER, WRITE = 60, 10, 30, 5, 60
# Seconds that an idle connection stays open when the server is going away.
LAST_CALL = 1
NEVER = 1 << 62
# Requests that wait behind one that runs.
MAX_PIPELINED = 256

# Seconds between two looks at a client of whom nothing is read.
GLANCE = 0.25
# Of Linux: the other side has sent its end, though there are bytes before it that nobody has read.
_ENDED = getattr(select, "POLLRDHUP", 0)
# Servers that are going away; one may still be handed a connection that the system had accepted before.
_LEAVING: WeakSet[ServerState] = WeakSet()


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


class GuardedProtocol(HttpToolsProtocol):
    """One connection of a client."""

    # The request that was read last, a GuardedCycle or a Trip.
    cycle: Any

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._clock = clock_of(self.loop)
        self._door: DoorCounts = app_state.get(DoorCounts.KEY) or DoorCounts()
        # What is being read: "idle" between requests, "head", "body", or "closing" when nobody reads any more.
        self._phase = "idle"
        self._due = NEVER
        self._running: Any = None
        self._refused: bytes | None = None
        # Bytes since a head began or a body went on, and whether either has happened in this read.
        self._barren = 0
        self._moved = False
        # The body of a request for an upgrade.
        self._skipped: Body | None = None
        self._last = server_state in _LEAVING
        self._glancing = False
        self._to_be_told: Callable[[], object] | None = None
        # Bytes that the client has not taken, at the last tick and when that number has to be another one.
        self._unwritten = 0
        self._write_due = NEVER
        way = getattr(self.app, "direct", None)
        plain = not (self.access_log or self.root_path or server_state.default_headers)
        self._direct: DirectWay | None = way if plain and self.limit_concurrency is None else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        host, port = self.client or (None, 0)
        # As `RequestHead.from_wire` takes it.
        self.peer = (host, self.scheme or "http", "1.1", port, self.server[1] or 0 if self.server else 0)
        self._due = self._clock.now + (LAST_CALL if self._last else FIRST_BYTE)
        self._clock.enter(self, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """It left; uvicorn tells only the last of several pipelined requests."""
        self._clock.leave(self)
        self.pipeline.clear()
        if self._running is not None:
            self._running.drop()
        if isinstance(self.cycle, Trip):
            self.cycle = None
        super().connection_lost(exc)
        if self._to_be_told is not None:
            self._to_be_told()

    def on_leaving(self, tell: Callable[[], object] | None) -> None:
        """See `inbox.Client`."""
        self._to_be_told = tell
        if tell is not None and self.transport.is_closing():
            tell()

    def resume_writing(self) -> None:
        """The client has taken enough; what is written next may be just as much."""
        self._unwritten = 0
        super().resume_writing()

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
            self._clock.leave(self)
            self.handle_websocket_upgrade()

    def _read_body(self, body: Body, rest: bytes) -> None:
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
        self._due = self._clock.now + HEAD

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
            body = request_body(known)
            self._skipped = body if body != (0,) else None
            if self._should_upgrade():
                if self._skipped is not None:
                    raise ClientError("a request for a websocket has a body")
                self.scope = http_scope(self, method, version, self.url, self.headers)
                return
        self._phase = "body"
        self._due = self._clock.now + BODY
        keep_alive = version != "1.0" and not self._last and self.parser.should_keep_alive() and self._skipped is None
        begun = None
        if self._direct is not None and version == "1.1" and not self._busy() and not self.flow.write_paused:
            begun = self._direct.begin(self, method, known, keep_alive=keep_alive)
            if isinstance(begun, Trip):
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

    def hand_over(self, trip: Trip, begun: Begun) -> None:
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
        if self.flow.read_paused and not self._glancing:
            self._glancing = True
            self.loop.call_later(GLANCE, self._glance)

    def _glance(self) -> None:
        """A transport that reads nothing does not tell that its client has left."""
        self._glancing = self.flow.read_paused and not self.transport.is_closing()
        if self._glancing and has_left(self.transport.get_extra_info("socket").fileno()):
            self.transport.abort()
        elif self._glancing:
            self.loop.call_later(GLANCE, self._glance)

    def on_message_complete(self) -> None:
        """The last byte of a request; its app now takes the time that it takes."""
        if self._skipped is not None:
            return
        self._moved = True
        self._phase = "idle"
        self._due = NEVER
        if not isinstance(self.cycle, Trip):
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
            self._due = self._clock.now + (LAST_CALL if self._last else self.timeout_keep_alive)

    def shutdown(self) -> None:
        """The server is going away: a request that is on its way still is answered, and told to be the last.

        To close at once, as uvicorn does, would lose what an idle client sends in that moment.
        """
        self._last = True
        _LEAVING.add(self.server_state)
        if not self._busy():
            self._due = min(self._due, self._clock.now + LAST_CALL)
        elif not self.cycle.response_started:
            # To whom a head without this news is on its way, the next answer tells it.
            self.cycle.keep_alive = False

    def look(self, now: int) -> None:
        """See to the deadlines, at every tick."""
        if self._reads_no_more(now):
            logger.info("client %s has taken nothing for %d s: its connection is ended", self.client, WRITE)
            self._door.stalled += 1
            self.transport.abort()
            return
        if now <= self._due:
            return
        if self._phase == "closing":
            self.transport.abort()
        elif self._phase == "idle":
            self._due = NEVER
            self._close()
        elif self.flow.read_paused or (self._phase == "body" and self._app_is_late()):
            self._due = now + BODY
        else:
            self.refuse(408)

    def _reads_no_more(self, now: int) -> bool:
        """Not one byte of what is to be written went out for too long; what can wait in the system does not count."""
        unwritten = self.transport.get_write_buffer_size()
        if unwritten and unwritten == self._unwritten:
            return now > self._write_due
        self._unwritten = unwritten
        self._write_due = now + WRITE
        return False

    def _app_is_late(self) -> bool:
        """The client has done its part: the app has not taken what came, or has not asked for any."""
        return bool(self.cycle.body) or self.cycle.waiting_for_100_continue

    def refuse(self, status: int) -> None:
        """Answer the request that is being read with an error, after those before it, and read no more."""
        answer = REFUSALS[status]
        self._door.refuse(status)
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
            self._close()

    def _close(self) -> None:
        """End the connection when all is written; once, for a second time breaks asyncio's transport for TLS."""
        if not self.transport.is_closing():
            self.transport.close()


def has_left(descriptor: int) -> bool:
    """Whether the other side of a connection has ended or reset it, without reading of it."""
    poll = select.poll()
    poll.register(descriptor, _ENDED)
    return bool(poll.poll(0))
