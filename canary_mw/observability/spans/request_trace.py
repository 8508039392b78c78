"""The trace of one request: its server span, and a client span for each attempt and call."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from time import perf_counter, time
from typing import Any, NamedTuple, Protocol

from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.forwarding.tracing.context import TraceContext, with_context
from canary_mw.observability.logs.entries import Logged
from canary_mw.observability.opentelemetry import redacted
from canary_mw.observability.spans.span import Called, Served, Span
from canary_mw.routing.decided import Decision
from canary_mw.rules.filters.traces import Mode
from canary_mw.rules.upstream import Origin


class Opened(NamedTuple):
    """A span that has begun.

    Attributes:
        start: seconds since the epoch; `since` is of `perf_counter`.
        raw: what a recorder keeps of it.
    """

    context: TraceContext
    start: float
    since: float
    raw: Any = None


class Recorder(Protocol):
    """Makes spans."""

    def open_child(self, parent: Opened) -> Opened | None:
        """Begin a client span; None where somebody else makes one."""

    def close(self, opened: Opened, about: Served | Called, tags: Dict[str, str]) -> None:
        """A span has ended."""


class QueueRecorder:
    """Lets spans wait for their export.

    Args:
        new_id: draws the id of a span.
        add: lets a span wait.
    """

    def __init__(self, new_id: Callable[[], str], add: Callable[[Span], None]) -> None:
        self._new_id, self._add = new_id, add

    def open_child(self, parent: Opened) -> Opened:
        """See `Recorder.open_child`."""
        return opened(parent.context.child(self._new_id()))

    def close(self, opened: Opened, about: Served | Called, tags: Dict[str, str]) -> None:
        """See `Recorder.close`."""
        if opened.context.sampled:
            self._add(Span(opened.context, opened.start, perf_counter() - opened.since, about, tags))


def opened(context: TraceContext, raw: Any = None) -> Opened:
    """A span that begins now."""
    return Opened(context, time(), perf_counter(), raw)


class ServedTrace:
    """The trace of a request; see `forwarding.tracing.interfaces.RequestTrace`.

    Args:
        server: the server span; one that is not ours is never closed.
        generation: number of the rules in force.
    """

    __slots__ = ("_ends_server", "_generation", "_modes", "_recorder", "_server", "_tags", "_tries")

    def __init__(
        self,
        recorder: Recorder,
        server: Opened,
        modes: tuple[Mode, ...],
        tags: Dict[str, str],
        generation: int,
        *,
        ends_server: bool = True,
    ) -> None:
        self._recorder, self._server, self._modes = recorder, server, modes
        self._tags, self._generation, self._ends_server = tags, generation, ends_server
        self._tries: list[_Tries] = []

    def tries(self, namespace: str, call: str = "") -> "_Tries":
        """See `RequestTrace.tries`."""
        tries = _Tries(self, namespace, call)
        self._tries.append(tries)
        return tries

    def open_child(self, headers: list[tuple[bytes, bytes]]) -> tuple[Opened | None, list[tuple[bytes, bytes]]]:
        """Begin a client span; returns the headers with its context."""
        child = self._recorder.open_child(self._server)
        return child, headers if child is None else with_context(self._modes, headers, child.context)

    def close(self, opened: Opened, about: Called) -> None:
        """A client span has ended."""
        self._recorder.close(opened, about, self._tags)

    def finish(self, logged: Logged, decision: Decision | None) -> None:
        """The request has ended."""
        for each in self._tries:
            each.abandon()
        if self._ends_server:
            self._recorder.close(self._server, Served(logged, decision, self._generation), self._tags)


class _Tries:
    """See `forwarding.messages.Tries`."""

    __slots__ = ("_call", "_namespace", "_opened", "_origin", "_request", "_resent", "_trace")

    def __init__(self, trace: ServedTrace, namespace: str, call: str) -> None:
        self._trace, self._namespace, self._call = trace, namespace, call
        self._opened: Opened | None = None
        self._request: UpstreamRequest | None = None
        self._origin: Origin | None = None
        self._resent = 0

    def begin(self, request: UpstreamRequest, origin: Origin) -> None:
        """See `Tries.begin`."""
        self._close(None, "connect", None)
        self._request, self._origin, self._resent = request, origin, request.attempts - 1
        self._opened, request.headers = self._trace.open_child(request.headers)

    def answered(self, status: int, verdict: str | None = None) -> None:
        """See `Tries.answered`."""
        self._close(status, None, verdict)

    def failed(self, error: UpstreamError) -> None:
        """See `Tries.failed`."""
        reason = "reset" if error.reason == "connect" and error.sent else error.reason
        self._close(None, reason, "ext_authz_error" if self._call.startswith("AuthService") else None)

    def abandon(self) -> None:
        """Nobody waits for an answer any more."""
        self._close(None, "client left", None)

    def _close(self, status: int | None, error: str | None, verdict: str | None) -> None:
        opened, request, origin = self._opened, self._request, self._origin
        if opened is None or request is None or origin is None:
            return
        self._opened = None
        about = Called(
            request.method,
            request.service,
            request.mapping,
            self._namespace,
            self._call,
            f"{origin.scheme}://{origin.authority}{redacted(request.target)}",
            origin.host,
            origin.port,
            origin.endpoint,
            self._resent,
            status,
            error,
            verdict,
            request.options.endpoints is not None and request.options.endpoints.grpc,
        )
        self._trace.close(opened, about)
