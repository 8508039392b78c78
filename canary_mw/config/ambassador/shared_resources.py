"""What all Mappings of a source share: the Module's settings, resolvers and TLSContexts."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace

from canary_mw.config.ambassador.ambassador_id import matches_ambassador_id
from canary_mw.config.ambassador.kinds import (
    CONSUL_RESOLVER,
    ENDPOINT_RESOLVER,
    KNOWN_KINDS,
    KUBERNETES_RESOLVERS,
    RESOLVER_KINDS,
)
from canary_mw.config.ambassador.module import NO_EFFECT_YET, UNSUPPORTED, ModuleConfig, to_settings
from canary_mw.config.ambassador.tls_context import read_contexts
from canary_mw.config.document import Diagnostic
from canary_mw.config.filters.auth_service import AuthSurroundings
from canary_mw.config.filters.reading import FilterDocuments, is_filter, read_filters
from canary_mw.config.resource import Resource
from canary_mw.config.services.consul_resolver import read_agents
from canary_mw.config.services.log_service import KIND as LOG_SERVICE
from canary_mw.config.services.log_service import LogServices, read_log_services
from canary_mw.config.services.named import Source
from canary_mw.config.services.tcp_mapping import KIND as TCP_MAPPING
from canary_mw.config.services.tcp_mapping import TCPMappings, TCPSurroundings, read_tcp_mappings
from canary_mw.config.services.tracing_service import KIND as TRACING_SERVICE
from canary_mw.config.services.tracing_service import read_tracing_service
from canary_mw.config.validation import Report, validate
from canary_mw.config.wording import in_words
from canary_mw.exceptions import MappingError
from canary_mw.rules.filters.traces import TracePolicy
from canary_mw.rules.module import DEFAULT_SETTINGS, ModuleSettings
from canary_mw.rules.upstream import ConsulAgent, UpstreamTLS

# The kinds that `read_shared_resources` reads, besides those that name a service which is asked.
_SHARED_KINDS = frozenset((*RESOLVER_KINDS, "Module", "TLSContext", TCP_MAPPING, LOG_SERVICE, TRACING_SERVICE))


@dataclass(frozen=True, slots=True)
class SharedResources:
    """What all Mappings of a source share.

    Attributes:
        resolvers: the kinds of resolvers, by the names that a `resolver` attribute may have.
        agents: of the ConsulResolvers among them.
        tls_contexts: by the names that a `tls` attribute may have.
        filters: documents that name services which are asked; `settings` has what follows of them.
        tcp: TCPMappings, also in `settings`; so are `logs`, and `tracing` where spans are sent.
    """

    ambassador_id: str = "default"
    settings: ModuleSettings = DEFAULT_SETTINGS
    resolvers: Dict[str, str] = field(default_factory=lambda: _with_built_in({}))
    tls_contexts: Dict[str, UpstreamTLS] = field(default_factory=dict)
    filters: FilterDocuments = field(default_factory=FilterDocuments)
    agents: Dict[str, ConsulAgent] = field(default_factory=dict)
    tcp: TCPMappings = field(default_factory=dict)
    logs: LogServices = field(default_factory=dict)
    tracing: TracePolicy | None = None


def is_shared(resource: Resource) -> bool:
    """Whether a document has an effect on all Mappings."""
    kind = resource.kind
    return kind != "Mapping" and (kind in _SHARED_KINDS or is_filter(resource, KNOWN_KINDS))


def read_shared_resources(
    resources: list[tuple[Resource, str]],
    ambassador_id: str,
    last_good: SharedResources,
    complete: bool,
    diagnostics: list[Diagnostic],
    cut_off: str = "",
) -> SharedResources:
    """Read the Module, the resolvers and the TLSContexts of a source; they affect Mappings that stand before them too.

    Args:
        resources: those of which `is_shared` is true, each with its file.
        last_good: of the last reading; its values replace those in error now.
        complete: False if a document of the source could not be read; then nothing of `last_good` is removed.
        diagnostics: what is found is added to this list.
        cut_off: see `read_filters`.
    """
    source = Source(resources, ambassador_id, complete)
    agents = read_agents(source, last_good.agents, diagnostics)
    named = _resolvers(resources, ambassador_id)
    known_kinds = named if complete else {**last_good.resolvers, **named}
    resolvers = _with_built_in({**known_kinds, **dict.fromkeys(agents, CONSUL_RESOLVER)})
    settings = _settings(source, last_good.settings, resolvers, diagnostics)
    contexts = [
        each for each in resources if each[0].kind == "TLSContext" and matches_ambassador_id(each[0], ambassador_id)
    ]
    known = read_contexts(contexts, last_good.tls_contexts, diagnostics)
    if not complete:
        known = {**last_good.tls_contexts, **known}
    asked = [each for each in resources if is_filter(each[0], KNOWN_KINDS)]
    around = AuthSurroundings(settings, known, ambassador_id)
    filters = read_filters(asked, ambassador_id, around, last_good.filters, complete, cut_off, diagnostics)
    resolver = settings.attributes.get("resolver", "kubernetes-service")
    surroundings = TCPSurroundings(resolver, resolvers, agents, known)
    tcp = read_tcp_mappings(source, surroundings, last_good.tcp, diagnostics)
    logs = read_log_services(source, last_good.logs, diagnostics)
    tracing = read_tracing_service(source, last_good.tracing, diagnostics)
    settings = replace(
        settings,
        filters=filters.filters,
        tcp=tuple(tcp.values()),
        logs=tuple(logs.values()),
        tracing=None if tracing is None or tracing.driver == "datadog" else tracing,
    )
    return SharedResources(ambassador_id, settings, resolvers, known, filters, agents, tcp, logs, tracing)


def _settings(
    source: Source, last_good: ModuleSettings, resolvers: Dict[str, str], diagnostics: list[Diagnostic]
) -> ModuleSettings:
    """The settings of the Module; the last good ones where it is in error."""
    settings = DEFAULT_SETTINGS if source.complete else last_good
    for resource, file in source.resources:
        named = resource.kind == "Module" and resource.name == "ambassador"
        if named and matches_ambassador_id(resource, source.ambassador_id):
            report = Report(resource, file, "config.")
            settings = _module_settings(resource, report, resolvers) or last_good
            diagnostics += report.diagnostics
    return settings


def _resolvers(resources: list[tuple[Resource, str]], ambassador_id: str) -> dict[str, str]:
    return {
        resource.name: resource.kind
        for resource, _ in resources
        if resource.kind in KUBERNETES_RESOLVERS and resource.name and matches_ambassador_id(resource, ambassador_id)
    }


def _with_built_in(named: Dict[str, str]) -> dict[str, str]:
    """Resolvers with those that exist without a document; as in Emissary, two of them stand for each other."""
    endpoint = named.get("endpoint") or named.get("kubernetes-endpoint") or ENDPOINT_RESOLVER
    aliases = {"endpoint": endpoint, "kubernetes-endpoint": endpoint}
    return {"kubernetes-service": "KubernetesServiceResolver", **aliases, **named}


def _module_settings(resource: Resource, report: Report, resolvers: Dict[str, str]) -> ModuleSettings | None:
    config = resource.spec.get("config", {})
    if not isinstance(config, dict):
        report("error", "wrong-type", f"config must be a map, not {in_words(config)}")
        return None
    model = validate(ModuleConfig, config, report, unsupported=UNSUPPORTED)
    if model is None:
        return None
    if model.resolver and model.resolver not in resolvers:
        hint = "known are " + ", ".join(sorted(resolvers))
        report("error", "unknown-resolver", f"resolver {model.resolver} is unknown", attribute="resolver", hint=hint)
        return None
    for name in NO_EFFECT_YET:
        if name in model.model_fields_set:
            report("notice", "no-effect-yet", f"{name} is read and has no effect yet", attribute=name)
    try:
        return to_settings(model)
    except MappingError as exc:
        report("error", "bad-value", exc.message, attribute=exc.message.partition(":")[0], hint=exc.hint)
        return None
