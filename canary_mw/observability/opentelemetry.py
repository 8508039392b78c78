"""Spans by the OpenTelemetry SDK of the process, with the names of the stable conventions for HTTP.

Nothing of OpenTelemetry is imported before a tracer is asked for. The server span is that of whoever serves the
request; it gets what was decided. Each attempt at an upstream is a client span, and the upstream gets its context.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from canary_mw.exceptions import ConfigError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.observability.observers import Observer
from canary_mw.routing.decided import Decision
from canary_mw.routing.governed import APP
from canary_mw.rules.release import STABLE
from canary_mw.rules.upstream import Origin

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

Headers = list[tuple[bytes, bytes]]

# Other methods are not written as they are: a client could make up any number of them.
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))
_QUERY_VALUE = re.compile(r"=[^&]*")
# The reasons of a release in the words of OpenFeature; all others are choices: "targeting_match".
_FLAG_REASONS = {"sticky": "split", "roll": "split", "new": "split", "missing": "default", "disabled": "disabled"}


class OpenTelemetry(Observer):
    """Traces requests with OpenTelemetry; give it to a middleware as an observer.

    The current span, where it is a server span that is recorded, gets what was decided. Each attempt at an upstream is
    a client span. No server span is made: the instrumentation of the server or framework makes it, outside.

    Args:
        tracer_provider: by default that of the process.

    Raises:
        ConfigError: the package opentelemetry-api is not installed.
    """

    def __init__(self, tracer_provider: "TracerProvider | None" = None) -> None:
        try:
            from opentelemetry import propagate, trace
        except ModuleNotFoundError as exc:
            raise ConfigError("tracing needs OpenTelemetry", hint="pip install 'canary-mw[otel]'") from exc
        self._trace = trace
        self._propagate = propagate
        self._tracer = trace.get_tracer("canary_mw", tracer_provider=tracer_provider)
        self._error = trace.Status(trace.StatusCode.ERROR)

    def annotate(self, decision: Decision | None, head: RequestHead, generation: int, *, forwards: bool) -> None:
        """Write into the current server span what was decided.

        Args:
            generation: number of the rules in force.
            forwards: the request is sent to an upstream. The route of any other is that of the app, which knows better.
        """
        span: Any = self._trace.get_current_span()
        if decision is None or not span.is_recording() or span.kind is not self._trace.SpanKind.SERVER:
            return
        span.set_attributes(_decided(decision, generation))
        if decision.release is not None:
            span.add_event("feature_flag.evaluation", _flag(decision))
        if forwards and decision.mapping is not APP:
            span.set_attribute("http.route", decision.mapping.prefix)
            if span.name == method_name(head.method):
                span.update_name(f"{span.name} {decision.mapping.prefix}")

    @contextmanager
    def attempt(self, origin: Origin, request: UpstreamRequest, *, own_client: bool) -> "Iterator[Attempt]":
        """One attempt at an upstream; while it lasts, the headers of the request hold its context.

        Args:
            own_client: our client sends it; any other may be instrumented, which would make a second client span.
        """
        parent, around = None, self._trace.get_current_span().get_span_context()
        if not around.is_valid:
            # Nothing outside has read what the client sent: the attempt continues its trace.
            parent = self._propagate.extract(request.headers, getter=_GETTER)
        # Below a span that is not sampled most spans are not, either, and nobody reads their attributes.
        early = not around.is_valid or around.trace_flags.sampled
        headers = request.headers
        name = f"{method_name(request.method)} {request.service}"
        kind = self._trace.SpanKind.CLIENT
        attributes = _sent(origin, request) if early else None
        with (
            self._tracer.start_as_current_span(
                name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
            ) as span,
            nullcontext() if own_client else _not_instrumented(),
        ):
            if not early and span.is_recording():
                span.set_attributes(_sent(origin, request))
            request.headers = self._injected(headers)
            try:
                yield Attempt(span, self._error)
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__name__)
                span.set_status(self._error)
                raise
            finally:
                request.headers = headers

    def _injected(self, headers: Headers) -> Headers:
        """The headers with the context of the current span in place of what the client sent."""
        injected = list(headers)
        self._propagate.inject(injected, setter=_SETTER)
        return injected

    @contextmanager
    def serving(self, method: str, headers: Headers, attributes: dict[str, Any]) -> "Iterator[Served]":
        """A server span, for a server that nothing else traces.

        Args:
            attributes: of the request, by their names in the conventions.
        """
        parent: Context = self._propagate.extract(headers, getter=_GETTER)
        name = method_name(method)
        known = {"http.request.method": method if name == method else "_OTHER", **attributes}
        with self._tracer.start_as_current_span(
            name, parent, self._trace.SpanKind.SERVER, known, record_exception=False, set_status_on_exception=False
        ) as span:
            served = Served(span, self._error)
            try:
                yield served
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__name__)
                span.set_status(self._error)
                raise


class Attempt:
    """A client span that has begun."""

    __slots__ = ("_error", "_span")

    def __init__(self, span: "Span", error: Any) -> None:
        self._span = span
        self._error = error

    def answered(self, status: int) -> None:
        """The head of a response has arrived."""
        _answered(self._span, status, self._error if status >= 400 else None)


class Served:
    """A server span that has begun."""

    __slots__ = ("_error", "_span")

    def __init__(self, span: "Span", error: Any) -> None:
        self._span = span
        self._error = error

    def answered(self, status: int) -> None:
        """The head of the response was sent. What the client did wrong is no error of the server."""
        _answered(self._span, status, self._error if status >= 500 else None)


def _answered(span: "Span", status: int, error: Any) -> None:
    if span.is_recording():
        span.set_attribute("http.response.status_code", status)
        if error is not None:
            span.set_attribute("error.type", str(status))
            span.set_status(error)


def method_name(method: str) -> str:
    """The method in the name of a span; "HTTP" for one that is not known."""
    return method if method in _METHODS else "HTTP"


def redacted(target: bytes) -> str:
    """A request target without the values of its query."""
    path, mark, query = target.decode("latin-1").partition("?")
    return path + mark + _QUERY_VALUE.sub("=REDACTED", query)


def _decided(decision: Decision, generation: int) -> dict[str, Any]:
    found: dict[str, Any] = {"canary_mw.variant": decision.variant, "canary_mw.generation": generation}
    if decision.mapping is not APP:
        found["canary_mw.mapping"] = decision.mapping.name
    release = decision.release
    found["canary_mw.reason"] = "weight" if release is None else release.reason
    if release is not None:
        found["canary_mw.release"] = release.name
        found["canary_mw.variant"] = release.variant or STABLE
    return found


def _flag(decision: Decision) -> dict[str, str]:
    release = decision.release
    assert release is not None, "the caller has looked"
    return {
        "feature_flag.key": release.name,
        "feature_flag.provider.name": "canary-mw",
        "feature_flag.result.variant": release.variant or STABLE,
        "feature_flag.result.reason": _FLAG_REASONS.get(release.reason, "targeting_match"),
    }


def _sent(origin: Origin, request: UpstreamRequest) -> dict[str, Any]:
    name = method_name(request.method)
    found: dict[str, Any] = {
        "http.request.method": name if name == request.method else "_OTHER",
        "url.full": f"{origin.scheme}://{origin.authority}{redacted(request.target)}",
        "server.address": origin.host,
        "server.port": origin.port,
        "network.protocol.version": "1.1",
        "canary_mw.mapping": request.mapping,
    }
    if origin.address is not None:
        found["network.peer.address"] = origin.address
    if request.attempts > 1:
        found["http.request.resend_count"] = request.attempts - 1
    return found


def _not_instrumented() -> AbstractContextManager[object]:
    """Tell the instrumentation of an HTTP client to leave the request alone."""
    try:
        from opentelemetry.instrumentation.utils import suppress_http_instrumentation
    except ModuleNotFoundError:
        return nullcontext()
    return suppress_http_instrumentation()


class _Setter:
    """Puts a header in place of those of the same name."""

    def set(self, carrier: Headers, key: str, value: str) -> None:
        name = key.lower().encode("latin-1")
        carrier[:] = [pair for pair in carrier if pair[0] != name]
        carrier.append((name, value.encode("latin-1", "replace")))


class _Getter:
    """Reads headers."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        name = key.lower().encode("latin-1")
        return [value.decode("latin-1") for each, value in carrier if each.lower() == name] or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_SETTER: Any = _Setter()
_GETTER: Any = _Getter()


def tracer_of(observers: Iterable[Observer], *, asked: bool) -> OpenTelemetry | None:
    """The tracer among observers; a new one where the settings ask for it; else None."""
    found = next((each for each in observers if isinstance(each, OpenTelemetry)), None)
    return OpenTelemetry() if found is None and asked else found
