"""What is above and below the safety net of a release: gray variants that fail, and stable that answers for them."""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from canary_mw.client.interfaces import SyncResponse
from canary_mw.exceptions import ClientDisconnected, UpstreamError
from canary_mw.forwarding.exchange import Exchange, exchange, exchange_with_gray, exchange_with_stable
from canary_mw.forwarding.fallback import FALLBACK_HEADER, SafetyNet, failure_of_error
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply
from canary_mw.host import HostLogger
from canary_mw.http.messages import Mount, RequestHead
from canary_mw.middleware.wsgi.in_process import call_app
from canary_mw.middleware.wsgi.relayed_body import WSGIResult, send_reply
from canary_mw.propagate.carried import carried, carry_on
from canary_mw.routing.decided import Decision
from canary_mw.rules.mapping import Mapping
from canary_mw.types import Environ, ExcInfo, StartResponse, Write, WSGIApp
from canary_mw.upstreams.body_buffer import SyncReplayBuffer

logger = HostLogger(logging.getLogger("canary_mw.relay"))


class AskStable(NamedTuple):
    """How one request gets to stable.

    Attributes:
        send: sends the requests of an exchange.
        respond: starts the response of a Mapping; raises UpstreamError when its upstream fails before that.
        can_replay: see `exchange_with_gray`.
        answer: calls the app of this process that answers for stable, if there is one.
    """

    send: Callable[[Exchange], tuple[Relay | Reply, SyncResponse | None]]
    respond: Callable[[Mapping, Relay | Reply, SyncResponse | None], WSGIResult]
    can_replay: Callable[[Mapping], bool]
    answer: Callable[[], WSGIResult]

    def __call__(self, head: RequestHead, hop: HopContext, net: SafetyNet) -> WSGIResult:
        """Ask stable, after gray has failed."""
        if net.app is not None:
            return self.answer()
        outcome, response = self.send(exchange_with_stable(head, hop, net, self.can_replay))
        return self.respond(net.stable_decision.mapping, outcome, response)


def respond_above_net(
    decision: Decision, head: RequestHead, hop: HopContext, net: SafetyNet, ask_stable: AskStable
) -> WSGIResult:
    """Send a request to gray, and where that fails and the safety net allows it, to stable.

    Raises:
        UpstreamError: the response was not started, and `upstream_error_reply` has to be sent.
    """
    steps = exchange_with_gray(decision, head, hop, net, ask_stable.can_replay)
    try:
        outcome, response = ask_stable.send(steps)
        if net.stable is None:
            return ask_stable.respond(decision.mapping, outcome, response)
    except UpstreamError as exc:
        # Servers send the head with the first bytes of the body, and these have not come: stable may still answer.
        if not net.ask_stable(failure_of_error(net.settings, exc, sent_before=True)):
            raise
    return ask_stable(head, hop, net)


def call_above_net(
    app: WSGIApp,
    environ: Environ,
    start_response: StartResponse,
    head: RequestHead,
    hop: HopContext,
    net: SafetyNet,
    ask_stable: AskStable,
) -> WSGIResult:
    """Call an app that is a gray variant; where it fails and the safety net allows it, stable answers."""
    result = answered_by_gray(app, net, environ, start_response)
    return ask_stable(head, hop, net) if result is None else result


def as_app(app: WSGIApp, exchange: Exchange, mount: Mount) -> WSGIApp:
    """An app in place of a service, as an app that answers the requests of a client; see `call_app`."""

    def service(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = call_app(app, exchange, environ, start_response, mount)
        return send_reply(body, start_response).body if isinstance(body, Reply) else body

    return service


def answer_for_stable(
    net: SafetyNet,
    head: RequestHead,
    hop: HopContext,
    environ: Environ,
    start_response: StartResponse,
    buffer: SyncReplayBuffer,
) -> WSGIResult:
    """Call the app that answers for stable, with an environ of its own.

    Args:
        buffer: what was read of the request body.

    Raises:
        ClientError: the request cannot be sent to stable's service.
    """
    stable = net.stable
    assert stable is not None
    fresh = {**environ, "canary_mw.decision": stable.decision}
    if buffer.opened:
        fresh["wsgi.input"] = ReplayedInput(buffer)

    def start(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        net.answered()
        if hop.trusted:
            headers = [*headers, (FALLBACK_HEADER.decode(), net.kind or "")]
        return start_response(status, headers, exc_info)

    app: WSGIApp = stable.app
    if stable.decision is not None and not stable.wrapped:
        app = as_app(app, exchange(net.stable_decision, head, hop, lambda: False), head.mount)
    if (lanes := carried()) is not None:
        # The context is that of this request alone.
        carry_on(lanes.as_stable(stable.decision))
    return WSGIResult(app(fresh, start))


def answered_by_gray(
    app: WSGIApp, net: SafetyNet, environ: Environ, start_response: StartResponse
) -> WSGIResult | None:
    """Call an app that is a gray variant; None, and nothing was started, where stable has to answer."""
    held: list[tuple[str, list[tuple[str, str]], ExcInfo]] = []
    passed = False

    def hold(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        if passed:
            return start_response(status, headers, exc_info)
        held[:] = [(status, headers, exc_info)]
        return pieces.append

    pieces: list[bytes] = []
    try:
        body = app(environ, hold)
        chunks = iter(body)
        # An app may start its response with the first piece of the body only.
        while not held and (chunk := next(chunks, None)) is not None:
            pieces.append(chunk)
    except Exception:
        if not net.ask_about(500):
            raise
        logger.exception("gray variant %s of release %s failed; stable answers", net.variant, net.release)
        return None
    if held and net.ask_about(int(held[0][0][:3])):
        close_body(body)
        return None
    passed = True
    if held:
        start_response(*held[0])
    return WSGIResult(Continued(body, pieces, chunks) if pieces else body)


class Continued:
    """A body of which some pieces were taken already.

    Args:
        body: what the app returned; closing this closes it.
    """

    def __init__(self, body: Iterable[bytes], pieces: Iterable[bytes], rest: Iterator[bytes]) -> None:
        self._body = body
        self._chunks = chain(pieces, rest)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """See PEP 3333."""
        close_body(self._body)


def close_body(body: Iterable[bytes]) -> None:
    """Close what an app returned, if that can be closed."""
    if hasattr(body, "close"):
        body.close()


class ReplayedInput:
    """A `wsgi.input` that gives a body from its beginning: what was kept, then what the server still has.

    The stream of the server is read forwards only.
    """

    def __init__(self, buffer: SyncReplayBuffer) -> None:
        body = buffer.open()
        self._chunks = iter((body,)) if isinstance(body, bytes) else body
        self._unread = b""

    def read(self, size: int | None = -1) -> bytes:
        """See PEP 3333, also for the methods."""
        wanted = -1 if size is None else size
        parts, length = [self._unread], len(self._unread)
        while (wanted < 0 or length < wanted) and (chunk := self._next()):
            parts.append(chunk)
            length += len(chunk)
        return self._take(b"".join(parts), length if wanted < 0 else wanted)

    def readline(self, size: int | None = -1) -> bytes:
        limit = -1 if size is None else size
        data = self._unread
        while b"\n" not in data and (limit < 0 or len(data) < limit) and (chunk := self._next()):
            data += chunk
        end = data.find(b"\n") + 1 or len(data)
        return self._take(data, end if limit < 0 else min(end, limit))

    def readlines(self, hint: int = -1) -> list[bytes]:
        lines: list[bytes] = []
        while (hint < 1 or sum(map(len, lines)) < hint) and (line := self.readline()):
            lines.append(line)
        return lines

    def __iter__(self) -> Any:
        return iter(self.readline, b"")

    def _take(self, data: bytes, size: int) -> bytes:
        self._unread = data[size:]
        return data[:size]

    def _next(self) -> bytes:
        """The next chunk, b"" at the end. Apps know an OSError where the client has left."""
        try:
            return next(self._chunks, b"")
        except ClientDisconnected as exc:
            raise ConnectionResetError(str(exc)) from exc
