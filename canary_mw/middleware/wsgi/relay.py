"""Forwards requests of a WSGI server to their service, and relays the responses."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from canary_mw.client.interfaces import SyncResponse
from canary_mw.exceptions import ClientDisconnected, ClientError, UpstreamError
from canary_mw.forwarding.exchange import exchange, upstream_error_reply
from canary_mw.forwarding.headers import is_event_stream
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.outages import wsgi_upgrade_line
from canary_mw.forwarding.replies import client_error_reply, text_reply
from canary_mw.forwarding.requests import upstream_request
from canary_mw.http.framing import check_head
from canary_mw.http.headers import HOP_BY_HOP_HEADERS
from canary_mw.http.messages import NO_BODY_STATUSES, RequestHead
from canary_mw.locks import new_lock
from canary_mw.middleware.wsgi.environ import request_target
from canary_mw.middleware.wsgi.in_process import call_app, status_line, text_pairs
from canary_mw.middleware.wsgi.observed_body import observe_body
from canary_mw.middleware.wsgi.request_body import RecordingInput, RequestBody
from canary_mw.observability.counters import RefusalCounters
from canary_mw.routing.decided import Decision
from canary_mw.rules.mapping import Mapping
from canary_mw.types import Environ, ExcInfo, StartResponse, Write, WSGIApp
from canary_mw.upstreams.body_buffer import SyncReplayBuffer
from canary_mw.upstreams.shadows import ShadowSender
from canary_mw.upstreams.sync import SyncUpstreams


class WSGIResult(NamedTuple):
    """The body for the server, and why the response is not the upstream's; None when it is."""

    body: Iterable[bytes]
    reason: str | None = None


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
        self, decision: Decision, head: RequestHead, hop: HopContext, environ: Environ, start_response: StartResponse
    ) -> WSGIResult:
        """Send a request to the service of its Mapping, and relay the response.

        When the upstream fails after its response head was relayed, the iterator raises UpstreamError. The error must
        reach the server, so that it closes the connection.
        """
        app = self._upstreams.app(decision)
        if environ.get("SERVER_SOFTWARE", "").startswith("Werkzeug/"):
            start_response = _without_own_headers(start_response)
        try:
            check_head(head.method, request_target(environ)[0], head.headers, head.http_version)
            if _is_websocket(head):
                self._upstreams.errors.refused_upgrade(decision.mapping, wsgi_upgrade_line)
                return send_reply(text_reply(403, "websockets cannot pass a WSGI server\n"), start_response)
            if app is None:
                body = RequestBody(environ, _body_length(head))
                return self._forward_to_upstream(decision, head, hop, body, start_response)
            # A call of an app cannot be repeated once it has begun.
            steps = exchange(decision, head, hop, lambda: False)
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
                # The client does not read it, but the server needs a response.
                return send_reply(text_reply(400), start_response)._replace(reason="client left")
            raise
        if response is None:
            if buffer is not None:
                buffer.close()
            assert isinstance(outcome, Reply)
            return send_reply(outcome, start_response)
        assert isinstance(outcome, Relay)
        relayed = RelayedBody(response, partial(self._failed_in_response, decision.mapping), buffer)
        try:
            return WSGIResult(relay(relayed, outcome, head, start_response))
        except UpstreamError as exc:
            relayed.close()
            return send_reply(upstream_error_reply(decision.mapping, exc), start_response)
        except BaseException:
            relayed.close()
            raise

    def _failed_in_response(self, mapping: Mapping, exc: UpstreamError) -> None:
        self._upstreams.errors.failed(mapping.service.text, mapping.name, exc, in_response=True)

    def _run_with_replay(
        self, decision: Decision, head: RequestHead, hop: HopContext, buffer: SyncReplayBuffer
    ) -> tuple[Relay | Reply, SyncResponse | None]:
        """Run an exchange that may send the body again, or copy it to a shadow."""
        mapping, upstreams = decision.mapping, self._upstreams

        def can_retry() -> bool:
            return buffer.can_replay() and upstreams.may_retry(mapping.service.text, mapping.options.circuit_breakers)

        steps = exchange(decision, head, hop, can_retry)
        return upstreams.run(steps, buffer.open, partial(self._copy, buffer=buffer))

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
            return observe_body(app(environ, start_response), lambda _: buffer.close())
        except BaseException:
            buffer.close()
            raise


def _without_own_headers(start_response: StartResponse) -> StartResponse:
    """For the one server that adds `date` and `server` also to a response that has them: a client gets one of each."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        kept = [pair for pair in headers if pair[0].lower() not in ("date", "server")]
        return start_response(status, kept, exc_info)

    return start


def _is_websocket(head: RequestHead) -> bool:
    return (head.header(b"upgrade") or b"").lower() == b"websocket" and head.http_version != "1.0"


def _body_length(head: RequestHead) -> int | None:
    """Bytes of the request body, None for a chunked one."""
    return int(head.header(b"content-length") or 0) if head.header(b"transfer-encoding") is None else None


def send_reply(reply: Reply, start_response: StartResponse) -> WSGIResult:
    """Start a reply; returns its body and its reason for the access log."""
    start_response(status_line(reply.status), text_pairs(reply.headers or ()))
    return WSGIResult([reply.body] if reply.body else [], HTTPStatus(reply.status).phrase.lower())


def relay(relayed: "RelayedBody", outcome: Relay, head: RequestHead, start_response: StartResponse) -> Iterable[bytes]:
    """Relay a response as it comes; the body is one chunk when it is complete already.

    Raises:
        UpstreamError: the upstream failed before the first byte of the body, so that a reply can be sent instead.
    """
    status, headers = outcome.head.status, outcome.head.headers
    if status == 426:
        # Servers take no hop-by-hop headers from apps (PEP 3333).
        headers = [pair for pair in headers if pair[0] not in HOP_BY_HOP_HEADERS]
    body = b"" if head.method == "HEAD" or status in NO_BODY_STATUSES else relayed.response.take()
    if body is None:
        if is_event_stream(headers):
            relayed.response.cancel_deadline()
        # Servers send the head with the first chunk of the body (PEP 3333), so waiting for it here delays nothing.
        relayed.read_first()
        start_response(status_line(status), text_pairs(headers))
        return relayed
    relayed.close()
    if head.http_version == "1.0" and body and not any(name == b"content-length" for name, _ in headers):
        # The server would send chunks, which HTTP/1.0 does not have.
        headers.append((b"content-length", b"%d" % len(body)))
    start_response(status_line(status), text_pairs(headers))
    return [body] if body else []


class RelayedBody:
    """The body of a response as it comes; an iterator.

    Closing it releases the upstream's connection, whether it was read to its end or not.
    """

    def __init__(
        self, response: SyncResponse, on_error: Callable[[UpstreamError], None], buffer: SyncReplayBuffer | None
    ) -> None:
        self.response = response
        self._on_error = on_error
        self._buffer = buffer
        self._first_chunk: bytes | None = None

    def read_first(self) -> None:
        """Wait for the first chunk; raises UpstreamError when it does not come."""
        self._first_chunk = self._read()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk, self._first_chunk = self._first_chunk, None
        if chunk is None:
            chunk = self._read()
        if not chunk:
            self.close()
            raise StopIteration
        return chunk

    def _read(self) -> bytes:
        try:
            return self.response.read()
        except UpstreamError as exc:
            self.close()
            self._on_error(exc)
            raise exc.with_traceback(None) from None

    def close(self) -> None:
        """Release the connection."""
        self.response.close()
        if self._buffer is not None:
            self._buffer.close()
