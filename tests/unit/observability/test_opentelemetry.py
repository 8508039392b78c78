"""What spans do not hold, and what happens where OpenTelemetry is not installed."""

import subprocess
import sys
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from upstream import req

from canary_mw.exceptions import ConfigError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.observability.opentelemetry import OpenTelemetry, method_name, redacted, tracer_of
from canary_mw.observability.opentelemetry_sdk import start_sdk
from canary_mw.rules.upstream import Origin


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (b"/a", "/a"),
        (b"/a?", "/a?"),
        (b"/a?b", "/a?b"),
        (b"/a?b=c&d=e=f&g", "/a?b=REDACTED&d=REDACTED&g"),
        (b"/a?b=?x=1", "/a?b=REDACTED"),
        (b"/\xff?a=\xff", "/\xff?a=REDACTED"),
    ],
)
def test_a_url_is_written_without_the_values_of_its_query(target: bytes, text: str) -> None:
    assert redacted(target) == text


def test_only_known_methods_name_spans() -> None:
    assert (method_name("GET"), method_name("get"), method_name("BREW")) == ("GET", "HTTP", "HTTP")


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for ask in (OpenTelemetry, start_sdk, lambda: tracer_of([], asked=True)):
        with pytest.raises(ConfigError, match=r"pip install 'canary-mw\[otel\]'"):
            ask()
    assert tracer_of([], asked=False) is None


@pytest.mark.slow
def test_nothing_of_opentelemetry_is_imported_where_nobody_asks_for_it() -> None:
    script = (
        "import sys, canary_mw\n"
        "from canary_mw.server.app import Proxy\n"
        "from canary_mw.server.settings import Settings\n"
        "Proxy(Settings())\n"
        "canary_mw.CanaryMiddleware(print, rules='.'), canary_mw.CanaryWSGIMiddleware(print, rules='.')\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def below_a_span_that_is_not_sampled(sampler: Sampler) -> tuple[UpstreamRequest, list[ReadableSpan]]:
    """The request as it is during an attempt, and the spans that were recorded."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    request = req(target=b"/a?b=c")
    request.headers.append((b"traceparent", b"of the client"))
    around = NonRecordingSpan(SpanContext(0x123, 0x456, is_remote=False, trace_flags=TraceFlags(0)))
    with (
        use_span(around),
        OpenTelemetry(provider).attempt(Origin("http", "shop", 80), request, own_client=True) as attempt,
    ):
        during = replace(request)
        attempt.answered(200)
    assert request.headers[-1] == (b"traceparent", b"of the client")
    provider.shutdown()
    return during, list(exporter.get_finished_spans())


def test_an_attempt_below_a_span_that_is_not_sampled_passes_that_on() -> None:
    during, spans = below_a_span_that_is_not_sampled(ParentBased(ALWAYS_ON))
    (sent,) = [value for name, value in during.headers if name == b"traceparent"]
    assert sent.startswith(b"00-%032x-" % 0x123)
    assert sent.endswith(b"-00")
    assert spans == []


def test_a_sampler_may_want_it_all_the_same() -> None:
    _, (span,) = below_a_span_that_is_not_sampled(ALWAYS_ON)
    assert span.attributes is not None
    assert span.attributes["url.full"] == "http://shop:80/a?b=REDACTED"
    assert span.attributes["http.response.status_code"] == 200
