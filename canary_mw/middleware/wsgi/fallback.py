"""Stable answers in place of a gray variant that failed: by its service, or by an app of this process."""

from collections.abc import Callable, Iterable
from typing import Any

from canary_mw.client.interfaces import SyncResponse
from canary_mw.exceptions import ClientDisconnected, UpstreamError
from canary_mw.forwarding.exchange import Exchange, exchange, exchange_above_net, exchange_with_stable
from canary_mw.forwarding.fallback import FALLBACK_HEADER, SafetyNet, failure_of_error
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.wsgi.in_process import call_app
from canary_mw.middleware.wsgi.relayed_body import WSGIResult, send_reply
from canary_mw.routing.decided import Decision
from canary_mw.rules.mapping import Mapping
from canary_mw.types import Environ, ExcInfo, StartResponse, Write
from canary_mw.upstreams.body_buffer import SyncReplayBuffer

# Sends the requests of an exchange.
SendExchange = Callable[[Exchange], tuple[Relay | Reply, SyncResponse | None]]
# Starts the response of a Mapping; raises UpstreamError when its upstream fails before that.
Respond = Callable[[Mapping, Relay | Reply, SyncResponse | None], WSGIResult]


def respond_above_net(
    decision: Decision,
    head: RequestHead,
    hop: HopContext,
    net: SafetyNet,
    send: SendExchange,
    respond: Respond,
    can_replay: Callable[[Mapping], bool],
    answer: Callable[[], WSGIResult],
) -> WSGIResult:
    """Send a request to gray, and where that fails and the safety net allows it, to stable.

    Args:
        answer: calls the app of this process that answers for stable, if there is one.

    Raises:
        UpstreamError: the response was not started, and `upstream_error_reply` has to be sent.
    """

    def run(steps: Exchange) -> WSGIResult:
        outcome, response = send(steps)
        if net.app is not None:
            return answer()
        return respond(net.answering(decision.mapping), outcome, response)

    try:
        return run(exchange_above_net(decision, head, hop, net, can_replay))
    except UpstreamError as exc:
        # Servers send the head with the first bytes of the body, and these have not come: stable may still answer.
        if net.stable is not None or not net.ask_stable(failure_of_error(net.settings, exc, sent_before=True)):
            raise
    return run(exchange_with_stable(head, hop, net, can_replay)) if net.app is None else answer()


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

    if stable.decision is None or stable.wrapped:
        body: Iterable[bytes] | Reply = stable.app(fresh, start)
    else:
        steps = exchange(net.stable_decision, head, hop, lambda: False)
        body = call_app(stable.app, steps, fresh, start, head.mount)
    if not isinstance(body, Reply):
        return WSGIResult(body)
    net.finish_with(body)
    return send_reply(body, start_response)


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
