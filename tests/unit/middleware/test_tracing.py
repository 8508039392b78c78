"""Spans of both middlewares, with the SDK of OpenTelemetry: one client span an attempt, and no second server span."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from middlewares import Middleware, current, middleware, network_transport, serving_middleware
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WSGIOpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from rules import document
from servers import fetch, run, serving_app
from upstream import Peer, Script, Seen, serving
from wsgiservers import serving_wsgi

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.observability.opentelemetry import OpenTelemetry

pytestmark = pytest.mark.usefixtures("interface")

RULES = document("shop", prefix="/shop/", service="shop") + document(
    "gray", prefix="/shop/", service="gray", weight=100
)
RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop-2026-11
stable: shop
gray: {gray: 100}
sticky: [{header: x-user}]
choice: {header: x-gray}
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Spans:
    """What was traced, and by which provider."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = OpenTelemetry(self.provider)

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.kind is kind]

    @property
    def client(self) -> ReadableSpan:
        (span,) = self.of(SpanKind.CLIENT)
        return span

    @property
    def server(self) -> ReadableSpan:
        (span,) = self.of(SpanKind.SERVER)
        return span


@pytest.fixture
def spans() -> Iterator[Spans]:
    found = Spans()
    yield found
    found.provider.shutdown()


@pytest.fixture(autouse=True)
def stable_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")


@contextlib.asynccontextmanager
async def instrumented(served: Middleware, spans: Spans) -> AsyncIterator[int]:
    """A middleware with the instrumentation outside of it."""
    if current() == "asgi":
        app: Any = OpenTelemetryMiddleware(served, tracer_provider=spans.provider, exclude_spans=["receive", "send"])
        async with serving_app(app) as port, closing(served):
            yield port
        return
    wrapped: Any = served
    traced = WSGIOpenTelemetryMiddleware(wrapped, tracer_provider=spans.provider)
    async with serving_wsgi(traced) as port, closing(served):
        yield port


@contextlib.asynccontextmanager
async def closing(served: Middleware) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if isinstance(served, CanaryMiddleware):
            await served.aclose()
        else:
            await asyncio.to_thread(served.close)


def served_by(spans: Spans, port: int, rules: str = RULES, **options: Any) -> Middleware:
    return middleware(
        rules=StaticSource(rules), upstreams={"*": f"http://127.0.0.1:{port}"}, observers=[spans.tracer], **options
    )


@contextlib.asynccontextmanager
async def world(spans: Spans, script: Script, rules: str = RULES) -> AsyncIterator[int]:
    """An upstream, and an instrumented middleware before it."""
    async with serving(script) as upstream, instrumented(served_by(spans, upstream.origin.port, rules), spans) as port:
        yield port


def seen_by(seen: list[Seen]) -> Any:
    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.answer()

    return script


def test_an_attempt_is_a_client_span_below_the_server_span_of_the_instrumentation(spans: Spans) -> None:
    seen: list[Seen] = []

    async def main() -> None:
        async with serving(seen_by(seen)) as upstream:
            port = upstream.origin.port
            async with instrumented(served_by(spans, port, RULES + RELEASE), spans) as there:
                headers = [("traceparent", PARENT), ("x-user", "7")]
                assert (await fetch(there, "/shop/cart?token=secret&x", headers=headers)).status == 200
            client, server = spans.client, spans.server
            assert client.name == "GET gray"
            assert client.attributes == {
                "http.request.method": "GET",
                "url.full": f"http://127.0.0.1:{port}/cart?token=REDACTED&x",
                "server.address": "127.0.0.1",
                "server.port": port,
                "network.protocol.version": "1.1",
                "http.response.status_code": 200,
                "canary_mw.mapping": "gray",
            }
            assert client.parent == server.context
            assert client.status.status_code is StatusCode.UNSET
            assert server.context is not None
            assert server.context.trace_id == int(TRACE, 16)
            assert client.context is not None
            assert b"traceparent: 00-%s-%016x-01" % (TRACE.encode(), client.context.span_id) in seen[0].headers
            assert sum(line.startswith(b"traceparent") for line in seen[0].headers) == 1

    run(main())


def test_the_server_span_gets_what_was_decided(spans: Spans) -> None:
    async def main() -> None:
        async with world(spans, seen_by([]), RULES + RELEASE) as there:
            await fetch(there, "/shop/", headers=[("x-user", "7")])

    run(main())
    server = spans.server
    assert server.name == "GET /shop/"
    assert server.attributes is not None
    ours = {name: value for name, value in server.attributes.items() if name.startswith(("canary", "http.route"))}
    assert ours == {
        "canary_mw.generation": 1,
        "canary_mw.mapping": "gray",
        "canary_mw.reason": "sticky",
        "canary_mw.release": "shop-2026-11",
        "canary_mw.variant": "gray",
        "http.route": "/shop/",
    }
    (event,) = server.events
    assert event.name == "feature_flag.evaluation"
    assert event.attributes == {
        "feature_flag.key": "shop-2026-11",
        "feature_flag.provider.name": "canary-mw",
        "feature_flag.result.variant": "gray",
        "feature_flag.result.reason": "split",
    }


def test_the_route_of_a_request_that_the_app_answers_is_left_to_the_app(spans: Spans) -> None:
    async def main() -> None:
        async with instrumented(served_by(spans, 1, document("shop", prefix="/shop/"), local="shop"), spans) as there:
            assert (await fetch(there, "/shop/")).body == b"from the app"
            assert (await fetch(there, "/other")).body == b"from the app"

    run(main())
    ended = sorted(spans.of(SpanKind.SERVER), key=lambda span: span.start_time or 0)
    local, other = (span.attributes or {} for span in ended)
    assert (local["canary_mw.mapping"], local["canary_mw.reason"]) == ("shop", "weight")
    assert "http.route" not in local
    assert not [name for name in other if name.startswith("canary_mw")]
    assert spans.of(SpanKind.CLIENT) == []


def test_each_attempt_has_its_span(spans: Spans) -> None:
    async def failing_once(peer: Peer) -> None:
        for status in (b"503 Service Unavailable", b"200 OK"):
            await peer.request()
            await peer.answer(status=status)
        await peer.gone()

    retried = document("shop", prefix="/shop/", retry_policy="{retry_on: 5xx, num_retries: 2}")

    async def main() -> None:
        async with world(spans, failing_once, retried) as there:
            assert (await fetch(there, "/shop/")).status == 200

    run(main())
    first, second = spans.of(SpanKind.CLIENT)
    assert first.attributes is not None
    assert second.attributes is not None
    assert (first.attributes["error.type"], first.status.status_code) == ("503", StatusCode.ERROR)
    assert "http.request.resend_count" not in first.attributes
    assert (second.attributes["http.request.resend_count"], second.status.status_code) == (1, StatusCode.UNSET)


def test_an_attempt_without_an_answer_says_what_failed(spans: Spans) -> None:
    async def main() -> None:
        async with instrumented(served_by(spans, 1, document("shop", prefix="/shop/")), spans) as there:
            assert (await fetch(there, "/shop/")).status == 503

    run(main())
    assert spans.client.attributes is not None
    assert spans.client.attributes["error.type"] == "UpstreamConnectError"
    assert spans.client.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("headers", [[("traceparent", PARENT)], []])
def test_without_a_server_span_an_attempt_continues_the_trace_of_the_client(
    spans: Spans, headers: list[tuple[str, str]]
) -> None:
    seen: list[Seen] = []

    async def main() -> None:
        async with (
            serving(seen_by(seen)) as upstream,
            serving_middleware(served_by(spans, upstream.origin.port)) as there,
        ):
            await fetch(there, "/shop/", headers=headers)

    run(main())
    assert spans.of(SpanKind.SERVER) == []
    assert spans.client.context is not None
    (sent,) = [line for line in seen[0].headers if line.startswith(b"traceparent: ")]
    assert int(sent.split(b"-")[1], 16) == spans.client.context.trace_id
    assert (spans.client.context.trace_id == int(TRACE, 16)) is bool(headers)


def test_a_trace_that_is_not_sampled_is_passed_on() -> None:
    seen: list[Seen] = []
    spans = Spans(sampler=ALWAYS_OFF)

    async def main() -> None:
        async with world(spans, seen_by(seen)) as there:
            await fetch(there, "/shop/", headers=[("traceparent", PARENT)])

    run(main())
    assert spans.exporter.get_finished_spans() == ()
    (sent,) = [line for line in seen[0].headers if line.startswith(b"traceparent: ")]
    assert (sent.split(b"-")[1], sent[-2:]) == (TRACE.encode(), b"00")


def test_an_httpx_transport_that_is_instrumented_makes_no_second_span(spans: Spans) -> None:
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            transport = network_transport()
            if current() == "asgi":
                stack.push_async_callback(transport.aclose)
            else:
                stack.callback(transport.close)
            upstream = await stack.enter_async_context(serving(seen_by([])))
            served = served_by(spans, upstream.origin.port, transports={"gray": transport})
            there = await stack.enter_async_context(instrumented(served, spans))
            assert (await fetch(there, "/shop/")).status == 200

    try:
        run(main())
    finally:
        instrumentor.uninstrument()
    assert spans.client.name == "GET gray"


def test_a_method_that_a_client_made_up_names_no_span(spans: Spans) -> None:
    async def main() -> None:
        async with world(spans, seen_by([])) as there:
            await fetch(there, "/shop/", "PROPFIND")

    run(main())
    assert spans.client.name == "HTTP gray"
    assert spans.client.attributes is not None
    assert spans.client.attributes["http.request.method"] == "_OTHER"


def test_a_span_of_the_app_is_not_annotated(spans: Spans) -> None:
    # A span inside of the server span is of whoever made it.
    tracer = spans.provider.get_tracer("app")
    served = served_by(spans, 1, document("shop", prefix="/shop/"), local="shop")
    if current() == "asgi":

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await served(scope, receive, send)  # type: ignore[misc,call-arg]
                return
            with tracer.start_as_current_span("inner"):
                await served(scope, receive, send)  # type: ignore[misc,call-arg]

        async def main() -> None:
            async with serving_app(app) as port, closing(served):
                await fetch(port, "/shop/")

    else:

        def wsgi_app(environ: Any, start_response: Any) -> Any:
            with tracer.start_as_current_span("inner"):
                return served(environ, start_response)  # type: ignore[call-arg]

        async def main() -> None:
            async with serving_wsgi(wsgi_app) as port, closing(served):
                await fetch(port, "/shop/")

    run(main())
    (inner,) = spans.exporter.get_finished_spans()
    assert dict(inner.attributes or {}) == {}


def test_the_variable_asks_for_the_tracer_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert middleware(rules=StaticSource("")).tracer is None
    monkeypatch.setenv("CANARY_MW_TRACING", "1")
    assert isinstance(middleware(rules=StaticSource("")).tracer, OpenTelemetry)
    tracer = OpenTelemetry()
    assert middleware(rules=StaticSource(""), observers=[tracer]).tracer is tracer
