"""LogService documents: where an entry about each request is sent (Emissary `irlogservice.py`)."""

from collections.abc import Mapping as Dict
from importlib.util import find_spec
from typing import Literal

from pydantic import Field

from canary_mw.config.ambassador.ambassador_id import matches_ambassador_id
from canary_mw.config.ambassador.schema import Flag, Strict
from canary_mw.config.document import Diagnostic
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report, validate
from canary_mw.exceptions import MappingError
from canary_mw.rules.filters.logs import LogPolicy
from canary_mw.rules.service import parse_service

KIND = "LogService"
Name = tuple[str, str]  # namespace, name
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


def read_log_services(
    resources: list[tuple[Resource, str]],
    ambassador_id: str,
    last_good: LogServices,
    complete: bool,
    diagnostics: list[Diagnostic],
) -> dict[Name, LogPolicy]:
    """The LogServices of a source by namespace and name; one in error keeps its last good version.

    Args:
        resources: those of all kinds, each with its file.
        complete: False if a document of the source could not be read; then nothing of `last_good` is removed.
        diagnostics: what is found is added to this list.
    """
    found: dict[Name, LogPolicy] = {} if complete else {**last_good}
    seen: set[Name] = set()
    for resource, file in resources:
        if resource.kind != KIND or not matches_ambassador_id(resource, ambassador_id):
            continue
        report, name = Report(resource, file), (resource.namespace, resource.name or "")
        policy = _policy(resource, ambassador_id, report) or last_good.get(name)
        if name in seen and policy is not None:
            report("error", "duplicate-name", "it is defined again; this one counts", hint="give it a name of its own")
        seen.add(name)
        if policy is not None:
            found[name] = policy
        diagnostics += report.diagnostics
    return found


def _policy(resource: Resource, ambassador_id: str, report: Report) -> LogPolicy | None:
    if not resource.name:
        report("error", "no-name", "the LogService has no name: it is left out")
        return None
    model = validate(LogServiceModel, dict(resource.spec), report)
    if model is None:
        return None
    try:
        policy = _read(model, resource, f"{ambassador_id}-{resource.namespace}", report.file)
    except MappingError as exc:
        report("error", "bad-value", exc.message, attribute=exc.message.partition(" ")[0], hint=exc.hint)
        return None
    _note(model, report)
    return policy


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
            report("notice", "no-effect-yet", f"{name} is read and has no effect yet", attribute=name)
