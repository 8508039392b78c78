"""The gate of a WSGI middleware: the counterpart of `filters.asgi`."""

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from canary_mw.exceptions import ClientDisconnected, ClientError
from canary_mw.forwarding.filters.admission import admission
from canary_mw.forwarding.filters.calls import Admitted
from canary_mw.forwarding.filters.guarding import is_same_path
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Reply
from canary_mw.forwarding.replies import text_reply
from canary_mw.forwarding.tracing.asking import traced_admission
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.audience.sync import SyncAsker
from canary_mw.middleware.filters.shell import FilterShell, Known, answered, drawing_once
from canary_mw.middleware.filters.sync import SyncAsker as SyncServiceAsker
from canary_mw.middleware.wsgi.environ import environ_key
from canary_mw.middleware.wsgi.in_process import text_pairs
from canary_mw.middleware.wsgi.relayed_body import send_reply
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable
from canary_mw.types import Environ, ExcInfo, StartResponse, Write
from canary_mw.upstreams.sync import SyncUpstreams


class SyncPassage(NamedTuple):
    """A request that goes on; see `Passage`."""

    decision: Decision | None
    head: RequestHead
    person: Person
    start_response: StartResponse
    since: float


class SyncOwner(Protocol):
    """What a gate uses of its middleware."""

    upstreams: SyncUpstreams
    tally: Any

    audience: SyncAsker

    @property
    def decide(self) -> Callable[..., Decision | None]:
        """See `Owner`."""

    @property
    def roll(self) -> Callable[[], float]:
        """See `Owner`."""

    def hop(self, head: RequestHead, settings: Any) -> HopContext:
        """See `MiddlewareBase`."""

    def notify_answered(
        self, decision: Decision | None, head: RequestHead, status: int | None, since: float, reason: str | None
    ) -> None:
        """See `ObservedRequests`."""


class SyncGate:
    """Asks the services of filters about the requests of a middleware; see `Gate`."""

    def __init__(self, owner: SyncOwner, shell: FilterShell, refusal: Callable[[ClientError], Reply]) -> None:
        self._owner = owner
        self._shell = shell
        self._refusal = refusal
        self._asker = SyncServiceAsker(owner.upstreams)

    def admit(
        self,
        table: RouteTable,
        head: RequestHead,
        person: Person,
        environ: Environ,
        start_response: StartResponse,
    ) -> SyncPassage | Iterable[bytes]:
        """Ask about a request; the body of the answer where it is answered already."""
        known, owner, roll = Known(drawing_once(person)), self._owner, self._owner.roll()

        def decide(head: RequestHead) -> Decision | None:
            return owner.decide(table, head, roll, known.person)

        def settle(changed: RequestHead) -> Decision | None:
            seen = dict(environ)
            change_environ(seen, head, changed)
            decision, known.person = owner.audience.decide(owner.decide, table, changed, roll, known.person, seen)
            return decision

        since, decision, filters = perf_counter(), decide(head), table.filters
        assert filters is not None
        same = is_same_path(head, environ.get("PATH_INFO", "").encode("latin-1", "replace"))
        facts = self._shell.facts(table, head, decide, owner.hop(head, table.settings), known.person, same_path=same)
        outcome: Admitted | Reply
        left = False
        try:
            steps = admission(table, filters, decision, head, facts)
            if head.trace is not None:
                steps = traced_admission(steps, head.trace)
            outcome = self._asker.run(steps, head, environ, settle)
        except ClientError as exc:
            outcome = self._refusal(exc)
        except ClientDisconnected:
            # The client does not read it, but the server needs a response.
            outcome, left = text_reply(400), True
        answered(self._owner.tally, head)
        if isinstance(outcome, Admitted):
            change_environ(environ, head, outcome.head)
            start_response = with_response_headers(start_response, outcome.response_headers)
            return SyncPassage(outcome.decision, outcome.head, known.person, start_response, since)
        body, reason = send_reply(outcome, start_response)
        status = None if left else outcome.status
        self._owner.notify_answered(decision, head, status, since, "client left" if left else reason)
        return body


def change_environ(environ: Environ, before: RequestHead, after: RequestHead) -> None:
    """Put what services have changed of a request into the environ that the wrapped app gets."""
    if after.headers is not before.headers:
        for name in {name for name, _ in before.headers} - {name for name, _ in after.headers}:
            environ.pop(environ_key(name), None)
        environ |= _changed(before, after)
    if after.path != before.path:
        environ["PATH_INFO"] = unquote_to_bytes(after.path).decode("latin-1")
    if after.query != before.query:
        environ["QUERY_STRING"] = after.query[1:].decode("latin-1")
    if (after.path, after.query) != (before.path, before.query):
        target = (after.mount.sent + after.path + after.query).decode("latin-1")
        environ |= {key: target for key in ("RAW_URI", "REQUEST_URI") if key in environ}


def _changed(before: RequestHead, after: RequestHead) -> Environ:
    """The keys of headers that are new, or have other values; the values of repeated headers are joined."""
    old = _values(before)
    return {
        environ_key(name): (b"; " if name == b"cookie" else b", ").join(values).decode("latin-1")
        for name, values in _values(after).items()
        if values != old.get(name)
    }


def _values(head: RequestHead) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in head.headers:
        found.setdefault(name, []).append(value)
    return found


def with_response_headers(start_response: StartResponse, headers: tuple[tuple[bytes, bytes], ...]) -> StartResponse:
    """A `start_response` that adds headers; without any, the given one."""
    if not headers:
        return start_response

    def start(status: str, pairs: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        return start_response(status, [*pairs, *text_pairs(headers)], exc_info)

    return start
