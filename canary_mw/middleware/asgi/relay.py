"""Forwards requests of an ASGI server to their service, and relays the responses."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from canary_mw.client.interfaces import UpstreamResponse
from canary_mw.exceptions import ClientDisconnected, ClientError, UpstreamError
from canary_mw.forwarding.exchange import (
    direct_response,
    exchange,
    exchange_with_gray,
    exchange_with_stable,
    is_refused_upgrade,
)
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply
from canary_mw.forwarding.replies import client_error_reply
from canary_mw.http.framing import check_head
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.fallback import answer_for_stable, answered_by_gray, as_app
from canary_mw.middleware.asgi.in_process import call_and_copy, call_app
from canary_mw.middleware.asgi.receive import DisconnectTimer, RequestStream, replayed
from canary_mw.middleware.asgi.replies import relay, send_reply
from canary_mw.middleware.asgi.services import start_error
from canary_mw.observability.counters import RefusalCounters
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping
from canary_mw.types import ASGIApp, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.body_buffer import ReplayBuffer
from canary_mw.upstreams.shadows import ShadowSender

# The outcome of an exchange, None when an app has answered in its place, and the response whose body is relayed.
ExchangeResult = tuple[Relay | Reply | None, UpstreamResponse | None]
PendingResult = Callable[[], Awaitable[ExchangeResult]]


class StartedRequest(NamedTuple):
    """A request that the server has decided already, and perhaps sent.

    Attributes:
        since: the `perf_counter` time at which observers were notified of the decision, None when they were not.
        pending: awaits the result of the exchange, where the request was sent already.
        governed, net: the table whose releases were asked, and the safety net; None where there are none.
    """

    decision: Decision | None
    head: RequestHead
    hop: HopContext
    since: float | None = None
    pending: PendingResult | None = None
    governed: RouteTable | None = None
    net: SafetyNet | None = None


class Forwarder:
    """Sends requests to the services of their Mappings, and relays the responses.

    Args:
        upstreams: sends the requests.
        shadows: sends the shadow copies.
        replay_limit: bytes of a request body that are kept for retries and shadows.
        refusals: counts the refused requests.
    """

    def __init__(
        self, upstreams: Upstreams, shadows: ShadowSender, replay_limit: int, refusals: RefusalCounters
    ) -> None:
        self._upstreams = upstreams
        self._shadows = shadows
        self._replay_limit = replay_limit
        self._refusals = refusals
        self._disconnect_timer: DisconnectTimer | None = None

    async def forward(
        self,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        scope: Scope,
        receive: Receive,
        send: Send,
        pending: PendingResult | None = None,
        net: SafetyNet | None = None,
    ) -> str | None:
        """Send a request to the service of its Mapping, and relay the response.

        Args:
            pending, net: as in `StartedRequest`.

        Returns:
            Why the client got no response, or one that is not the upstream's; None when the upstream's was relayed.

        Raises:
            UpstreamError: the upstream failed after its response head was relayed. It must reach the server, so that it
                closes the connection. All servers do so on an exception, but not all when the last message is missing.
        """
        # A copy: some servers add trailers to the list while they receive the body.
        head.headers = list(head.headers)
        service_app = self._upstreams.app(decision)
        try:
            if "canary_mw.checked" not in scope:
                check_head(scope["method"], scope.get("raw_path") or b"/", head.headers, scope["http_version"])
            if service_app is None:
                stream = self._request_stream(receive, scope)
                if net is not None:
                    return await self._forward_above_net(net, decision, head, hop, scope, stream, send, pending)
                return await self._forward_to_upstream(decision, head, hop, stream, send, pending)
            # A call of an app cannot be repeated once it has begun.
            steps = exchange(decision, head, hop, _never)
            self._note_start_error(service_app, decision, head)
            if net is not None:
                gray = as_app(service_app, steps, head.mount)
                return await self.call_gray(gray, net, decision, head, hop, scope, receive, send)
            reply = await call_app(service_app, steps, scope, receive, send, head.mount)
        except ClientError as exc:
            self._upstreams.errors.refused(decision.mapping, exc)
            reply = self.refusal(exc, scope["http_version"])
        except UpstreamError as exc:
            raise self._broken(decision if net is None else net.answering(decision), exc) from None
        return None if reply is None else await send_reply(send, reply)

    async def call_gray(
        self,
        app: ASGIApp,
        net: SafetyNet,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> str | None:
        """Call a gray variant that is an app of this process; where it fails, stable may answer. See `forward`."""
        stream = self._request_stream(receive, scope)
        buffer = ReplayBuffer(stream.open, net.settings.body, stream.loop)
        net.begin_in_process(head)
        net.body_state = buffer.state
        try:
            if await answered_by_gray(app, net, scope, replayed(buffer, receive), send):
                return None
            if net.app is not None:
                await answer_for_stable(net, head, hop, scope, replayed(buffer, receive), send)
                return None
            steps = exchange_with_stable(head, hop, net, partial(self._can_retry, buffer))
            result = partial(self._upstreams.run, steps, buffer.open, stream.loop)
            return await self._forward_to_upstream(net.stable_decision, head, hop, stream, send, result)
        except ClientError as exc:
            self._upstreams.errors.refused(net.answering(decision).mapping, exc)
            return await send_reply(send, self.refusal(exc, scope["http_version"]))
        except UpstreamError as exc:
            raise self._broken(net.answering(decision), exc) from None
        finally:
            buffer.close()
            net.close()

    def _broken(self, decision: Decision, exc: UpstreamError) -> UpstreamError:
        """The error of a response that ended early, once it is logged."""
        mapping = decision.mapping
        self._upstreams.errors.failed(mapping.service.text, mapping.name, exc, in_response=True)
        return exc.with_traceback(None)

    def _note_start_error(self, app: ASGIApp, decision: Decision, head: RequestHead) -> None:
        error = start_error(app)
        if error is not None and direct_response(decision, head) is None:
            self._upstreams.errors.failed(decision.mapping.service.text, decision.mapping.name, error)

    def refusal(self, exc: ClientError, version: str = "2") -> Reply:
        """The reply to a request that is refused, which is counted; see `client_error_reply`."""
        self._refusals.count(exc.status_hint)
        return client_error_reply(exc, version)

    def _request_stream(self, receive: Receive, scope: Scope) -> RequestStream:
        # The loop is passed on from here: `get_running_loop` costs a system call.
        loop = asyncio.get_running_loop()
        if self._disconnect_timer is None or self._disconnect_timer.loop is not loop:
            self._disconnect_timer = DisconnectTimer(loop)
        return RequestStream(receive, self._disconnect_timer, scope.get("canary_mw.client"))

    async def _forward_to_upstream(
        self,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        stream: RequestStream,
        send: Send,
        pending: PendingResult | None,
    ) -> str | None:
        loop = stream.loop
        buffer: ReplayBuffer | None = None
        response: UpstreamResponse | None = None
        stream.watch_soon()
        try:
            if pending is not None:
                outcome, response = await pending()
            elif decision.mapping.retry is None and decision.shadow is None:
                outcome, response = await self._upstreams.run(exchange(decision, head, hop), stream.open, loop)
            else:
                buffer = ReplayBuffer(stream.open, self._replay_limit, loop)
                outcome, response = await self._run_with_replay(decision, head, hop, buffer, loop)
            if outcome is None:
                return None
            if isinstance(outcome, Reply):
                if is_refused_upgrade(decision, head):
                    self._upstreams.errors.refused_upgrade(decision.mapping)
                return await send_reply(send, outcome)
            assert response is not None
            await relay(response, outcome, head, stream, send)
        except ClientDisconnected:
            return "client left"
        except asyncio.CancelledError:
            if stream.cancelled_by_disconnect():
                return "client left"
            raise
        finally:
            if buffer is not None:
                buffer.close()
            stream.close()
            if response is not None:
                response.close()
        return None

    async def _run_with_replay(
        self,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        buffer: ReplayBuffer,
        loop: asyncio.AbstractEventLoop,
    ) -> ExchangeResult:
        """Run an exchange that may send the body again, or copy it to a shadow."""
        steps = exchange(decision, head, hop, partial(self._can_retry, buffer, decision.mapping))
        on_shadow = partial(self._shadows.send_when_complete, buffer=buffer)
        return await self._upstreams.run(steps, buffer.open, loop, on_shadow)

    async def _forward_above_net(
        self,
        net: SafetyNet,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        scope: Scope,
        stream: RequestStream,
        send: Send,
        pending: PendingResult | None = None,
    ) -> str | None:
        """Forward a request to a gray variant, and perhaps to stable, or call the app that answers for it."""
        limit = max(self._replay_limit, net.settings.body)
        buffer = ReplayBuffer(stream.open, limit, stream.loop, keeps_first=True)
        net.body_state = buffer.state
        can_retry = partial(self._can_retry, buffer)
        on_shadow = partial(self._shadows.send_when_complete, buffer=buffer)
        run = partial(self._upstreams.run, open_body=buffer.open, loop=stream.loop, on_shadow=on_shadow)

        async def result() -> ExchangeResult:
            steps = exchange_with_gray(decision, head, hop, net, can_retry)
            found = await (run(steps) if pending is None else pending())
            if net.stable is None:
                return found
            if await stream.client_left():
                net.forget()
                raise ClientDisconnected
            if net.app is None:
                return await run(exchange_with_stable(head, hop, net, can_retry))
            await answer_for_stable(net, head, hop, scope, await stream.replay(buffer), send)
            return None, None

        try:
            return await self._forward_to_upstream(decision, head, hop, stream, send, result)
        except UpstreamError:
            net.broke()
            raise
        finally:
            buffer.close()
            net.close()

    def _can_retry(self, buffer: ReplayBuffer, mapping: Mapping) -> bool:
        service, options = mapping.service.text, mapping.options
        return buffer.can_replay() and self._upstreams.may_retry(service, options.circuit_breakers)

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
        """Call the wrapped app, and copy the request to the shadow of its group."""
        await call_and_copy(app, self._shadows, self._replay_limit, decision, head, hop, scope, receive, send)


def _never() -> bool:
    return False
