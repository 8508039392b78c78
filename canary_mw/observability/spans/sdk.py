"""Spans by the SDK of OpenTelemetry that the app has set up: the document samples, and the SDK does all else."""

import sys
from collections.abc import Mapping as Dict
from typing import TYPE_CHECKING, Any

from canary_mw.forwarding.tracing.context import TraceContext
from canary_mw.observability.spans.attributes import attributes_of, error_of, flag_of, name_of
from canary_mw.observability.spans.request_trace import Opened, opened
from canary_mw.observability.spans.span import Called, Served

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext, TracerProvider


def provider_of_app() -> "TracerProvider | None":
    """The provider that the app has set; None where it has set none. Nothing of OpenTelemetry is imported for it."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    provider: TracerProvider = api.get_tracer_provider()
    return None if isinstance(provider, api.ProxyTracerProvider | api.NoOpTracerProvider) else provider


class SdkRecorder:
    """Makes spans by the SDK.

    Args:
        traced: attempts have spans already: the middleware itself was given a tracer.
    """

    def __init__(self, provider: "TracerProvider", *, traced: bool) -> None:
        from opentelemetry import trace

        self._trace, self._traced = trace, traced
        self._tracer = provider.get_tracer("canary_mw")

    def outer(self) -> Opened | None:
        """The span around this request, which somebody else has made; None where there is none."""
        span = self._trace.get_current_span()
        context = span.get_span_context()
        return opened(_context(context, None), span) if context.is_valid else None

    def open_server(self, received: TraceContext | None, new: TraceContext) -> Opened:
        """Begin a server span.

        Args:
            received: what the request has brought.
            new: the context that it has without an SDK.
        """
        trace = self._trace
        if not new.sampled:
            made = self._span_context(new)
            return self._opened(trace.NonRecordingSpan(made), new.parent_id)
        above: Any = trace.INVALID_SPAN
        if received is not None and received.trace_id:
            above = trace.NonRecordingSpan(self._span_context(received._replace(sampled=True), is_remote=True))
        span = self._tracer.start_span("HTTP", trace.set_span_in_context(above), trace.SpanKind.SERVER)
        return self._opened(span, new.parent_id)

    def open_child(self, parent: Opened) -> Opened | None:
        """See `Recorder.open_child`."""
        if self._traced:
            return None
        context = self._trace.set_span_in_context(parent.raw)
        span = self._tracer.start_span("HTTP", context, self._trace.SpanKind.CLIENT)
        return self._opened(span, parent.context.span_id)

    def close(self, opened: Opened, about: Served | Called, tags: Dict[str, str]) -> None:
        """See `Recorder.close`."""
        span = opened.raw
        if span.is_recording():
            span.update_name(name_of(about))
            span.set_attributes({**tags, **attributes_of(about)})
            if error_of(about) is not None:
                span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
            flag = flag_of(about.decision) if isinstance(about, Served) else None
            if flag is not None:
                span.add_event("feature_flag.evaluation", flag)
        span.end()

    def _opened(self, span: Any, parent_id: str | None) -> Opened:
        return opened(_context(span.get_span_context(), parent_id), span)

    def _span_context(self, context: TraceContext, *, is_remote: bool = False) -> "SpanContext":
        trace = self._trace
        state = trace.TraceState.from_header([context.state.decode("latin-1")] if context.state else [])
        flags = trace.TraceFlags(1 if context.sampled else 0)
        made: SpanContext = trace.SpanContext(
            int(context.trace_id, 16), int(context.span_id, 16), is_remote, flags, state
        )
        return made


def _context(context: "SpanContext", parent_id: str | None) -> TraceContext:
    return TraceContext(
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        parent_id,
        sampled=context.trace_flags.sampled,
        state=context.trace_state.to_header().encode("latin-1", "replace"),
    )
