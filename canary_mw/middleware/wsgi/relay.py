"""Requests from a WSGI server on their way to a service, and the answers on their way back."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http import HTTPStatus
from threading import Lock
from typing import NamedTuple

from canary_mw.client.interfaces import SyncResponse
from canary_mw.exceptions import ClientDisconnected, ClientError, UpstreamError
from canary_mw.forwarding.exchange import exchange, upstream_error_reply
from canary_mw.forwarding.headers import is_event_stream
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.replies import client_error_reply, text_reply
from canary_mw.forwarding.requests import upstream_request
from canary_mw.http.framing import check_head
from canary_mw.http.messages import NO_BODY_STATUSES, RequestHead
from canary_mw.middleware.wsgi.environ import RecordingInput, RequestBody, request_target
from canary_mw.middleware.wsgi.in_process import call_app, status_line, text_pairs
from canary_mw.observability.counters import RefusalCounters
from canary_mw.routing.group import Decision
from canary_mw.types import Environ, StartResponse, WSGIApp
from canary_mw.upstreams.body_buffer import SyncReplayBuffer
from canary_mw.upstreams.shadows import ShadowSender
from canary_mw.upstreams.sync import SyncUpstreams

logger = logging.getLogger("canary_mw.relay")


class WSGIResult(NamedTuple):
    """What the server gets, and why it is not the upstream's; None when it is."""

    body: Iterable[bytes]
    reason: str | None = None


class SyncForwarder:
    """Sends requests to the services of their Mappings and relays the answers; the twin of `Forwarder`."""

    def __init__(
        self, upstreams: SyncUpstreams, shadows: ShadowSender, replay_limit: int, door: RefusalCounters
    ) -> None:
        self._upstreams = upstreams
        self._shadows = shadows
        self._replay_limit = replay_limit
        self._refusals = door
        self._counting = Lock()

    def forward(
        self, decision: Decision, head: RequestHead, hop: HopContext, environ: Environ, start_response: StartResponse
    ) -> WSGIResult:
        """Send a request to the service of its Mapping and relay the answer.

        An upstream that fails after its head was relayed makes the iterator raise: that must reach the server, which
        then cuts the connection.
        """
        app = self._upstreams.app(decision.mapping.service)
        try:
            check_head(head.method, request_target(environ)[0], head.headers, head.http_version)
            if _is_websocket(head):
                return send_reply(text_reply(403, "websockets cannot pass a WSGI server\n"), start_response)
            if app is None:
                body = RequestBody(environ, _length(head))
                return self._converse(decision, head, hop, body, start_response)
            # What an app has begun to do cannot be tried again.
            conversation = exchange(decision, head, hop, lambda: False)
            answer = call_app(app, conversation, {**environ, "canary_mw.decision": decision}, start_response)
        except ClientError as exc:
            return send_reply(self.refusal(exc), start_response)
        return send_reply(answer, start_response) if isinstance(answer, Reply) else WSGIResult(answer)

    def _converse(
        self, decision: Decision, head: RequestHead, hop: HopContext, body: RequestBody, start_response: StartResponse
    ) -> WSGIResult:
        tee: SyncReplayBuffer | None = None
        try:
            if decision.mapping.retry is None and decision.shadow is None:
                outcome, response = self._upstreams.run(exchange(decision, head, hop), body.open)
            else:
                tee = SyncReplayBuffer(body.open, self._replay_limit)
                outcome, response = self._run_kept(decision, head, hop, tee)
        except BaseException as exc:
            if tee is not None:
                tee.close()
            if isinstance(exc, ClientDisconnected):
                # Nobody reads this, but a server has to be told something.
                return send_reply(text_reply(400), start_response)._replace(reason="client left")
            raise
        if response is None:
            if tee is not None:
                tee.close()
            assert isinstance(outcome, Reply)
            return send_reply(outcome, start_response)
        assert isinstance(outcome, Relay)
        relayed = RelayedBody(response, decision.mapping.service.text, tee)
        try:
            return WSGIResult(relay(relayed, outcome, head, start_response))
        except UpstreamError as exc:
            relayed.close()
            return send_reply(upstream_error_reply(decision.mapping, exc), start_response)
        except BaseException:
            relayed.close()
            raise

    def _run_kept(
        self, decision: Decision, head: RequestHead, hop: HopContext, tee: SyncReplayBuffer
    ) -> tuple[Relay | Reply, SyncResponse | None]:
        """Run a conversation that may send the body again, or to a shadow."""
        mapping, upstreams = decision.mapping, self._upstreams

        def repeatable() -> bool:
            return tee.can_replay() and upstreams.may_retry(mapping.service.text, mapping.options.circuit_breakers)

        conversation = exchange(decision, head, hop, repeatable)
        return upstreams.run(conversation, tee.open, partial(self._copy, tee=tee))

    def _copy(self, request: UpstreamRequest, tee: SyncReplayBuffer) -> None:
        begin = partial(self._upstreams.background.call, self._shadows.begin, request)
        if request.body is None or request.body.length == 0:
            begin(b"")
        else:
            tee.when_complete(begin)

    def refusal(self, exc: ClientError) -> Reply:
        """What a client hears of a request that cannot be served, which is counted."""
        with self._counting:
            self._refusals.refuse(exc.status_hint)
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
        """Let an app of this process answer, and copy the request to the shadow of its group."""
        try:
            shadow = upstream_request(decision, head, hop).shadow
        except ClientError:
            # Not to be forwarded, a loop for one; the app has to say what becomes of it.
            shadow = None
        if shadow is None:
            return app(environ, start_response)
        tee = SyncReplayBuffer(None, self._replay_limit)
        self._copy(shadow, tee)
        if shadow.body is None:
            return app(environ, start_response)
        environ["wsgi.input"] = RecordingInput(environ["wsgi.input"], tee, shadow.body.length)
        try:
            return observe_body(app(environ, start_response), lambda _: tee.close())
        except BaseException:
            tee.close()
            raise


def _is_websocket(head: RequestHead) -> bool:
    return (head.header(b"upgrade") or b"").lower() == b"websocket"


def _length(head: RequestHead) -> int | None:
    """How many bytes the body has, None for one that is chunked."""
    return int(head.header(b"content-length") or 0) if head.header(b"transfer-encoding") is None else None


def send_reply(reply: Reply, start_response: StartResponse) -> WSGIResult:
    """An answer of our own."""
    start_response(status_line(reply.status), text_pairs(reply.headers or ()))
    return WSGIResult([reply.body] if reply.body else [], HTTPStatus(reply.status).phrase.lower())


def relay(relayed: "RelayedBody", outcome: Relay, head: RequestHead, start_response: StartResponse) -> Iterable[bytes]:
    """Pass an answer on as it comes; one that is complete already goes out in one piece.

    Raises:
        UpstreamError: the answer broke off before its first byte, and another can be given in its place.
    """
    status, headers = outcome.head.status, outcome.head.headers
    body = b"" if head.method == "HEAD" or status in NO_BODY_STATUSES else relayed.response.take()
    if body is None:
        if is_event_stream(headers):
            relayed.response.cancel_deadline()
        # Servers hold a head back until something follows it (PEP 3333), so waiting here delays nobody.
        relayed.begin()
        start_response(status_line(status), text_pairs(headers))
        return relayed
    relayed.close()
    if head.http_version == "1.0" and body and not any(name == b"content-length" for name, _ in headers):
        # Such a client does not know the chunks that the server would make of it.
        headers.append((b"content-length", b"%d" % len(body)))
    start_response(status_line(status), text_pairs(headers))
    return [body] if body else []


class RelayedBody:
    """The body of an answer as it comes, once; closing it frees the upstream's connection, however far it was read."""

    def __init__(self, response: SyncResponse, service: str, tee: SyncReplayBuffer | None) -> None:
        self.response = response
        self._service = service
        self._tee = tee
        self._first: bytes | None = None

    def begin(self) -> None:
        """Wait for the first piece; raises UpstreamError when it does not come."""
        self._first = self._read()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece, self._first = self._first, None
        if piece is None:
            piece = self._read()
        if not piece:
            self.close()
            raise StopIteration
        return piece

    def _read(self) -> bytes:
        try:
            return self.response.read()
        except UpstreamError as exc:
            self.close()
            logger.warning("upstream %s failed in mid-answer: %s", self._service, exc)
            raise exc.with_traceback(None) from None

    def close(self) -> None:
        """Done, read or not."""
        self.response.close()
        if self._tee is not None:
            self._tee.close()


class ObservedBody:
    """What an app returned, and somebody who is told of its end: None, or why there is more that nobody gets."""

    def __init__(self, pieces: Iterable[bytes], ended: Callable[[BaseException | None], object]) -> None:
        self._pieces = pieces
        self._iterator: Iterator[bytes] | None = None
        self._ended: Callable[[BaseException | None], object] | None = ended

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._pieces)
            return next(self._iterator)
        except StopIteration:
            self._end(None)
            raise
        except BaseException as exc:
            self._end(exc)
            raise

    def close(self) -> None:
        """See PEP 3333."""
        try:
            if hasattr(self._pieces, "close"):
                self._pieces.close()
        finally:
            self._end(ClientDisconnected("closed before its end"))

    def _end(self, why: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(why)


class SizedObservedBody(ObservedBody):
    """Servers make a Content-Length where there is but one piece."""

    def __len__(self) -> int:
        return len(self._pieces)  # type: ignore[arg-type]


def observe_body(pieces: Iterable[bytes], ended: Callable[[BaseException | None], object]) -> ObservedBody:
    """What is given, watched, and with a length where it has one."""
    return (SizedObservedBody if hasattr(pieces, "__len__") else ObservedBody)(pieces, ended)
