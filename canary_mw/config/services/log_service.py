"""LogService documents: where an entry about each request is sent (Emissary `irlogservice.py`)."""

from collections.abc import Mapping as Dict
from importlib.util import find_spec
from typing import Literal

from pydantic import Field

from canary_mw.config.ambassador.schema import Flag, Strict
from canary_mw.config.document import Diagnostic
from canary_mw.config.resource import Resource
from canary_mw.config.services.named import Name, Source, full_name, read_named, read_policy
from canary_mw.config.validation import Report
from canary_mw.exceptions import MappingError
from canary_mw.rules.filters.logs import LogPolicy
from canary_mw.rules.service import parse_service

KIND = "LogService"
LogServices = Dict[Name, LogPolicy]


class LoggedHeader(Strict):
    """One of `additional_log_headers`."""

    header_name: str
    during_request: Flag = True
    during_response: Flag = True
    during_trailer: Flag = True


class DriverConfig(Strict):
    """`driver_config`."""

    additional_log_headers: list[LoggedHeader] = Field(default_factory=list)


class LogServiceModel(Strict):
    """The attributes with their types, the same in all versions but for two names."""

    service: str
    driver: Literal["http", "tcp"] = "http"
    driver_config: DriverConfig | None = None
    flush_interval_time: int = Field(default=1, ge=0)
    flush_interval_byte_size: int = Field(default=16384, ge=0)
    grpc: Flag | None = None
    protocol_version: Literal["v2", "v3"] | None = None
    v3ProtocolVersion: Literal["v2", "v3"] | None = None
    stats_name: str | None = None
    v3StatsName: str | None = None
    ambassador_id: str | list[str] | None = None


def read_log_services(source: Source, last_good: LogServices, diagnostics: list[Diagnostic]) -> dict[Name, LogPolicy]:
    """The LogServices of a source by namespace and name; see `read_named`."""

    def convert(resource: Resource, _: str, report: Report) -> LogPolicy | None:
        return _policy(resource, source.ambassador_id, report)

    return read_named(KIND, source, full_name, convert, last_good, diagnostics)[0]


def _policy(resource: Resource, ambassador_id: str, report: Report) -> LogPolicy | None:
    node = f"{ambassador_id}-{resource.namespace}"
    return read_policy(
        LogServiceModel, resource, report, lambda model: _read(model, resource, node, report.file), _note
    )


def _read(model: LogServiceModel, resource: Resource, node: str, file: str) -> LogPolicy:
    if "v2" in (model.protocol_version, model.v3ProtocolVersion):
        raise MappingError("protocol_version v2 exists no more", hint="write protocol_version: v3")
    if find_spec("h2") is None:
        raise MappingError("service is told by gRPC: that needs the extra `grpc`", hint="pip install 'canary-mw[grpc]'")
    headers = model.driver_config.additional_log_headers if model.driver_config else []
    if headers and model.driver != "http":
        raise MappingError("driver_config has additional_log_headers, which driver tcp does not have", hint="use http")
    if not all(each.header_name for each in headers):
        raise MappingError("driver_config has a header without a name", hint="give each a header_name")
    service, _ = parse_service(model.service, resource.namespace)
    return LogPolicy(
        resource.name or "",
        service,
        model.driver,
        node,
        tuple(each.header_name.lower() for each in headers if each.during_request),
        tuple(each.header_name.lower() for each in headers if each.during_response),
        float(model.flush_interval_time),
        model.flush_interval_byte_size,
        file,
        resource.line,
    )


def _note(model: LogServiceModel, report: Report) -> None:
    if not model.grpc:
        report("notice", "taken-as-grpc", "gRPC is spoken, as with grpc: true (Emissary sends nothing)")
    if model.driver_config is None:
        report("notice", "no-driver-config", "no driver_config: taken as {} (Emissary does not start with it)")
    if model.protocol_version is None and model.v3ProtocolVersion is None:
        report("notice", "protocol-version", "no protocol_version: v3 is spoken (in Emissary v2, which it refuses)")
    for name in ("stats_name", "v3StatsName"):
        if getattr(model, name):
            report("notice", "no-effect", f"{name} has no effect: figures have the name of the service", attribute=name)
