"""Forwards requests of a WSGI server to their service, and relays the responses."""

from collections.abc import Callable, Iterable
from functools import partial

from canary_mw.client.interfaces import SyncResponse
from canary_mw.exceptions import ClientDisconnected, ClientError, UpstreamError
from canary_mw.forwarding.exchange import exchange, upstream_error_reply
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.outages import wsgi_upgrade_line
from canary_mw.forwarding.replies import client_error_reply, text_reply
from canary_mw.forwarding.requests import upstream_request
from canary_mw.http.framing import check_head
from canary_mw.http.messages import RequestHead
from canary_mw.locks import new_lock
from canary_mw.middleware.wsgi.environ import request_target
from canary_mw.middleware.wsgi.fallback import (
    AskStable,
    ReplayedInput,
    answer_for_stable,
    as_app,
    call_above_net,
    respond_above_net,
)
from canary_mw.middleware.wsgi.host_server import without_own_headers
from canary_mw.middleware.wsgi.in_process import call_app
from canary_mw.middleware.wsgi.observed_body import observe_body
from canary_mw.middleware.wsgi.relayed_body import RelayedBody, WSGIResult, relay, send_reply
from canary_mw.middleware.wsgi.request_body import RecordingInput, RequestBody
from canary_mw.observability.counters import RefusalCounters
from canary_mw.routing.decided import Decision
from canary_mw.rules.mapping import Mapping
from canary_mw.types import Environ, StartResponse, WSGIApp
from canary_mw.upstreams.body_buffer import SyncReplayBuffer
from canary_mw.upstreams.shadows import ShadowSender
from canary_mw.upstreams.sync import SyncUpstreams


class SyncForwarder:
    """Sends requests to the services of their Mappings, and relays the responses; the counterpart of `Forwarder`."""

    def __init__(
        self, upstreams: SyncUpstreams, shadows: ShadowSender, replay_limit: int, refusals: RefusalCounters
    ) -> None:
        self._upstreams = upstreams
        self._shadows = shadows
        self._replay_limit = replay_limit
        self._refusals = refusals
        self._refusals_lock = new_lock()

    def forward(
        self,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        environ: Environ,
        start_response: StartResponse,
        net: SafetyNet | None = None,
    ) -> WSGIResult:
        """Send a request to the service of its Mapping, and relay the response.

        Args:
            net: the safety net below a request of a gray variant.

        When the upstream fails after its response head was relayed, the iterator raises UpstreamError. The error must
        reach the server, so that it closes the connection.
        """
        app = self._upstreams.app(decision)
        start_response = without_own_headers(environ, start_response)
        try:
            check_head(head.method, request_target(environ)[0], head.headers, head.http_version)
            if _is_websocket(head):
                self._upstreams.errors.refused_upgrade(decision.mapping, wsgi_upgrade_line)
                return send_reply(text_reply(403, "websockets cannot pass a WSGI server\n"), start_response)
            if app is None:
                body = RequestBody(environ, _body_length(head))
                if net is not None:
                    buffer = SyncReplayBuffer(body.open, max(self._replay_limit, net.settings.body), keeps_first=True)
                    send = partial(respond_above_net, decision)
                    return self._above_net(send, net, decision, head, hop, buffer, environ, start_response)
                return self._forward_to_upstream(decision, head, hop, body, start_response)
            # A call of an app cannot be repeated once it has begun.
            steps = exchange(decision, head, hop, lambda: False)
            if net is not None:
                return self.call_gray(as_app(app, steps, head.mount), net, decision, head, hop, environ, start_response)
            result = call_app(app, steps, environ, start_response, head.mount)
        except ClientError as exc:
            self._upstreams.errors.refused(decision.mapping, exc)
            return send_reply(self.refusal(exc), start_response)
        return send_reply(result, start_response) if isinstance(result, Reply) else WSGIResult(result)

    def _forward_to_upstream(
        self, decision: Decision, head: RequestHead, hop: HopContext, body: RequestBody, start_response: StartResponse
    ) -> WSGIResult:
        buffer: SyncReplayBuffer | None = None
        try:
            if decision.mapping.retry is None and decision.shadow is None:
                outcome, response = self._upstreams.run(exchange(decision, head, hop), body.open)
            else:
                buffer = SyncReplayBuffer(body.open, self._replay_limit)
                outcome, response = self._run_with_replay(decision, head, hop, buffer)
        except BaseException as exc:
            if buffer is not None:
                buffer.close()
            if isinstance(exc, ClientDisconnected):
                return _client_left(start_response)
            raise
        try:
            return self._respond(buffer, head, start_response, decision.mapping, outcome, response)
        except UpstreamError as exc:
            return send_reply(upstream_error_reply(decision.mapping, exc), start_response)

    def _respond(
        self,
        buffer: SyncReplayBuffer | None,
        head: RequestHead,
        start_response: StartResponse,
        mapping: Mapping,
        outcome: Relay | Reply,
        response: SyncResponse | None,
    ) -> WSGIResult:
        """Start the response; raises UpstreamError when the upstream fails before that."""
        if response is None:
            if buffer is not None:
                buffer.close()
            assert isinstance(outcome, Reply)
            return send_reply(outcome, start_response)
        assert isinstance(outcome, Relay)
        relayed = RelayedBody(response, partial(self._failed_in_response, mapping), buffer)
        try:
            return WSGIResult(relay(relayed, outcome, head, start_response))
        except BaseException:
            relayed.close()
            raise

    def call_gray(
        self,
        app: WSGIApp,
        net: SafetyNet,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        environ: Environ,
        start_response: StartResponse,
    ) -> WSGIResult:
        """Call an app of this process that is a gray variant; where it fails, stable may answer."""
        net.begin_in_process(head)
        try:
            body = RequestBody(environ, _body_length(head))
        except ClientError:
            # Only the server knows where it ends.
            return WSGIResult(app(environ, start_response))
        buffer = SyncReplayBuffer(body.open, net.settings.body)
        if net.request is not None and net.request.body not in (None, (0,)):
            environ["wsgi.input"] = ReplayedInput(buffer)
        call = partial(call_above_net, app, environ, start_response)
        return self._above_net(call, net, decision, head, hop, buffer, environ, start_response)

    def _above_net(
        self,
        call: Callable[[RequestHead, HopContext, SafetyNet, AskStable], WSGIResult],
        net: SafetyNet,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        buffer: SyncReplayBuffer,
        environ: Environ,
        start_response: StartResponse,
    ) -> WSGIResult:
        """Let gray answer, or else stable.

        Args:
            call: asks gray, and may ask stable.
        """
        net.body_state = buffer.state
        ask_stable = AskStable(
            partial(self._upstreams.run, open_body=buffer.open, on_shadow=partial(self._copy, buffer=buffer)),
            partial(self._respond, buffer, head, start_response),
            partial(self._can_retry, buffer),
            partial(answer_for_stable, net, head, hop, environ, start_response, buffer),
        )
        try:
            result = call(head, hop, net, ask_stable)
        except UpstreamError as exc:
            result = send_reply(upstream_error_reply(net.answering(decision).mapping, exc), start_response)
        except ClientError as exc:
            self._upstreams.errors.refused(net.answering(decision).mapping, exc)
            result = send_reply(self.refusal(exc), start_response)
        except ClientDisconnected:
            buffer.close()
            result = _client_left(start_response)
        except BaseException:
            buffer.close()
            net.close()
            raise
        if isinstance(result.body, RelayedBody):
            result.body.net = net
        else:
            net.close()
        return result

    def _failed_in_response(self, mapping: Mapping, exc: UpstreamError) -> None:
        self._upstreams.errors.failed(mapping.service.text, mapping.name, exc, in_response=True)

    def _run_with_replay(
        self, decision: Decision, head: RequestHead, hop: HopContext, buffer: SyncReplayBuffer
    ) -> tuple[Relay | Reply, SyncResponse | None]:
        """Run an exchange that may send the body again, or copy it to a shadow."""
        steps = exchange(decision, head, hop, partial(self._can_retry, buffer, decision.mapping))
        return self._upstreams.run(steps, buffer.open, partial(self._copy, buffer=buffer))

    def _can_retry(self, buffer: SyncReplayBuffer, mapping: Mapping) -> bool:
        service, options = mapping.service.text, mapping.options
        return buffer.can_replay() and self._upstreams.may_retry(service, options.circuit_breakers)

    def _copy(self, request: UpstreamRequest, buffer: SyncReplayBuffer) -> None:
        start = partial(self._upstreams.background.call, self._shadows.send_now, request)
        if request.body is None or request.body.length == 0:
            start(b"")
        else:
            buffer.when_complete(start)

    def refusal(self, exc: ClientError) -> Reply:
        """The reply to a request that is refused, which is counted; see `client_error_reply`."""
        with self._refusals_lock:
            self._refusals.count(exc.status_hint)
        return client_error_reply(exc)

    def serve_and_shadow(
        self,
        app: WSGIApp,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        environ: Environ,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Call the wrapped app, and copy the request to the shadow of its group."""
        try:
            shadow = upstream_request(decision, head, hop).shadow
        except ClientError:
            # The request cannot be forwarded, because of a loop for example. The app decides how it responds.
            shadow = None
        if shadow is None:
            return app(environ, start_response)
        buffer = SyncReplayBuffer(None, self._replay_limit)
        self._copy(shadow, buffer)
        if shadow.body is None:
            return app(environ, start_response)
        environ["wsgi.input"] = RecordingInput(environ["wsgi.input"], buffer, shadow.body.length)
        try:
            return observe_body(app(environ, start_response), lambda *_: buffer.close())
        except BaseException:
            buffer.close()
            raise


def _is_websocket(head: RequestHead) -> bool:
    return (head.header(b"upgrade") or b"").lower() == b"websocket" and head.http_version != "1.0"


def _client_left(start_response: StartResponse) -> WSGIResult:
    # The client does not read it, but the server needs a response.
    return send_reply(text_reply(400), start_response)._replace(reason="client left")


def _body_length(head: RequestHead) -> int | None:
    """Bytes of the request body, None for a chunked one."""
    return int(head.header(b"content-length") or 0) if head.header(b"transfer-encoding") is None else None
