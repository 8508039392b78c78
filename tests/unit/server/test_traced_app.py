"""The standalone proxy makes the server span, and sets up the SDK by `OTEL_*` where the process has none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from rules import document
from servers import fetch, free_port, run, serving_app
from upstream import answering, forever, serving

from canary_mw.exceptions import ConfigError
from canary_mw.observability import opentelemetry_sdk
from canary_mw.observability.opentelemetry_sdk import start_sdk
from canary_mw.protocol import GuardedProtocol
from canary_mw.server.app import Proxy
from canary_mw.server.settings import Settings

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def proxy(tmp_path: Path) -> Callable[[int], Proxy]:
    (tmp_path / "rules.yaml").write_text(document("shop", prefix="/shop/"))
    rules = (str(tmp_path / "rules.yaml"),)
    return lambda port: Proxy(Settings(rules=rules, upstream=(f"*=http://127.0.0.1:{port}",), tracing=True))


def by_kind(exporter: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is kind]


@pytest.mark.parametrize("http", ["httptools", GuardedProtocol])
def test_a_request_has_a_server_span_and_a_client_span_below_it(
    proxy: Callable[[int], Proxy], exporter: InMemorySpanExporter, http: Any
) -> None:
    seen = []

    async def main() -> None:
        async with (
            serving(forever) as upstream,
            serving_app(proxy(upstream.origin.port), http=http, lifespan="on") as port,
        ):
            seen.append(port)
            headers = [("traceparent", PARENT), ("user-agent", "curl")]
            # The second one finds an idle connection.
            assert (await fetch(port, "/shop/cart?token=secret", headers=headers)).body == b"1"
            assert (await fetch(port, "/shop/cart?token=secret", headers=headers)).body == b"1"

    run(main())
    servers, clients = by_kind(exporter, SpanKind.SERVER), by_kind(exporter, SpanKind.CLIENT)
    assert [client.parent for client in clients] == [server.context for server in servers]
    for server in servers:
        assert server.name == "GET /shop/"
        assert server.parent is not None
        assert f"{server.parent.span_id:016x}" in PARENT
        assert server.attributes == {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "http.route": "/shop/",
            "url.path": "/shop/cart",
            "url.query": "token=REDACTED",
            "url.scheme": "http",
            "network.protocol.version": "1.1",
            "client.address": "127.0.0.1",
            "server.address": "127.0.0.1",
            "server.port": seen[0],
            "user_agent.original": "curl",
            "canary_mw.generation": 1,
            "canary_mw.mapping": "shop",
            "canary_mw.reason": "weight",
            "canary_mw.variant": "stable",
        }


def test_errors_of_the_server_are_told_from_those_of_the_client(
    proxy: Callable[[int], Proxy], exporter: InMemorySpanExporter
) -> None:
    async def main() -> None:
        async with serving_app(proxy(free_port()), lifespan="on") as port:
            assert (await fetch(port, "/nothing")).status == 404
            assert (await fetch(port, "/shop/", "PROPFIND")).status == 503

    run(main())
    missing, failed = by_kind(exporter, SpanKind.SERVER)
    assert (missing.name, missing.status.status_code) == ("GET", StatusCode.UNSET)
    assert failed.attributes is not None
    assert (failed.name, failed.attributes["http.request.method"]) == ("HTTP /shop/", "_OTHER")
    assert (failed.attributes["error.type"], failed.status.status_code) == ("503", StatusCode.ERROR)


def test_an_answer_that_breaks_off_is_an_error(proxy: Callable[[int], Proxy], exporter: InMemorySpanExporter) -> None:
    async def main() -> None:
        broken = answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n")
        async with (
            serving(broken) as upstream,
            serving_app(proxy(upstream.origin.port), http=GuardedProtocol, lifespan="on") as port,
        ):
            await fetch(port, "/shop/")

    run(main())
    (span,) = by_kind(exporter, SpanKind.SERVER)
    assert span.attributes is not None
    assert span.attributes["error.type"] == "UpstreamProtocolError"


# The SDK.


@pytest.fixture
def provided(monkeypatch: pytest.MonkeyPatch) -> list[TracerProvider]:
    """The providers that were set for the process, which has none."""
    found: list[TracerProvider] = []
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    monkeypatch.setattr(trace, "set_tracer_provider", found.append)
    for name in (
        "OTEL_TRACES_EXPORTER",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ):
        monkeypatch.delenv(name, raising=False)
    return found


class Installed:
    """An exporter that is installed, in memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.exporters: list[InMemorySpanExporter] = []

    def load(self) -> Callable[[], InMemorySpanExporter]:
        return self._create

    def _create(self) -> InMemorySpanExporter:
        self.exporters.append(InMemorySpanExporter())
        return self.exporters[-1]


def install(monkeypatch: pytest.MonkeyPatch, *exporters: Installed) -> None:
    monkeypatch.setattr(opentelemetry_sdk, "entry_points", lambda group: exporters)


def test_the_exporter_is_that_of_the_variable_and_its_last_spans_are_sent_at_the_end(
    provided: list[TracerProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "mine, none")
    mine = Installed("mine")
    install(monkeypatch, Installed("otlp_proto_http"), mine)
    end = start_sdk()
    (provider,) = provided
    provider.get_tracer("test").start_span("the last one").end()
    end()
    (exporter,) = mine.exporters
    assert [span.name for span in exporter.get_finished_spans()] == ["the last one"]
    assert provider.resource.attributes["service.name"] == "canary-mw"


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SERVICE_NAME", "gate"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=gate")]
)
def test_a_name_of_the_service_is_kept(
    provided: list[TracerProvider], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv(name, value)
    start_sdk()()
    assert provided[0].resource.attributes["service.name"] == "gate"


def test_a_provider_of_the_process_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", TracerProvider)
    monkeypatch.setattr(trace, "set_tracer_provider", lambda provider: pytest.fail("it is set again"))
    start_sdk()()


@pytest.mark.usefixtures("provided")
@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "pip install opentelemetry-exporter-otlp"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "the exporter zipkin of OTEL_TRACES_EXPORTER is not installed"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "pip install opentelemetry-exporter-otlp"),
    ],
)
def test_an_exporter_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], text: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=text):
        start_sdk()


def test_the_exporter_of_a_protocol_is_the_one_for_it(
    provided: list[TracerProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    grpc, http = Installed("otlp_proto_grpc"), Installed("otlp_proto_http")
    install(monkeypatch, grpc, http)
    counts = []
    for protocol in ("grpc", "http/protobuf", ""):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        start_sdk()()
        counts.append((len(grpc.exporters), len(http.exporters)))
    assert counts == [(1, 0), (1, 1), (1, 2)]
    assert len(provided) == 3


def test_a_collector_that_does_not_answer_holds_up_nothing(
    provided: list[TracerProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setattr(opentelemetry_sdk, "_FLUSH_TIMEOUT", 0.0)
    end = start_sdk()
    monkeypatch.setattr(provided[0], "shutdown", trace.get_tracer_provider)
    end()
