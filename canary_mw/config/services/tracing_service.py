"""TracingService documents: which requests are traced, and where spans are sent (Emissary `irtracing.py`)."""

import re
from importlib.util import find_spec
from typing import Literal

from pydantic import Field

from canary_mw.config.ambassador.ambassador_id import matches_ambassador_id
from canary_mw.config.ambassador.schema import Flag, Strict
from canary_mw.config.document import Diagnostic
from canary_mw.config.resource import Resource
from canary_mw.config.services.named import Source, read_policy
from canary_mw.config.validation import Report
from canary_mw.exceptions import MappingError
from canary_mw.rules.filters.traces import DEFAULT_MODES, CustomTag, Mode, Sampling, TracePolicy
from canary_mw.rules.service import parse_service

KIND = "TracingService"
_NAME = re.compile(r":(method|path|authority|scheme)|[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[!-~]+")
_OF_COLLECTOR = ("collector_endpoint", "collector_endpoint_version", "collector_hostname", "trace_id_128bit")


class SamplingModel(Strict):
    """`sampling`, in percent."""

    client: int | float = Field(default=100, ge=0, le=100)
    random: int | float = Field(default=100, ge=0, le=100)
    overall: int | float = Field(default=100, ge=0, le=100)


class Literally(Strict):
    """A value that is written down."""

    value: str


class Named(Strict):
    """A value that is read elsewhere."""

    name: str
    default_value: str | None = None


class CustomTagModel(Strict):
    """One of `custom_tags`."""

    tag: str
    literal: Literally | None = None
    environment: Named | None = None
    request_header: Named | None = None


class TraceConfig(Strict):
    """`config`."""

    collector_endpoint: str = "/api/v2/spans"
    collector_endpoint_version: Literal["HTTP_JSON", "HTTP_JSON_V1", "HTTP_PROTO"] = "HTTP_JSON"
    collector_hostname: str = ""
    trace_id_128bit: Flag = True
    shared_span_context: Flag = True
    propagation_modes: list[Literal["ENVOY", "LIGHTSTEP", "B3", "TRACE_CONTEXT"]] = Field(default_factory=list)
    service_name: str = ""
    access_token_file: str | None = None


class TracingServiceModel(Strict):
    """The attributes with their types, the same in all versions but for some names."""

    service: str
    driver: Literal["zipkin", "opentelemetry", "datadog", "lightstep"]
    sampling: SamplingModel = SamplingModel()
    custom_tags: list[CustomTagModel] = Field(default_factory=list)
    v3CustomTags: list[CustomTagModel] = Field(default_factory=list)
    tag_headers: list[str] = Field(default_factory=list)
    config: TraceConfig = TraceConfig()
    stats_name: str | None = None
    v3StatsName: str | None = None
    ambassador_id: str | list[str] | None = None


def read_tracing_service(
    source: Source, last_good: TracePolicy | None, diagnostics: list[Diagnostic]
) -> TracePolicy | None:
    """The only TracingService of a source; of several the one that is in force already, or else the first.

    One in error keeps its last good version.
    """
    policies: list[TracePolicy] = []
    found = [
        each
        for each in source.resources
        if each[0].kind == KIND and matches_ambassador_id(each[0], source.ambassador_id)
    ]
    for resource, file in found:
        report = Report(resource, file)
        policy = _policy(resource, source.ambassador_id, report)
        if policy is None and last_good is not None and last_good.name == resource.name:
            policy = last_good
        if policies:
            text = f"there is one already, {policies[0].name}: only one TracingService can be in force"
            report("error", "several-tracing-services", text, hint="remove all others")
        if policy is not None:
            policies.append(policy)
        diagnostics += report.diagnostics
    if not policies:
        return None if source.complete and not found else last_good
    kept = [each for each in policies if last_good is not None and each.name == last_good.name]
    return (kept or policies)[0]


def _policy(resource: Resource, ambassador_id: str, report: Report) -> TracePolicy | None:
    if not resource.name:
        report("error", "no-name", "the TracingService has no name: it is left out")
        return None
    node = f"{ambassador_id}-{resource.namespace}"
    return read_policy(
        TracingServiceModel, resource, report, lambda model: _read(model, resource, node, report.file), _note
    )


def _read(model: TracingServiceModel, resource: Resource, node: str, file: str) -> TracePolicy:
    driver, config = model.driver, model.config
    if driver == "lightstep":
        raise MappingError("driver lightstep exists no more, in Emissary since 3.4", hint="use driver: opentelemetry")
    if driver == "opentelemetry" and find_spec("h2") is None:
        raise MappingError("service is told by gRPC: that needs the extra `grpc`", hint="pip install 'canary-mw[grpc]'")
    if not _TARGET.fullmatch(config.collector_endpoint):
        raise MappingError("config.collector_endpoint is no path", hint="write collector_endpoint: /api/v2/spans")
    if config.collector_hostname and not _HOST.fullmatch(config.collector_hostname):
        raise MappingError("config.collector_hostname is no host", hint="write host, or host:port")
    service, _ = parse_service(model.service, resource.namespace)
    modes: tuple[Mode, ...] = tuple(
        dict.fromkeys(each for each in config.propagation_modes if each in ("B3", "TRACE_CONTEXT"))
    )
    sampling = model.sampling
    return TracePolicy(
        resource.name or "",
        service,
        driver,
        Sampling(float(sampling.client), float(sampling.random), float(sampling.overall)),
        _tags(model),
        modes or DEFAULT_MODES[driver],
        config.collector_endpoint,
        config.collector_hostname,
        config.trace_id_128bit,
        config.service_name,
        node,
        resource.namespace,
        file,
        resource.line,
    )


def _tags(model: TracingServiceModel) -> tuple[CustomTag, ...]:
    given = model.custom_tags or model.v3CustomTags
    if not given:
        return tuple(CustomTag(name, "request_header", _header(name, "tag_headers")) for name in model.tag_headers)
    return tuple(_tag(each) for each in given)


def _tag(model: CustomTagModel) -> CustomTag:
    sources = [each for each in (model.literal, model.environment, model.request_header) if each is not None]
    if not model.tag or len(sources) != 1:
        text = f"custom_tags has {model.tag or 'one without tag'}, which needs one value"
        raise MappingError(text, hint="give each a tag, and one of literal, environment and request_header")
    if model.literal is not None:
        return CustomTag(model.tag, "literal", value=model.literal.value)
    if model.environment is not None:
        return CustomTag(model.tag, "environment", model.environment.name, model.environment.default_value)
    assert model.request_header is not None, "one of the three is given"
    name = _header(model.request_header.name, "custom_tags")
    return CustomTag(model.tag, "request_header", name, model.request_header.default_value)


def _header(name: str, attribute: str) -> str:
    if not _NAME.fullmatch(name):
        raise MappingError(f"{attribute} has a request header without a valid name", hint="write name: x-user")
    return name.lower()


def _note(model: TracingServiceModel, report: Report) -> None:
    config = model.config
    if model.driver == "datadog":
        text = "driver datadog: no spans are sent, and requests keep their trace headers as they are"
        hint = "the Agent of Datadog takes OTLP: driver: opentelemetry, and its port 4317 in service"
        report("warning", "driver-not-spoken", text, attribute="driver", hint=hint)
        return
    if model.tag_headers and (model.custom_tags or model.v3CustomTags):
        report("notice", "tag-headers-ignored", "tag_headers is ignored beside custom_tags", attribute="tag_headers")
    if config.collector_endpoint_version != "HTTP_JSON":
        text = f"collector_endpoint_version {config.collector_endpoint_version}: JSON of version 2 is sent"
        report("notice", "json-is-sent", text, attribute="config.collector_endpoint_version")
    if "shared_span_context" in config.model_fields_set and config.shared_span_context:
        text = "shared_span_context: each span has an id of its own, as the spans of Emissary have"
        report("notice", "own-span-ids", text, attribute="config.shared_span_context")
    for name in _OF_COLLECTOR if model.driver == "opentelemetry" else ():
        if name in config.model_fields_set:
            report("notice", "zipkin-only", f"{name} is ignored: only zipkin has it", attribute=f"config.{name}")
    for mode in config.propagation_modes:
        if mode not in ("B3", "TRACE_CONTEXT"):
            text = f"propagation mode {mode} is that of lightstep: ignored"
            report("notice", "mode-ignored", text, attribute="config.propagation_modes")
    if config.access_token_file is not None:
        report("notice", "lightstep-only", "access_token_file is ignored: only lightstep has it", attribute="config")
    for name in ("stats_name", "v3StatsName"):
        if getattr(model, name):
            report("notice", "no-effect", f"{name} has no effect: figures have the name of the service", attribute=name)
