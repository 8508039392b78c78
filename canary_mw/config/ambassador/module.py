"""`kind: Module, name: ambassador`: defaults of all Mappings, checks of all requests (Emissary `irambassador.py`)."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from ipaddress import ip_network
from typing import Any, Literal

from pydantic import Field

from canary_mw.config.ambassador import endpoint_policies, traffic_policies, unused_attributes
from canary_mw.config.ambassador.schema import (
    CircuitBreaker,
    Flag,
    KeepAlive,
    LegacyCors,
    LoadBalancer,
    RetryPolicy,
    ShortAddedHeaders,
    Strict,
)
from canary_mw.config.filters.labels import LABEL_KINDS, Place, descriptor
from canary_mw.exceptions import MappingError
from canary_mw.http.headers import has_control
from canary_mw.rules.filters.limits import Descriptor
from canary_mw.rules.matchers import REGEX_MAX_SIZE, REGEX_SIZE_CAP
from canary_mw.rules.module import ModuleSettings
from canary_mw.rules.request_policy import AddressFilter, Network, RequestPolicy
from canary_mw.rules.wording import quoted


class HeaderDefaults(Strict):
    """The attributes that `defaults` may give to every Mapping."""

    add_request_headers: ShortAddedHeaders | None = None
    add_response_headers: ShortAddedHeaders | None = None
    remove_request_headers: str | list[str] | None = None
    remove_response_headers: str | list[str] | None = None
    stats_name: str | None = None


class HTTPMappingDefaults(HeaderDefaults):
    """`defaults.httpmapping`."""

    bypass_auth: Flag | None = None


class Defaults(HeaderDefaults):
    """`defaults`; `defaults.httpmapping` overrides it."""

    httpmapping: HTTPMappingDefaults | None = None


class ModuleCors(LegacyCors):
    """`cors` of a Module: Emissary takes a text of origins letter by letter."""

    origins: list[str] = Field(default_factory=list)


class ModuleConfig(Strict):
    """The keys that are read, with their types; every other key gets a finding."""

    cluster_request_timeout_ms: int | None = None
    cluster_idle_timeout_ms: int | None = None
    cluster_max_connection_lifetime_ms: int | None = None
    cors: ModuleCors | None = None
    retry_policy: RetryPolicy | None = None
    circuit_breakers: list[CircuitBreaker] | None = None
    load_balancer: LoadBalancer | None = None
    resolver: str | None = None
    keepalive: KeepAlive | None = None
    add_linkerd_headers: Flag | None = None
    default_label_domain: str | None = None
    default_labels: dict[str, dict[str, Any]] | None = None
    defaults: Defaults = Field(default_factory=Defaults)
    regex_max_size: int = Field(default=REGEX_MAX_SIZE, ge=1, le=REGEX_SIZE_CAP)
    merge_slashes: Flag = False
    strip_matching_host_port: Flag = False
    reject_requests_with_escaped_slashes: Flag = False
    headers_with_underscores_action: Literal["ALLOW", "REJECT_REQUEST", "DROP_HEADER"] = "ALLOW"
    max_request_headers_kb: int | None = Field(default=None, ge=1, le=8192)
    preserve_external_request_id: Flag = True
    xff_num_trusted_hops: int = Field(default=0, ge=0)
    server_name: str | None = None
    ip_allow: list[dict[str, str]] | None = None
    ip_deny: list[dict[str, str]] | None = None


# Emissary's other keys (`irambassador.py`), listed so that they are not reported as misspelt.
UNSUPPORTED = frozenset(
    "admin_port allow_chunked_length ambassador_id buffer buffer_limit_bytes debug_mode diag_port"
    " diagnostics dns_type docs enable_grpc_http11_bridge enable_grpc_web enable_http10"
    " enable_ipv4 enable_ipv6 envoy_log_format envoy_log_path envoy_log_type envoy_validation_timeout"
    " error_response_overrides forward_client_cert_details grpc_stats gzip header_case_overrides hostname"
    " listener_idle_timeout_ms liveness_probe lua_scripts max_request_headers_count outlier_detection proper_case"
    " prune_unreachable_routes readiness_probe regex_type respect_dns_ttl service_port"
    " set_current_client_cert_details statsd suppress_envoy_headers tls tracing"
    " use_ambassador_namespace_for_service_resolution use_proxy_proto use_remote_address"
    " x_forwarded_proto_redirect".split()
)
# Read and given to the Mappings, where they have no effect either.
NO_EFFECT_YET = ("keepalive",)

# Key of the Module -> attribute of a Mapping that it is the default of.
_DEFAULTS = {
    "cluster_request_timeout_ms": "timeout_ms",
    "cluster_idle_timeout_ms": "cluster_idle_timeout_ms",
    "cluster_max_connection_lifetime_ms": "cluster_max_connection_lifetime_ms",
    "cors": "cors",
    "retry_policy": "retry_policy",
    "circuit_breakers": "circuit_breakers",
    "load_balancer": "load_balancer",
    "resolver": "resolver",
    "keepalive": "keepalive",
    "add_linkerd_headers": "add_linkerd_headers",
}


def to_settings(config: ModuleConfig) -> ModuleSettings:
    """The settings of a Module.

    Raises:
        MappingError: a value that is not valid.
    """
    attributes = {
        attribute: value for key, attribute in _DEFAULTS.items() if (value := getattr(config, key)) is not None
    }
    for defaults in (config.defaults, config.defaults.httpmapping):
        for name in HeaderDefaults.model_fields:
            value = getattr(defaults, name, None)
            if value is not None:
                attributes[name] = value
    if config.defaults.httpmapping is not None and config.defaults.httpmapping.bypass_auth is not None:
        attributes["bypass_auth"] = config.defaults.httpmapping.bypass_auth
    _check_defaults(attributes)
    return ModuleSettings(
        attributes,
        config.regex_max_size,
        _request_policy(config),
        config.preserve_external_request_id,
        config.xff_num_trusted_hops,
        _server_name(config.server_name),
        label_domain=config.default_label_domain or "",
        default_labels=_default_labels(config),
    )


def _default_labels(config: ModuleConfig) -> dict[str, Descriptor]:
    """The labels of each domain that come before those of Mappings, written as those of v3alpha1 or as older ones."""
    found = {}
    for domain, given in (config.default_labels or {}).items():
        labels = given.get("defaults", [])
        legacy = isinstance(labels, list) and not all(
            isinstance(each, dict) and each.keys() <= LABEL_KINDS for each in labels
        )
        found[domain] = descriptor(labels, f"default_labels.{domain}.defaults", Place(legacy))
    return found


def _check_defaults(attributes: Dict[str, Any]) -> None:
    """Report an invalid default once, at the Module, instead of at every Mapping that takes it."""
    for name, value in attributes.items():
        try:
            for check in _CHECKS.get(name, ()):
                check(value)
        except MappingError as exc:
            key = next((key for key, attribute in _DEFAULTS.items() if attribute == name), f"defaults.{name}")
            raise MappingError(f"{key}: {exc.message}", hint=exc.hint) from None


_CHECKS: Dict[str, tuple[Callable[[Any], object], ...]] = {
    "timeout_ms": (traffic_policies.milliseconds,),
    "cluster_idle_timeout_ms": (traffic_policies.milliseconds,),
    "cluster_max_connection_lifetime_ms": (traffic_policies.milliseconds,),
    "retry_policy": (traffic_policies.retry_policy, traffic_policies.per_try_timeout),
    "circuit_breakers": (traffic_policies.circuit_breakers,),
    "cors": (traffic_policies.cors,),
    "load_balancer": (endpoint_policies.load_balancer,),
    "keepalive": (unused_attributes.check_keepalive,),
    "add_request_headers": (traffic_policies.added_headers,),
    "add_response_headers": (traffic_policies.added_headers,),
    "remove_request_headers": (traffic_policies.removed_headers,),
    "remove_response_headers": (traffic_policies.removed_headers,),
}


def _server_name(text: str | None) -> str | None:
    if text is not None and (has_control(text) or not text.isascii()):
        raise MappingError("server_name must be ASCII without control characters")
    return text


def _request_policy(config: ModuleConfig) -> RequestPolicy | None:
    if config.ip_allow is not None and config.ip_deny is not None:
        raise MappingError("ip_allow and ip_deny exclude each other", hint="leave one of them out")
    rules = config.ip_allow if config.ip_allow is not None else config.ip_deny
    policy = RequestPolicy(
        merge_slashes=config.merge_slashes,
        strip_matching_host_port=config.strip_matching_host_port,
        reject_requests_with_escaped_slashes=config.reject_requests_with_escaped_slashes,
        headers_with_underscores_action=config.headers_with_underscores_action,
        max_request_headers_kb=config.max_request_headers_kb,
        address_filter=None if rules is None else AddressFilter(_networks(rules), config.ip_allow is not None),
    )
    return None if policy == RequestPolicy() else policy


def _networks(rules: list[dict[str, str]]) -> tuple[Network, ...]:
    found: list[Network] = []
    for rule in rules:
        for kind, text in rule.items():
            if kind not in ("peer", "remote"):
                raise MappingError(f"{quoted(kind)} is not peer or remote", hint="write - peer: 10.0.0.0/8")
            try:
                found.append(ip_network(text, strict=False))
            except ValueError:
                raise MappingError(f"{quoted(text)} is not an address or a network") from None
    return tuple(found)
