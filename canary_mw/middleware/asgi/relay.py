"""Requests from an ASGI server on their way to a service, and the answers on their way back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus

from canary_mw.client.interfaces import UpstreamResponse
from canary_mw.exceptions import ClientDisconnected, ClientError, UpstreamError
from canary_mw.forwarding.exchange import exchange
from canary_mw.forwarding.headers import is_event_stream
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply
from canary_mw.forwarding.replies import client_error_reply
from canary_mw.forwarding.requests import upstream_request
from canary_mw.http.framing import check_head
from canary_mw.http.messages import NO_BODY_STATUSES, RequestHead
from canary_mw.middleware.asgi.in_process import call_app
from canary_mw.middleware.asgi.receive import DisconnectTimer, RequestStream
from canary_mw.observability.counters import RefusalCounters
from canary_mw.routing.group import Decision
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.body_buffer import ReplayBuffer
from canary_mw.upstreams.shadows import ShadowSender

logger = logging.getLogger("canary_mw.relay")


# What is to be relayed, and the answer whose body it is.
ExchangeResult = tuple[Relay | Reply, UpstreamResponse | None]
PendingResult = Callable[[], Awaitable[ExchangeResult]]


class Forwarder:
    """Sends requests to the services of their Mappings and relays the answers.

    Args:
        upstreams: the way to the services.
        shadows: get the copies.
        replay_limit: bytes of a request body that are kept for retries and shadows.
        door: counts what is refused.
    """

    def __init__(self, upstreams: Upstreams, shadows: ShadowSender, replay_limit: int, door: RefusalCounters) -> None:
        self._upstreams = upstreams
        self._shadows = shadows
        self._replay_limit = replay_limit
        self._refusals = door
        self._disconnect_timer: DisconnectTimer | None = None

    async def forward(
        self,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        scope: Scope,
        receive: Receive,
        send: Send,
        answering: PendingResult | None = None,
    ) -> str | None:
        """Send a request to the service of its Mapping and relay the answer.

        Args:
            answering: gives what is to be relayed, where the request was sent already.

        Returns:
            Why the answer is not the upstream's, or why there is none; None when it was relayed whole.

        Raises:
            UpstreamError: the upstream failed after its head was relayed. That must reach the server, which then cuts
                the connection: every server does on an exception, not every one when the end is just missing.
        """
        # Some servers add trailers to this list while the body comes in.
        head.headers = list(head.headers)
        app = self._upstreams.app(decision.mapping.service)
        try:
            if "canary_mw.checked" not in scope:
                check_head(scope["method"], scope.get("raw_path") or b"/", head.headers, scope["http_version"])
            if app is None:
                inbox = self._request_stream(receive, scope)
                return await self._converse(decision, head, hop, inbox, send, answering)
            # What an app has begun to do cannot be tried again.
            conversation = exchange(decision, head, hop, _never)
            reply = await call_app(app, conversation, {**scope, "canary_mw": decision}, receive, send)
        except ClientError as exc:
            reply = self.refusal(exc, scope["http_version"])
        except UpstreamError as exc:
            logger.warning("upstream %s failed in mid-answer: %s", decision.mapping.service.text, exc)
            raise exc.with_traceback(None) from None
        return None if reply is None else await send_reply(send, reply)

    def refusal(self, exc: ClientError, version: str = "2") -> Reply:
        """See the function of that name; this one counts."""
        self._refusals.refuse(exc.status_hint)
        return client_error_reply(exc, version)

    def _request_stream(self, receive: Receive, scope: Scope) -> RequestStream:
        # Asked once and handed on: it costs a system call.
        loop = asyncio.get_running_loop()
        if self._disconnect_timer is None or self._disconnect_timer.loop is not loop:
            self._disconnect_timer = DisconnectTimer(loop)
        return RequestStream(receive, self._disconnect_timer, scope.get("canary_mw.client"))

    async def _converse(
        self,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        inbox: RequestStream,
        send: Send,
        answering: PendingResult | None,
    ) -> str | None:
        loop = inbox.loop
        tee: ReplayBuffer | None = None
        response: UpstreamResponse | None = None
        inbox.watch_soon()
        try:
            if answering is not None:
                outcome, response = await answering()
            elif decision.mapping.retry is None and decision.shadow is None:
                conversation = exchange(decision, head, hop)
                outcome, response = await self._upstreams.run(conversation, inbox.open, loop)
            else:
                tee = ReplayBuffer(inbox.open, self._replay_limit, loop)
                outcome, response = await self._run_kept(decision, head, hop, tee, loop)
            if isinstance(outcome, Reply):
                return await send_reply(send, outcome)
            assert response is not None
            await relay(response, outcome, head, inbox, send)
        except ClientDisconnected:
            return "client left"
        except asyncio.CancelledError:
            if inbox.cancelled_by_disconnect():
                return "client left"
            raise
        finally:
            if tee is not None:
                tee.close()
            inbox.close()
            if response is not None:
                response.close()
        return None

    async def _run_kept(
        self, decision: Decision, head: RequestHead, hop: HopContext, tee: ReplayBuffer, loop: asyncio.AbstractEventLoop
    ) -> tuple[Relay | Reply, UpstreamResponse | None]:
        """Run a conversation that may send the body again, or to a shadow."""
        mapping, upstreams = decision.mapping, self._upstreams

        def repeatable() -> bool:
            return tee.can_replay() and upstreams.may_retry(mapping.service.text, mapping.options.circuit_breakers)

        conversation = exchange(decision, head, hop, repeatable)
        return await upstreams.run(conversation, tee.open, loop, partial(self._shadows.copy, tee=tee))

    async def serve_and_shadow(
        self,
        app: ASGIApp,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Let an app of this process answer, and copy the request to the shadow of its group."""
        try:
            shadow = upstream_request(decision, head, hop).shadow
        except ClientError:
            # Not to be forwarded, a loop for one; the app has to say what becomes of it.
            shadow = None
        if shadow is None:
            await app(scope, receive, send)
            return
        tee = ReplayBuffer(None, self._replay_limit, asyncio.get_running_loop())

        async def noted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                tee.feed(bytes(message.get("body", b"")), last=not message.get("more_body", False))
            return message

        self._shadows.copy(shadow, tee)
        try:
            await app(scope, noted, send)
        finally:
            tee.close()


def _never() -> bool:
    return False


async def relay(
    response: UpstreamResponse, outcome: Relay, head: RequestHead, inbox: RequestStream, send: Send
) -> None:
    """Pass an answer on as it comes; one that is complete already goes out in one piece."""
    status, headers = outcome.head.status, outcome.head.headers
    body = b"" if head.method == "HEAD" or status in NO_BODY_STATUSES else response.take()
    if body is not None:
        inbox.close()
        if head.http_version == "1.0" and body and not any(name == b"content-length" for name, _ in headers):
            # Such a client does not know the chunks that the server would make of it.
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    if is_event_stream(headers):
        response.cancel_deadline()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while piece := await response.read():
        rest = response.take()
        if rest is not None:
            inbox.close()
            await send({"type": "http.response.body", "body": piece + rest})
            return
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    inbox.close()
    await send({"type": "http.response.body", "body": b""})


async def send_reply(send: Send, reply: Reply) -> str:
    """Send an answer of our own; returns what it is called in a log."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers or []})
    await send({"type": "http.response.body", "body": reply.body})
    return HTTPStatus(reply.status).phrase.lower()
