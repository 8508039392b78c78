"""The gate of an ASGI middleware: services are asked, then the request goes on, or gets their answer."""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from canary_mw.exceptions import ClientDisconnected, ClientError
from canary_mw.forwarding.filters.admission import admission
from canary_mw.forwarding.filters.calls import Admitted
from canary_mw.forwarding.filters.guarding import is_same_path
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Reply
from canary_mw.forwarding.tracing.asking import traced_admission
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.replies import deny_handshake, send_reply
from canary_mw.middleware.audience.aio import Asker
from canary_mw.middleware.filters.aio import Asker as ServiceAsker
from canary_mw.middleware.filters.shell import FilterShell, Known, answered, drawing_once
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable
from canary_mw.types import Message, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams

_STARTS = frozenset(("http.response.start", "websocket.http.response.start", "websocket.accept"))


class Passage(NamedTuple):
    """A request that goes on.

    Attributes:
        since: the `perf_counter` time at which the services were asked.
    """

    decision: Decision | None
    head: RequestHead
    person: Person
    receive: Receive
    send: Send
    since: float


class Owner(Protocol):
    """What a gate uses of its middleware."""

    upstreams: Upstreams
    tally: Any

    audience: Asker

    @property
    def decide(self) -> Callable[..., Decision | None]:
        """Decides about a head: `routing.decision.decide`."""

    @property
    def roll(self) -> Callable[[], float]:
        """Draws a percent in [0, 100)."""

    def hop(self, head: RequestHead, settings: Any) -> HopContext:
        """See `MiddlewareBase`."""

    def notify_answered(
        self, decision: Decision | None, head: RequestHead, status: int | None, since: float, reason: str | None
    ) -> None:
        """See `ObservedRequests`."""


class Gate:
    """Asks the services of filters about the requests of a middleware.

    Args:
        refusal: the reply to a request that cannot be asked about, which is counted.
    """

    def __init__(self, owner: Owner, shell: FilterShell, refusal: Callable[[ClientError], Reply]) -> None:
        self._owner = owner
        self._shell = shell
        self._refusal = refusal
        self._asker = ServiceAsker(owner.upstreams)

    async def admit(
        self,
        table: RouteTable,
        head: RequestHead,
        person: Person,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> Passage | None:
        """Ask about a request; None where it is answered already."""
        known, owner, roll = Known(drawing_once(person)), self._owner, self._owner.roll()

        def decide(head: RequestHead) -> Decision | None:
            return owner.decide(table, head, roll, known.person)

        async def settle(changed: RequestHead) -> Decision | None:
            seen = dict(scope)
            change_scope(seen, head, changed)
            asking = owner.audience.decide(owner.decide, table, changed, roll, known.person, seen)
            decision, known.person = await asking
            return decision

        since, decision, filters = perf_counter(), decide(head), table.filters
        assert filters is not None
        websocket = scope["type"] == "websocket"
        same = is_same_path(head, _app_path(scope))
        hop = self._owner.hop(head, table.settings)
        facts = self._shell.facts(table, head, decide, hop, known.person, same_path=same, websocket=websocket)
        outcome: Admitted | Reply | None
        try:
            steps = admission(table, filters, decision, head, facts)
            if head.trace is not None:
                steps = traced_admission(steps, head.trace)
            outcome, receive = await self._asker.run(steps, head, scope, receive, settle)
        except ClientError as exc:
            outcome = self._refusal(exc)
        except ClientDisconnected:
            outcome = None
        if isinstance(outcome, Admitted):
            answered(self._owner.tally, head)
            change_scope(scope, head, outcome.head)
            send = with_response_headers(send, outcome.response_headers)
            return Passage(outcome.decision, outcome.head, known.person, receive, send, since)
        reason = await _answer(outcome, scope, receive, send)
        answered(self._owner.tally, head)
        status = None if outcome is None else outcome.status
        self._owner.notify_answered(decision, head, status, since, reason)
        return None


async def _answer(reply: Reply | None, scope: Scope, receive: Receive, send: Send) -> str | None:
    """Answer a request that is not admitted; returns why the answer did not reach its client, None where it did."""
    if reply is None:
        return "client left"
    if scope["type"] == "websocket":
        await deny_handshake(scope, receive, send, reply)
        return "handshake refused"
    return await send_reply(send, reply)


def _app_path(scope: Scope) -> bytes:
    """The path by which an app routes: without what it is mounted at."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and path.startswith(root.rstrip("/") + "/"):
        path = path[len(root.rstrip("/")) :]
    return path.encode("utf-8", "surrogatepass")


def change_scope(scope: Scope, before: RequestHead, after: RequestHead) -> None:
    """Put what services have changed of a request into the scope that the wrapped app gets."""
    if after.headers is not before.headers:
        scope["headers"] = list(after.headers)
    if after.path != before.path:
        path = after.mount.root + after.path
        scope["raw_path"], scope["path"] = path, unquote(path.decode("latin-1"))
    if after.query != before.query:
        scope["query_string"] = after.query[1:]


def with_response_headers(send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> Send:
    """A `send` that adds headers to the head of the answer; without any, the given one."""
    if not headers:
        return send

    # No coroutine, because every message passes here.
    def adding_send(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            message = {**message, "headers": [*(message.get("headers") or ()), *headers]}
        return send(message)

    return adding_send
