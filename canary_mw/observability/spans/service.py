"""What traces requests for a TracingService: contexts, samples, and spans that wait for their export."""

import logging
import os
from collections.abc import Callable
from collections.abc import Mapping as Dict
from functools import partial
from random import random

from canary_mw.forwarding.tracing.context import TraceContext, received, with_context
from canary_mw.forwarding.tracing.sampling import is_sampled
from canary_mw.host import HostLogger
from canary_mw.http.lanes import lines_of
from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Finished
from canary_mw.observability.exports.queues import Queues
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.logs.service import logged
from canary_mw.observability.observers import Observer
from canary_mw.observability.spans.destination import Sender, SpanDestination
from canary_mw.observability.spans.request_trace import QueueRecorder, Recorder, ServedTrace, opened
from canary_mw.observability.spans.span import Span
from canary_mw.routing.decided import Decision
from canary_mw.rules.filters.traces import CustomTag, TracePolicy

logger = HostLogger(logging.getLogger("canary_mw.tracing_service"))

_PSEUDO: Dict[str, Callable[[RequestHead], bytes]] = {
    ":authority": lambda head: head.host or b"",
    ":method": lambda head: head.method.encode("latin-1"),
    ":path": lambda head: head.mount.sent + head.path + head.query,
    ":scheme": lambda head: head.scheme.encode("latin-1"),
}


def span_queues(sender: Callable[[TracePolicy], Sender], tally: Tally) -> Queues[TracePolicy, Span]:
    """The collector of a middleware.

    Args:
        sender: makes what sends batches.
        tally: counts spans that are sent, dropped, or refused.
    """

    def make(policy: TracePolicy) -> SpanDestination:
        return SpanDestination(policy, sender(policy), tally)

    return Queues(make, "canary-mw-tracing-service")


class RequestTraces(Observer):
    """Traces the requests of a middleware.

    Its `finished` does nothing: a span needs more than the record.

    Args:
        wraps: see `RequestLog`.
        traced: the middleware has a tracer, which makes the spans of attempts.
    """

    def __init__(self, queues: Queues[TracePolicy, Span], *, wraps: bool, traced: bool) -> None:
        self.queues = queues
        self._wraps, self._traced = wraps, traced
        self._recorder = QueueRecorder(partial(_new_id, 8), queues.add)
        self._tags: list[tuple[CustomTag, str | None]] = []
        self._failed = False

    def follow(self, policy: TracePolicy | None) -> None:
        """Trace by this document from now on; None for no more."""
        self.queues.follow(() if policy is None else (policy,))
        tags = () if policy is None else policy.tags
        self._tags = [
            (each, os.environ.get(each.name, each.value) if each.source == "environment" else each.value)
            for each in tags
        ]

    def begin(self, policy: TracePolicy, head: RequestHead, generation: int) -> RequestHead:
        """Begin the trace of a request; returns the request as it goes on, with the context of its server span.

        Args:
            generation: number of the rules in force.
        """
        try:
            return self._begin(policy, head, generation)
        except Exception:
            if self._is_first_failure():
                logger.exception("a request is not traced; later failures are not logged")
            return head

    def _begin(self, policy: TracePolicy, head: RequestHead, generation: int) -> RequestHead:
        brought = received(policy.modes, head.headers_by_name)
        if brought is not None and brought.state:
            # It may come in several lines (W3C Trace Context, section 3.3.1.1).
            brought = brought._replace(state=lines_of(head.headers, b"tracestate"))
        decided = None if brought is None else brought.sampled
        asked = head.has(b"x-client-trace-id")
        sampled = is_sampled(policy.sampling, decided, lambda: random() * 100.0, asked=asked)
        context = _server_context(policy, brought, sampled=sampled)
        recorder: Recorder = self._recorder
        server, outer = opened(context), None
        if policy.driver == "opentelemetry":
            from canary_mw.observability.spans.sdk import SdkRecorder, provider_of_app

            if (provider := provider_of_app()) is not None:
                recorder = sdk = SdkRecorder(provider, traced=self._traced)
                outer = sdk.outer()
                server = outer or sdk.open_server(brought, context)
        tags = self._tags_of(head) if server.context.sampled else {}
        headers = head.headers if outer is not None else with_context(policy.modes, head.headers, server.context)
        changed = head.replace(headers=headers)
        changed.trace = ServedTrace(recorder, server, policy.modes, tags, generation, ends_server=outer is None)
        return changed

    def add(self, record: Finished, head: RequestHead | None, decision: Decision | None) -> None:
        """A request has ended."""
        trace = None if head is None else head.trace
        if not isinstance(trace, ServedTrace):
            return
        try:
            trace.finish(logged(record, head, decision, wraps=self._wraps), decision)
        except Exception:
            # No thread can be started, for example.
            if self._is_first_failure():
                logger.exception("a request is not traced; later failures are not logged")

    def _tags_of(self, head: RequestHead) -> dict[str, str]:
        found: dict[str, str] = {}
        for tag, value in self._tags:
            if tag.source == "request_header":
                value = _header(head, tag.name) or value
            if value:
                found[tag.tag] = value
        return found

    def _is_first_failure(self) -> bool:
        failed, self._failed = self._failed, True
        return not failed


def _server_context(policy: TracePolicy, brought: TraceContext | None, *, sampled: bool) -> TraceContext:
    """The context of the server span: in the trace that the request has brought, or in a new one."""
    before = brought or TraceContext()
    trace_id = before.trace_id or _new_id(16 if policy.long_ids else 8)
    return before._replace(trace_id=trace_id, span_id=_new_id(8), parent_id=before.span_id or None, sampled=sampled)


def _header(head: RequestHead, name: str) -> str | None:
    pseudo = _PSEUDO.get(name)
    value = head.header(name.encode("latin-1")) if pseudo is None else pseudo(head)
    return None if value is None else value.decode("utf-8", "replace")


def _new_id(size: int) -> str:
    """Random bytes in hexadecimal: of the system, so that forked processes draw others."""
    return os.urandom(size).hex()
