"""The OpenTelemetry SDK of the standalone proxy, set up by `OTEL_*`. In an app that is the business of the app."""

import os
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any

from canary_mw.exceptions import ConfigError
from canary_mw.forking import start_thread
from canary_mw.locks import Latch, wait_for

_SERVICE_NAME = "canary-mw"
# Seconds that the last spans have at the end of the process.
_FLUSH_TIMEOUT = 2.0
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def start_sdk() -> Callable[[], None]:
    """Set up the SDK, where the process has none; returns what sends the last spans, for 2 seconds at most.

    Raises:
        ConfigError: the SDK or the exporter that `OTEL_TRACES_EXPORTER` names is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as exc:
        raise ConfigError("tracing needs the SDK of OpenTelemetry", hint="pip install 'canary-mw[otel]'") from exc
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return lambda: None
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": _SERVICE_NAME}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in _exporters():
        provider.add_span_processor(BatchSpanProcessor(exporter()))
    trace.set_tracer_provider(provider)
    return lambda: _end(provider)


def _exporters() -> Iterable[Callable[[], Any]]:
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    installed = {each.name: each for each in entry_points(group="opentelemetry_traces_exporter")}
    for name in names:
        if name in ("", "none"):
            continue
        wanted = _otlp_names() if name == "otlp" else (name,)
        found = next((installed[each] for each in wanted if each in installed), None)
        if found is None:
            hint = "pip install opentelemetry-exporter-otlp" if name == "otlp" else "install the package that has it"
            raise ConfigError(f"the exporter {name} of OTEL_TRACES_EXPORTER is not installed", hint=hint)
        yield found.load()


def _otlp_names() -> Iterable[str]:
    """The exporters that will do: that of the protocol that is asked for, or else any."""
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
    return (_PROTOCOLS.get(protocol, protocol),) if protocol else _PROTOCOLS.values()


def _end(provider: Any) -> None:
    """Send what is left. A collector that does not answer holds up nothing."""
    done = Latch()

    def flush() -> None:
        try:
            provider.shutdown()
        finally:
            done.set()

    start_thread(flush, "canary-mw-spans")
    wait_for(done, _FLUSH_TIMEOUT)
