"""The fast path of the standalone server: a request without a body is sent from the guarded protocol to its upstream,
and the response back, by callbacks: without a task, and without ASGI in between.

It drives the same exchange over the same client as the ASGI path. What has to wait (to open a connection, to retry, to
relay a response of several segments) continues on the ASGI path, with what is known so far (`StartedRequest`).
"""

import asyncio
import logging
from functools import partial
from math import inf
from time import perf_counter
from typing import Protocol

from canary_mw.client.aio.client import HTTP11Response
from canary_mw.client.aio.connection import Connection
from canary_mw.exceptions import ClientError, UpstreamConnectError, UpstreamError, UpstreamProtocolError
from canary_mw.forwarding.exchange import Exchange, exchange, finish_with_error, finish_with_response
from canary_mw.forwarding.messages import Relay, UpstreamRequest
from canary_mw.forwarding.replies import reason_of
from canary_mw.http.messages import RawHeaders, RequestHead, ResponseHead
from canary_mw.http.request_writer import encode_head
from canary_mw.http.response_writer import encode_chunk, render_head
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.asgi.relay import ExchangeResult, PendingResult, StartedRequest
from canary_mw.routing.decision import may_be_governed
from canary_mw.routing.table import RouteTable

logger = logging.getLogger("canary_mw.direct")

# A request with one of these headers has a body, or asks for more than one final response.
_UNSUPPORTED_HEADERS = frozenset((b"content-length", b"transfer-encoding", b"upgrade", b"expect"))


class ClientConnection(Protocol):
    """The connection of a client, as `GuardedProtocol` implements it."""

    url: bytes
    headers: list[tuple[bytes, bytes]]
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    @property
    def peer(self) -> tuple[str | None, str, str, int, int]:
        """Address, scheme, HTTP version and ports, as `RequestHead.from_wire` takes them."""

    def continue_in_asgi(self, request: "FastPathRequest", started: StartedRequest) -> None:
        """Let the app continue with a request of the fast path."""

    def on_response_complete(self) -> None:
        """A response is written."""


class FastPath:
    """Starts requests on the fast path.

    Args:
        middleware: whose rules and upstream connections are used.
    """

    def __init__(self, middleware: CanaryMiddleware) -> None:
        self._middleware = middleware

    def try_start(
        self, client: ClientConnection, method: str, headers_by_name: dict[bytes, bytes], *, keep_alive: bool
    ) -> "FastPathRequest | StartedRequest | None":
        """Send a request to its upstream, if that is possible without waiting.

        Args:
            client: the connection that the request was read from; its head is checked.
            headers_by_name: the headers of the request.
            keep_alive: the client may send another request after it.

        Returns:
            The request that was sent; else what the ASGI path need not find out again; None when there is nothing.
        """
        middleware = self._middleware
        table = middleware.store.table
        if middleware.trusted_headers is not None or not middleware.started:
            return None
        if client.url[:1] != b"/" or not _UNSUPPORTED_HEADERS.isdisjoint(headers_by_name):
            return None
        path, _, query = client.url.partition(b"?")
        try:
            head = RequestHead.from_wire(method, path, query, client.headers, *client.peer, headers_by_name)
        except ClientError:
            return None
        if table.has_extras and _is_for_asgi(table, head):
            return None
        decision = middleware.decide(table, head, middleware.roll())
        started = StartedRequest(decision, head, middleware.hop(head, table.settings))
        if decision is None or decision.shadow is not None or not decision.mapping.fast_path_ok:
            return started
        try:
            generator = exchange(decision, head, started.hop)
            request = next(generator)
            data = encode_head(request)
        except (ClientError, UpstreamProtocolError, StopIteration):
            return started
        connection = middleware.upstreams.idle_connection(request, client.loop)
        if connection is None:
            return started
        counters, since = middleware.sole_counters, None
        if counters is not None:
            since = counters.begin_now()
        elif middleware.observed:
            since = middleware.notify_decided(decision, head)
        deadline = inf if request.timeout is None else client.loop.time() + request.timeout
        fast = FastPathRequest(client, middleware, started, generator, request, connection, deadline, since)
        fast.keep_alive = keep_alive
        connection.begin(data, method == "HEAD", deadline, None, request.options, fast)
        return fast


def _is_for_asgi(table: RouteTable, head: RequestHead) -> bool:
    """Whether a filter is asked, a log is told, or a release decides about a request or may have to be told."""
    if table.filters is not None or table.request_policy is not None or table.settings.logs:
        return True
    return may_be_governed(table, head)


class FastPathRequest:
    """A request on the fast path.

    To the connection of the client it is what `GuardedCycle` is: the request that is being answered. To the connection
    of the upstream it is the `Waiter` for the response.
    """

    __slots__ = (
        "_client",
        "_connection",
        "_deadline",
        "_errors",
        "_exchange",
        "_middleware",
        "_request",
        "_since",
        "_started",
        "keep_alive",
        "response_complete",
    )

    # The request has been read whole, and one write sends the whole response.
    more_body = response_started = False

    def __init__(
        self,
        client: ClientConnection,
        middleware: CanaryMiddleware,
        started: StartedRequest,
        generator: Exchange,
        request: UpstreamRequest,
        connection: Connection,
        deadline: float,
        since: float | None,
    ) -> None:
        self._client = client
        self._middleware = middleware
        self._errors = middleware.upstreams.errors
        self._started = started
        self._exchange = generator
        self._request = request
        self._connection = connection
        self._deadline = deadline
        self._since = since
        self.keep_alive = True
        self.response_complete = False

    def done(self) -> bool:
        """See `canary_mw.client.interfaces.Waiter`."""
        return self.response_complete

    def set_result(self, _: None, /) -> None:
        """The head of the response is complete, or the connection has failed."""
        connection = self._connection
        head = connection.head
        try:
            if head is None:
                self._fail(connection.error)
            elif connection.complete:
                self._relay(head)
            else:
                self._relay_in_asgi(HTTP11Response(head, None, connection))
        except Exception as exc:
            logger.exception("a request of the fast path failed")
            self._client.transport.abort()
            self._end_without_response(type(exc).__name__)

    def _relay(self, head: ResponseHead) -> None:
        """Write a response that is complete."""
        connection = self._connection
        body = connection.take_buffered()
        # Before anything that may raise: a connection that is not released keeps its slot of the pool.
        connection.release()
        if self._errors.failing:
            self._errors.succeeded(self._request.service)
        outcome = finish_with_response(self._exchange, head)
        assert isinstance(outcome, Relay)
        self._write(outcome.head.status, outcome.head.headers, body, None)

    def _relay_in_asgi(self, response: HTTP11Response) -> None:
        """Let the ASGI path relay a response whose body is still on its way."""
        try:
            if self._errors.failing:
                self._errors.succeeded(self._request.service)
            outcome = finish_with_response(self._exchange, response.head)
            self._continue_in_asgi(partial(_completed, (outcome, response)))
        except BaseException:
            response.close()
            raise

    def _fail(self, error: Exception | None) -> None:
        assert isinstance(error, UpstreamError)
        if isinstance(error, UpstreamConnectError) and error.sent and self._request.replayable:
            # The upstream may have closed the idle connection just when it was taken.
            self._continue_in_asgi(self._resend)
            return
        self._note(error)
        reply = finish_with_error(self._exchange, error)
        self._write(reply.status, reply.headers or (), reply.body, reason_of(reply))

    def _note(self, error: UpstreamError) -> None:
        error.address = self._connection.origin.endpoint
        self._errors.failed(self._request.service, self._request.mapping, error)

    async def _resend(self) -> ExchangeResult:
        """Send the request once more before its deadline, as `HTTP11Client.send` does."""
        request, upstreams, loop = self._request, self._middleware.upstreams, self._client.loop
        try:
            response = await upstreams.send_on_new_connection(self._connection.origin, request, loop, self._deadline)
        except UpstreamError as exc:
            self._note(exc)
            return finish_with_error(self._exchange, exc), None
        try:
            return finish_with_response(self._exchange, response.head), response
        except BaseException:
            response.close()
            raise

    def _continue_in_asgi(self, pending: PendingResult) -> None:
        self.response_complete = True
        self._client.continue_in_asgi(self, self._started._replace(since=self._since, pending=pending))

    def _write(self, status: int, headers: RawHeaders, body: bytes, reason: str | None) -> None:
        client = self._client
        head = render_head(status, headers, self._started.head.method, "1.1", closes=not self.keep_alive)
        self.keep_alive = not head.closes
        data = b"" if head.empty else encode_chunk(body, last=True) if head.chunked else body
        if self._since is not None:
            # Before the write: where this process is killed then, nobody has got a response that was not counted.
            self._count(status, reason, self._since, len(body))
        client.transport.write(head.data + data)
        self.response_complete = True
        client.on_response_complete()

    def _count(self, status: int, reason: str | None, since: float, size: int) -> None:
        started = self._started
        counters = self._middleware.sole_counters
        if counters is not None and reason is None and status < 500:
            counters.count_at_once(started[0], started[1], status, since, size)
        else:
            args = started.decision, started.head, status, since, reason, None, perf_counter(), size
            self._middleware.notify_finished(*args)

    def on_disconnect(self) -> None:
        """The client has left."""
        if not self.response_complete:
            # First: closing the connection notifies this request, unless it is at its end.
            self._end_without_response("client left")
            self._connection.fail(UpstreamProtocolError("the client left", sent=True))

    def _end_without_response(self, reason: str) -> None:
        if self.response_complete:
            return
        # From here on the connection to the upstream may belong to another request.
        self.response_complete = True
        if self._since is not None:
            self._middleware.notify_finished(self._started.decision, self._started.head, None, self._since, reason)


async def _completed(result: ExchangeResult) -> ExchangeResult:
    return result
