"""A TracingService of OpenTelemetry in an app that has an SDK: spans go to that, and the document samples."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from collector import OTLP, PARENT, TRACE, Shop, url
from middlewares import Middleware, current, middleware, serving_middleware
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WSGIOpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from servers import fetch, mapping, run, serving_app
from upstream import serving
from wsgiservers import serving_wsgi

from canary_mw.control.sources.static import StaticSource
from canary_mw.observability.opentelemetry import OpenTelemetry
from canary_mw.observability.spans import sdk

RULES = mapping("shop", "/shop/", "shop") + OTLP
SAMPLED = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "v=1")]

pytestmark = pytest.mark.usefixtures("interface")


class Sdk:
    """The SDK of an app."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        return [each for each in self.exporter.get_finished_spans() if each.kind is kind]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sdk]:
    """The app has an SDK; the provider of the process can be set only once."""
    found = Sdk()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: found.provider)
    yield found
    found.provider.shutdown()


def serve(rules: str, *asked: list[tuple[str, str]], wrap: Any = serving_middleware, **options: Any) -> Shop:
    """Ask a shop behind a middleware, once with each of some headers."""
    shop = Shop()

    async def main() -> None:
        async with serving(shop) as behind:
            served = middleware(rules=StaticSource(rules), upstreams={"shop": url(behind)}, **options)
            async with wrap(served) as port:
                for headers in asked:
                    await fetch(port, "/shop/x", headers=headers)
                traces = served.request_traces
                assert traces is not None
                assert traces.queues.waiting() == []

    run(main())
    return shop


def test_spans_go_to_the_sdk_and_the_trace_goes_on(spans: Sdk) -> None:
    shop = serve(RULES, SAMPLED)
    (server,), (client,) = spans.of(SpanKind.SERVER), spans.of(SpanKind.CLIENT)
    assert server.context is not None
    assert client.context is not None
    assert server.parent is not None
    assert client.parent is not None
    assert (f"{server.context.trace_id:032x}", f"{server.parent.span_id:016x}") == (TRACE, PARENT)
    assert client.parent.span_id == server.context.span_id
    assert (server.name, client.name) == ("GET /shop/", "GET shop")
    assert server.attributes is not None
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["canary_mw.mapping"] == "shop"
    assert server.status.status_code is StatusCode.UNSET
    (seen,) = shop.seen
    assert seen["traceparent"] == f"00-{TRACE}-{client.context.span_id:016x}-01"
    assert seen["tracestate"] == "v=1"


def test_what_the_document_does_not_sample_is_not_recorded(spans: Sdk) -> None:
    shop = serve(RULES + "sampling: {random: 0}\n", [], [("traceparent", f"00-{TRACE}-{PARENT}-00")])
    assert spans.exporter.get_finished_spans() == ()
    assert [each["traceparent"][-3:] for each in shop.seen] == ["-00", "-00"]
    assert shop.seen[1]["traceparent"].split("-")[1] == TRACE


@contextlib.asynccontextmanager
async def instrumented(spans: Sdk, served: Middleware) -> AsyncIterator[int]:
    """A middleware within the instrumentation of its server."""
    if current() == "asgi":
        app: Any = OpenTelemetryMiddleware(served, tracer_provider=spans.provider, exclude_spans=["receive", "send"])
        async with serving_app(app) as port:
            yield port
        await served.aclose()  # type: ignore[union-attr]
        return
    wrapped: Any = served
    async with serving_wsgi(WSGIOpenTelemetryMiddleware(wrapped, tracer_provider=spans.provider)) as port:
        yield port
    await asyncio.to_thread(served.close)  # type: ignore[union-attr]


def test_a_server_span_that_somebody_else_has_made_stays_the_only_one(spans: Sdk) -> None:
    def wrap(served: Middleware) -> Any:
        return instrumented(spans, served)

    shop = serve(RULES, SAMPLED, wrap=wrap)
    (server,), (client,) = spans.of(SpanKind.SERVER), spans.of(SpanKind.CLIENT)
    assert server.context is not None
    assert client.context is not None
    assert client.parent is not None
    assert client.parent.span_id == server.context.span_id
    assert shop.seen[0]["traceparent"] == f"00-{TRACE}-{client.context.span_id:016x}-01"


def test_a_middleware_with_a_tracer_makes_each_span_once(spans: Sdk) -> None:
    serve(RULES, SAMPLED, observers=[OpenTelemetry(spans.provider)])
    (server,), (client,) = spans.of(SpanKind.SERVER), spans.of(SpanKind.CLIENT)
    assert server.context is not None
    assert client.parent is not None
    assert client.parent.span_id == server.context.span_id


def test_without_an_sdk_there_is_none() -> None:
    assert sdk.provider_of_app() is None
