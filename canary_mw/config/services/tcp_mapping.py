"""TCPMapping documents: where the connections of a port lead (Emissary `irtcpmapping.py`)."""

from collections.abc import Mapping as Dict
from ipaddress import ip_address
from typing import Any, NamedTuple

from canary_mw.config.ambassador.kinds import ENDPOINT_RESOLVER
from canary_mw.config.ambassador.origin import endpoints_in
from canary_mw.config.ambassador.schema import CircuitBreaker, Flag, Strict
from canary_mw.config.ambassador.traffic_policies import circuit_breakers, milliseconds
from canary_mw.config.document import Diagnostic
from canary_mw.config.resource import Resource
from canary_mw.config.services.consul_resolver import consul_name
from canary_mw.config.services.named import Name, Source, full_name, read_named
from canary_mw.config.validation import Report, validate
from canary_mw.config.weights import WEIGHT_RANGE, keep_shares
from canary_mw.exceptions import MappingError
from canary_mw.rules.mapping import DEFAULT_TIMEOUT_MS, Mapping, percent
from canary_mw.rules.service import Service, kubernetes_service, parse_service
from canary_mw.rules.tcp.mapping import DEFAULT_IDLE_TIMEOUT, TCPMapping, covers, most_specific
from canary_mw.rules.upstream import ConsulAgent, ConsulService, EndpointOptions, UpstreamOptions, UpstreamTLS
from canary_mw.rules.wording import quoted

KIND = "TCPMapping"
TCPMappings = Dict[Name, TCPMapping]


class TCPMappingModel(Strict):
    """The attributes with their types, the same in all versions."""

    port: int
    service: str
    host: str | None = None
    address: str | None = None
    weight: int | None = None
    idle_timeout_ms: str | int | None = None
    connect_timeout_ms: int | None = None
    circuit_breakers: list[CircuitBreaker] | None = None
    enable_ipv4: Flag | None = None
    enable_ipv6: Flag | None = None
    tls: bool | str | None = None
    resolver: str | None = None
    cluster_tag: str | None = None
    stats_name: str | None = None
    ambassador_id: str | list[str] | None = None


_WITHOUT_EFFECT = {
    "enable_ipv4": "the addresses of the service are those of its name",
    "enable_ipv6": "the addresses of the service are those of its name",
    "cluster_tag": "there are no clusters whose names could clash",
    "stats_name": "figures have the name of the TCPMapping",
}


class TCPSurroundings(NamedTuple):
    """What TCPMappings refer to.

    Attributes:
        resolver: that of a document without one.
        resolvers: kinds by name.
    """

    resolver: str
    resolvers: Dict[str, str]
    agents: Dict[str, ConsulAgent]
    tls_contexts: Dict[str, UpstreamTLS]


def read_tcp_mappings(
    source: Source, around: TCPSurroundings, last_good: TCPMappings, diagnostics: list[Diagnostic]
) -> dict[Name, TCPMapping]:
    """The TCPMappings of a source by namespace and name; see `read_named`."""

    def convert(resource: Resource, file: str, report: Report) -> TCPMapping | None:
        return _tcp_mapping(resource, file, around, report)

    found, in_error = read_named(KIND, source, full_name, convert, last_good, diagnostics)
    previous = [each.mapping for each in last_good.values()]
    mappings = [each.mapping for each in found.values()]
    shares = keep_shares(mappings, previous, in_error, diagnostics, middleware=False)
    return {name: each._replace(mapping=kept) for (name, each), kept in zip(found.items(), shares, strict=True)}


def _tcp_mapping(resource: Resource, file: str, around: TCPSurroundings, report: Report) -> TCPMapping | None:
    """The value of a document; None if it cannot be used, with a finding reported for each reason."""
    model = validate(TCPMappingModel, dict(resource.spec), report)
    if model is None:
        return None
    try:
        found = _value(model, resource, file, around)
    except _AttributeError as exc:
        report("error", exc.code, exc.message, attribute=exc.attribute, hint=exc.hint)
        return None
    _report_notices(model, report)
    if percent(model.weight) != model.weight:
        report("error", WEIGHT_RANGE, f"weight {model.weight} is no percentage", attribute="weight")
    return found


class _AttributeError(Exception):
    """What is wrong with an attribute."""

    def __init__(self, attribute: str, message: str, hint: str | None = None, code: str = "bad-value") -> None:
        super().__init__(message)
        self.attribute, self.message, self.hint, self.code = attribute, message, hint, code


def _value(model: TCPMappingModel, resource: Resource, file: str, around: TCPSurroundings) -> TCPMapping:
    address, host = _address(model), _host(model)
    if not 0 < model.port < 65536:
        raise _AttributeError("port", f"port {model.port} is not in 1..65535")
    service, endpoints = _service(model, resource, file, around)
    tls = around.tls_contexts.get(model.tls) if isinstance(model.tls, str) else None
    if isinstance(model.tls, str) and tls is None:
        known = ", ".join(sorted(around.tls_contexts)) or "none"
        text = f"TLSContext {model.tls} is not defined, or in error itself"
        raise _AttributeError("tls", text, f"define it; known are: {known}", "unknown-tls-context")
    options = UpstreamOptions(
        tls=tls,
        endpoints=None if endpoints == EndpointOptions() else endpoints,
        circuit_breakers=_checked("circuit_breakers", lambda: circuit_breakers(model.circuit_breakers or [])),
    )
    mapping = Mapping(
        name=resource.name or "",
        prefix=f"tcp://{address}:{model.port}/{host}",
        service=service,
        weight=model.weight,
        options=options,
        connect_timeout_ms=_connect_timeout(model),
        namespace=resource.namespace,
        file=file,
        line=resource.line,
    )
    certificate = _certificate(host, around.tls_contexts) if host else None
    return TCPMapping(address, model.port, host, certificate, _idle_timeout(model), mapping)


def _service(
    model: TCPMappingModel, resource: Resource, file: str, around: TCPSurroundings
) -> tuple[Service, EndpointOptions]:
    resolver = model.resolver or around.resolver
    kind, agent = around.resolvers.get(resolver), around.agents.get(resolver)
    if kind is None:
        hint = "known are " + ", ".join(sorted(around.resolvers))
        raise _AttributeError("resolver", f"resolver {resolver} is unknown", hint, "unknown-resolver")
    text = model.service
    if model.tls and "://" not in text:
        text = f"https://{text}"
    namespace = "default" if agent is not None else resource.namespace
    service = _checked("service", lambda: parse_service(text, namespace)[0])
    if agent is not None:
        name = _checked("service", lambda: consul_name(text))
        return service, EndpointOptions(consul_service=None if name is None else ConsulService(agent, name))
    place = endpoints_in(resource, file) if kind == ENDPOINT_RESOLVER else None
    return service, EndpointOptions(
        kubernetes_service=None if place is None else kubernetes_service(service.origin, place)
    )


def _checked(attribute: str, read: Any) -> Any:
    try:
        return read()
    except MappingError as exc:
        raise _AttributeError(attribute, exc.message, exc.hint) from exc


def _address(model: TCPMappingModel) -> str:
    text = model.address or "0.0.0.0"
    try:
        return str(ip_address(text))
    except ValueError:
        raise _AttributeError(
            "address", f"{quoted(text)} is no address", "write 0.0.0.0, or one of this host"
        ) from None


def _host(model: TCPMappingModel) -> str:
    host = (model.host or "").lower().removesuffix(".")
    if host in ("", "*"):
        return ""
    if not all(label == "*" or label.replace("-", "").replace("_", "").isalnum() for label in host.split(".")):
        raise _AttributeError("host", f"{quoted(host)} is no server name", "write one name, or *.example.com")
    if "*" in host.removeprefix("*."):
        raise _AttributeError("host", f"{quoted(host)} has a * in the middle", "write *.example.com")
    return host


def _certificate(host: str, contexts: Dict[str, UpstreamTLS]) -> UpstreamTLS:
    """The TLSContext whose `hosts` hold a host, the most specific one first."""
    with_secret = [each for each in contexts.values() if each.secret]
    pattern = most_specific((name for each in with_secret for name in each.hosts), host)
    if pattern is None:
        hint = f"write hosts: [{host}] and the secret of its certificate in a TLSContext"
        raise _AttributeError("host", f"no TLSContext has a certificate for {host}", hint, "unknown-tls-context")
    return next(each for each in with_secret if pattern in each.hosts and covers(pattern, host))


def _idle_timeout(model: TCPMappingModel) -> float | None:
    given = model.idle_timeout_ms
    if given is None:
        return DEFAULT_IDLE_TIMEOUT
    text = str(given).strip()
    if not text.isdecimal() or len(text) > 12:
        raise _AttributeError("idle_timeout_ms", f"{quoted(text)} is no number of milliseconds", 'write "30000"')
    return int(text) / 1000 or None


def _connect_timeout(model: TCPMappingModel) -> int:
    given = model.connect_timeout_ms
    if given is None:
        return DEFAULT_TIMEOUT_MS
    found: int = _checked("connect_timeout_ms", lambda: milliseconds(given))
    return found


def _report_notices(model: TCPMappingModel, report: Report) -> None:
    for name, why in _WITHOUT_EFFECT.items():
        if name in model.model_fields_set:
            report("notice", "no-effect", f"{name} has no effect: {why}", attribute=name)
    if model.host and model.port in (22, 2222):
        text = "SSH sends no server name: none of its connections gets to a TCPMapping with host"
        report("warning", "no-server-name", text, attribute="host", hint="leave host out, and use a port of its own")


def unopened_ports(found: TCPMappings) -> list[Diagnostic]:
    """Notices about the TCPMappings of a middleware, which opens no ports."""
    return [
        Diagnostic(
            severity="notice",
            code="no-effect",
            message=f"TCPMapping {each.mapping.name}: a middleware opens no ports",
            file=each.mapping.file,
            line=each.mapping.line,
            hint="let `canary-mw serve` read it",
        )
        for each in found.values()
    ]
