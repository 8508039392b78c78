"""The short way of the standalone server: a request without a body goes from the guarded protocol to its upstream, and
the answer back, by callbacks: without a task, and without ASGI in between.

It drives the same conversation over the same client as the ASGI way does. What cannot be done at once (to open a
connection, to try again, to relay an answer of several segments) is handed over to that way, with what is known so far.
"""

import asyncio
import logging
from functools import partial
from http import HTTPStatus
from math import inf
from typing import Protocol

from canary_mw.client.aio.client import HTTP11Response
from canary_mw.client.aio.connection import Connection
from canary_mw.exceptions import ClientError, UpstreamConnectError, UpstreamError, UpstreamProtocolError
from canary_mw.forwarding.exchange import Exchange, exchange, finish_with_error, finish_with_response
from canary_mw.forwarding.messages import Relay, UpstreamRequest
from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.http.request_writer import encode_head
from canary_mw.http.response_writer import encode_chunk, render_head
from canary_mw.middleware.asgi.middleware import CanaryMiddleware, StartedRequest
from canary_mw.middleware.asgi.relay import ExchangeResult, PendingResult
from canary_mw.routing.decision import decide

logger = logging.getLogger("canary_mw.direct")

# A request with one of these has a body, or asks for more than an answer.
_NOT_SIMPLE = frozenset((b"content-length", b"transfer-encoding", b"upgrade", b"expect"))


class ClientConnection(Protocol):
    """The connection of a client, as the guarded protocol has it."""

    url: bytes
    headers: list[tuple[bytes, bytes]]
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    @property
    def peer(self) -> tuple[str | None, str, str, int, int]:
        """As `RequestHead.from_wire` takes it."""

    def continue_in_asgi(self, trip: "FastPathRequest", begun: StartedRequest) -> None:
        """Let the app go on with a request that was on the short way."""

    def on_response_complete(self) -> None:
        """An answer is written."""


class FastPath:
    """Sends requests the short way.

    Args:
        middleware: its rules and its connections are used.
    """

    def __init__(self, middleware: CanaryMiddleware) -> None:
        self._middleware = middleware

    def try_start(
        self, client: ClientConnection, method: str, known: dict[bytes, bytes], *, keep_alive: bool
    ) -> "FastPathRequest | StartedRequest | None":
        """Send a request on, if that can be done here and now.

        Args:
            client: the connection that it came by; its head is checked.
            known: the headers by name.
            keep_alive: the client may send another one after it.

        Returns:
            The request, on its way; else what the ASGI way need not find out again; None when that is nothing.
        """
        middleware = self._middleware
        table = middleware.store.table
        if table.request_policy is not None or middleware.trusted_headers is not None or not middleware.started:
            return None
        if client.url[:1] != b"/" or not _NOT_SIMPLE.isdisjoint(known):
            return None
        path, _, query = client.url.partition(b"?")
        try:
            head = RequestHead.from_wire(method, path, query, client.headers, *client.peer, known)
        except ClientError:
            return None
        decision = decide(table, head, middleware.roll())
        begun = StartedRequest(decision, head, middleware.hop(head, table.settings))
        if decision is None or decision.shadow is not None or not decision.mapping.fast_path_ok:
            return begun
        try:
            conversation = exchange(decision, head, begun.hop)
            request = next(conversation)
            data = encode_head(request)
        except (ClientError, UpstreamProtocolError, StopIteration):
            return begun
        connection = middleware.upstreams.idle_connection(request, client.loop)
        if connection is None:
            return begun
        since = middleware.notify_decided(decision, head) if middleware.observed else None
        deadline = inf if request.timeout is None else client.loop.time() + request.timeout
        trip = FastPathRequest(client, middleware, begun, conversation, request, connection, deadline, since)
        trip.keep_alive = keep_alive
        connection.begin(data, method == "HEAD", deadline, None, request.options, trip)
        return trip


class FastPathRequest:
    """A request on the short way.

    To the connection of its client it is what `GuardedCycle` is: the request that is being answered. To the connection
    of the upstream it is who waits for the answer.
    """

    __slots__ = (
        "_begun",
        "_client",
        "_connection",
        "_deadline",
        "_exchange",
        "_middleware",
        "_request",
        "_since",
        "keep_alive",
        "response_complete",
    )

    # It begins when the request has been read, and ends with the one write that is the whole answer.
    more_body = response_started = False

    def __init__(
        self,
        client: ClientConnection,
        middleware: CanaryMiddleware,
        begun: StartedRequest,
        conversation: Exchange,
        request: UpstreamRequest,
        connection: Connection,
        deadline: float,
        since: float | None,
    ) -> None:
        self._client = client
        self._middleware = middleware
        self._begun = begun
        self._exchange = conversation
        self._request = request
        self._connection = connection
        self._deadline = deadline
        self._since = since
        self.keep_alive = True
        self.response_complete = False

    def done(self) -> bool:
        """See `connection.Waiter`."""
        return self.response_complete

    def set_result(self, _: None, /) -> None:
        """The head of the answer is there, or there will be none."""
        try:
            if self._connection.head is None:
                self._fail(self._connection.error)
            else:
                self._relay()
        except Exception:
            logger.exception("a request was given up")
            self._client.transport.abort()

    def _relay(self) -> None:
        connection = self._connection
        assert connection.head is not None
        outcome = finish_with_response(self._exchange, connection.head)
        assert isinstance(outcome, Relay)
        if not connection.complete:
            answer = outcome, HTTP11Response(connection.head, None, connection)
            self._hand_over(partial(_there, answer))
            return
        self._write(outcome.head.status, outcome.head.headers, connection.take_pieces(), None)
        connection.release()

    def _fail(self, error: Exception | None) -> None:
        assert isinstance(error, UpstreamError)
        if isinstance(error, UpstreamConnectError) and error.sent and self._request.replayable:
            # The upstream may have closed the idle connection just as it was taken; it was not us, at the end.
            self._hand_over(self._again)
            return
        reply = finish_with_error(self._exchange, error)
        self._write(reply.status, reply.headers or (), reply.body, HTTPStatus(reply.status).phrase.lower())

    async def _again(self) -> ExchangeResult:
        """Send the request once more, within what is left of its time, as `HTTP11Client.send` does."""
        request, upstreams, loop = self._request, self._middleware.upstreams, self._client.loop
        try:
            response = await upstreams.send_on_new_connection(self._connection.origin, request, loop, self._deadline)
        except UpstreamError as exc:
            return finish_with_error(self._exchange, exc), None
        return finish_with_response(self._exchange, response.head), response

    def _hand_over(self, answering: PendingResult) -> None:
        self.response_complete = True
        self._client.continue_in_asgi(self, self._begun._replace(since=self._since, pending=answering))

    def _write(self, status: int, headers: RawHeaders, body: bytes, reason: str | None) -> None:
        client = self._client
        head = render_head(status, headers, self._begun.head.method, "1.1", closes=not self.keep_alive)
        self.keep_alive = not head.closes
        data = b"" if head.empty else encode_chunk(body, last=True) if head.chunked else body
        client.transport.write(head.data + data)
        self.response_complete = True
        client.on_response_complete()
        if self._since is not None:
            self._note(status, self._since, reason)

    def _note(self, status: int | None, since: float, reason: str | None) -> None:
        self._middleware.notify_finished(self._begun.decision, self._begun.head, status, since, reason)

    def on_disconnect(self) -> None:
        """The client has left."""
        if self.response_complete:
            return
        self.response_complete = True
        self._connection.fail(UpstreamProtocolError("the client left", sent=True))
        if self._since is not None:
            self._note(None, self._since, "client left")


async def _there(answer: ExchangeResult) -> ExchangeResult:
    return answer
