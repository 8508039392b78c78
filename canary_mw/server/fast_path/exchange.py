"""A request on the fast path: from its bytes on their way to the upstream to those of the response for the client.

What has to wait (a response of several segments, a second connection, stable in place of gray) continues on the ASGI
path, with what is known so far (`StartedRequest`).
"""

import logging
from contextlib import suppress
from functools import partial
from time import perf_counter

from canary_mw.client.aio.client import HTTP11Response
from canary_mw.client.aio.connection import Connection
from canary_mw.client.interfaces import UpstreamResponse
from canary_mw.exceptions import ClientError, UpstreamConnectError, UpstreamError, UpstreamProtocolError
from canary_mw.forwarding.exchange import (
    Exchange,
    exchange,
    exchange_with_gray,
    finish_with_error,
    finish_with_response,
)
from canary_mw.forwarding.fallback import SafetyNet, failure_of_status
from canary_mw.forwarding.headers import Headers
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.release_headers import may_get_cookie, with_variant
from canary_mw.forwarding.replies import reason_of
from canary_mw.http.messages import RawHeaders, RequestHead, ResponseHead
from canary_mw.http.response_writer import encode_chunk, render_head
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.asgi.relay import ExchangeResult, PendingResult, StartedRequest
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.server.fast_path.answers import PlainResponse, encode_plain, headers_of, plain_response
from canary_mw.server.fast_path.client import ClientConnection
from canary_mw.server.fast_path.plans import Plan

logger = logging.getLogger("canary_mw.direct")


class FastPathRequest:
    """A request on the fast path.

    To the connection of the client it is what `GuardedCycle` is: the request that is being answered. To the connection
    of the upstream it is the `Reader` of the response.

    Args:
        plan: of its Mapping.
        request_id: that the upstream gets.
        governed, net: see `StartedRequest`.
        since: the `perf_counter` time at which observers were notified of the decision, None when they were not.
        head_deadline, deadline: loop times of the head of the response, and of its end.
    """

    __slots__ = (
        *("_client", "_connection", "_deadline", "_decision", "_governed", "_head", "_head_deadline", "_hop"),
        *("_middleware", "_net", "_plan", "_request_id", "_since", "keep_alive", "response_complete"),
    )

    # The request has been read whole, and one write sends the whole response.
    more_body = response_started = False

    def __init__(
        self,
        client: ClientConnection,
        middleware: CanaryMiddleware,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        governed: RouteTable | None,
        net: SafetyNet | None,
        plan: Plan,
        connection: Connection,
        request_id: bytes | None,
        since: float | None,
        head_deadline: float,
        deadline: float,
    ) -> None:
        self._client = client
        self._middleware = middleware
        self._decision = decision
        self._head = head
        self._hop = hop
        self._governed = governed
        self._net = net
        self._plan = plan
        self._connection = connection
        self._request_id = request_id
        self._since = since
        self._head_deadline = head_deadline
        self._deadline = deadline
        self.keep_alive = True
        self.response_complete = False

    # What the connection to the upstream calls.

    def read(self, data: bytes) -> bool:
        """See `Reader`: relay a response that is recognised, by one write."""
        found = None if self.response_complete else plain_response(data)
        if found is None or (self._net is not None and failure_of_status(self._net.settings, found[0])):
            return False
        # Before anything that may raise: a connection that is not released keeps its slot of the pool.
        self._connection.finish()
        try:
            self._relay_plain(found)
        except Exception as exc:  # noqa: BLE001 - logged there; the connection to the upstream is not at fault
            self._abort(exc)
        return True

    def done(self) -> bool:
        """See `canary_mw.client.interfaces.Waiter`."""
        return self.response_complete

    def set_result(self, _: None, /) -> None:
        """The parser has read the head of the response, or the connection has failed."""
        connection = self._connection
        head = connection.head
        try:
            if head is None:
                self._fail(connection.error)
            elif connection.complete and self._net is None:
                self._relay(head)
            else:
                self._relay_in_asgi(HTTP11Response(head, None, connection))
        except Exception as exc:  # noqa: BLE001 - logged there; the connection to the upstream is not at fault
            self._abort(exc)

    def _abort(self, exc: Exception) -> None:
        logger.error("a request of the fast path failed", exc_info=exc)
        self._client.transport.abort()
        self._end_without_response(type(exc).__name__)

    def _relay_plain(self, found: PlainResponse) -> None:
        """Write a response that is recognised."""
        status, lines, body, chunked = found
        plan, governed, assigned = self._plan, self._governed, self._decision.release
        if (errors := self._middleware.upstreams.errors).failing:
            errors.succeeded(plan.service)
        plain = self.keep_alive and not plan.changes_answer
        if plain and governed is not None and assigned is not None:
            release = governed.releases.get(assigned.name)
            plain = release is not None and not may_get_cookie(release.document, assigned)
            if plain and release is not None:
                lines = with_variant(release.document, assigned, lines)
        if plain:
            self._send(encode_plain(lines, body, chunked=chunked), status, None, len(body))
            return
        headers = headers_of(lines)
        if plan.changes_answer:
            headers = plan.answer_headers(status, headers, self._head)
        self._write(status, self._with_release(status, headers), body, None)

    def _with_release(self, status: int, headers: Headers) -> Headers:
        """The headers with those of the release that has decided."""
        if self._governed is None:
            return headers
        found = self._middleware.release.headers(self._governed, self._decision, self._head)
        return headers if found is None else found.add(status, headers)

    def _relay(self, head: ResponseHead) -> None:
        """Write a response that is complete, and that the parser has read."""
        connection = self._connection
        body = connection.take_buffered()
        # Before anything that may raise: a connection that is not released keeps its slot of the pool.
        connection.release()
        outcome = self._outcome(self._steps()[0], head)
        assert isinstance(outcome, Relay)
        status = outcome.head.status
        self._write(status, self._with_release(status, outcome.head.headers), body, None)

    def _relay_in_asgi(self, response: HTTP11Response) -> None:
        """Let the ASGI path relay a response whose body is still on its way, or that stable may take the place of."""
        self._continue_in_asgi(partial(_completed, self._result(self._steps()[0], response)))

    def _result(self, steps: Exchange, response: UpstreamResponse) -> ExchangeResult:
        """The outcome of an exchange, and the response where it is relayed."""
        # Of gray below a safety net; the limit of its head is over.
        response.move_deadline(self._deadline)
        relayed = False
        try:
            outcome = self._outcome(steps, response.head)
            relayed = isinstance(outcome, Relay)
        finally:
            if not relayed:
                response.close()
        return outcome, response if relayed else None

    def _outcome(self, steps: Exchange, head: ResponseHead) -> Relay | Reply:
        self._succeeded()
        return finish_with_response(steps, head)

    def _succeeded(self) -> None:
        errors = self._middleware.upstreams.errors
        if errors.failing:
            errors.succeeded(self._plan.service)

    def _steps(self) -> tuple[Exchange, UpstreamRequest]:
        """The exchange as the ASGI path drives it, from where its request is sent."""
        decision, head, hop, net = self._decision, self._head, self._hop, self._net
        request_id = self._request_id
        if request_id is not None:
            hop = hop._replace(new_id=lambda: request_id)
        steps = exchange(decision, head, hop) if net is None else exchange_with_gray(decision, head, hop, net)
        request = next(steps)
        request.sent_to(self._connection.origin)
        return steps, request

    def _fail(self, error: Exception | None) -> None:
        assert isinstance(error, UpstreamError)
        steps, request = self._steps()
        if isinstance(error, UpstreamConnectError) and error.sent and request.replayable:
            # The upstream may have closed the idle connection just when it was taken.
            self._continue_in_asgi(partial(self._resend, steps, request))
            return
        self._note(error)
        reply = finish_with_error(steps, error)
        if self._governed is not None:
            self._continue_in_asgi(partial(_completed, (reply, None)))
        else:
            self._write(reply.status, reply.headers or (), reply.body, reason_of(reply))

    def _note(self, error: UpstreamError) -> None:
        error.address = self._connection.origin.endpoint
        mapping = self._plan.mapping
        self._middleware.upstreams.errors.failed(self._plan.service, mapping.name, error)

    async def _resend(self, steps: Exchange, request: UpstreamRequest) -> ExchangeResult:
        """Send the request once more before its deadline, as `HTTP11Client.send` does."""
        upstreams, loop, origin = self._middleware.upstreams, self._client.loop, self._connection.origin
        try:
            response = await upstreams.send_on_new_connection(origin, request, loop, self._head_deadline)
        except UpstreamError as exc:
            exc.tried_before = True
            self._note(exc)
            return finish_with_error(steps, exc), None
        return self._result(steps, response)

    def _continue_in_asgi(self, pending: PendingResult) -> None:
        self.response_complete = True
        about = self._decision, self._head, self._hop, self._since, pending, self._governed, self._net
        self._client.continue_in_asgi(self, StartedRequest(*about))

    def _write(self, status: int, headers: RawHeaders, body: bytes, reason: str | None) -> None:
        """Write a response with a head that is checked."""
        head = render_head(status, headers, self._head.method, "1.1", closes=not self.keep_alive)
        self.keep_alive = not head.closes
        data = b"" if head.empty else encode_chunk(body, last=True) if head.chunked else body
        self._send(head.data + data, status, reason, len(body))

    def _send(self, data: bytes, status: int, reason: str | None, size: int) -> None:
        client = self._client
        if self._since is not None:
            # Before the write: where this process is killed then, nobody has got a response that was not counted.
            self._count(status, reason, self._since, size)
        client.transport.write(data)
        self.response_complete = True
        client.on_response_complete()

    def _count(self, status: int, reason: str | None, since: float, size: int) -> None:
        middleware, decision, head = self._middleware, self._decision, self._head
        if reason is None:
            middleware.notify_relayed(decision, head, status, since, size, self._connection.origin, self._request_id)
        else:
            middleware.notify_finished(decision, head, status, since, reason, None, perf_counter(), size)

    # What the connection of the client calls.

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
            with suppress(ClientError):
                # The record tells where it was sent.
                self._steps()
            self._middleware.notify_finished(self._decision, self._head, None, self._since, reason)


async def _completed(result: ExchangeResult) -> ExchangeResult:
    return result
