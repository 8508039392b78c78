"""The attributes of a Mapping with their types, for each apiVersion: pydantic models, used to read documents only.

Types and enumerations are those of Emissary's CRDs. v0, v1 and v2 allow shorthands that v3alpha1 does not;
`LegacyMapping` reads them, and `mapping.py` converts them to the form of v3alpha1. Attributes that begin with `v2` or
`v3` are written by Emissary's own conversion between the two (`handwritten.conversion.go`).
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from canary_mw.config.yaml.scalars import BOOLEANS, PlainWord


def _read_word(value: Any) -> Any:
    return BOOLEANS[value] if isinstance(value, PlainWord) else value


# A boolean, also as `y` or `n` without quotes.
Flag = Annotated[bool, BeforeValidator(_read_word)]
# Its range is for editors: a weight outside of it is reported with what becomes of its group (`config/weights.py`).
Percent = Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": 100})]
Headers = dict[str, str]
ShortHeaders = dict[str, str | bool]


class Strict(BaseModel):
    """A model that does not coerce types and keeps unknown attributes, so that they can be reported."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class Exact(Strict):
    """A model in which an unknown attribute is an error, and so is null: what it says limits who gets gray."""


class AddedHeader(Strict):
    """A header to add; `append: false` replaces an existing one."""

    value: str
    append: Flag = True
    v2Representation: str | None = None


ShortAddedHeaders = dict[str, str | AddedHeader]


class RegexSubstitution(Strict):
    """`regex_rewrite` and `regex_redirect`."""

    pattern: str = ""
    substitution: str = ""


class RetryPolicy(Strict):
    """When a failed attempt is retried."""

    retry_on: Literal[
        "5xx", "gateway-error", "connect-failure", "retriable-4xx", "refused-stream", "retriable-status-codes"
    ]
    num_retries: int | None = None
    per_try_timeout: str | None = None


class CircuitBreaker(Strict):
    """Limits for one priority."""

    priority: Literal["default", "high"] = "default"
    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_retries: int | None = None


class LoadBalancerCookie(Strict):
    """Cookie that a hashing load balancer uses."""

    name: str
    path: str | None = None
    ttl: str | None = None


class LoadBalancer(Strict):
    """How an endpoint of the service is chosen."""

    policy: Literal["round_robin", "least_request", "ring_hash", "maglev"]
    cookie: LoadBalancerCookie | None = None
    header: str | None = None
    source_ip: Flag | None = None


class StatusRange(Strict):
    """Statuses from `min` to `max`, both included."""

    min: int
    max: int


class HTTPHealthCheck(Strict):
    """The request to an endpoint, and the responses that count as healthy."""

    path: str
    hostname: str | None = None
    add_request_headers: ShortAddedHeaders = Field(default_factory=dict)
    remove_request_headers: list[str] = Field(default_factory=list)
    expected_statuses: list[StatusRange] = Field(default_factory=list)


class HealthCheckLayer(Strict):
    """Protocol of a health check."""

    http: HTTPHealthCheck | None = None
    grpc: dict[str, Any] | None = None


class ActiveHealthCheck(Strict):
    """One active health check, made for every endpoint."""

    health_check: HealthCheckLayer
    interval: str | None = None
    timeout: str | None = None
    healthy_threshold: int | None = None
    unhealthy_threshold: int | None = None


class KeepAlive(Strict):
    """TCP keep-alive towards the upstream."""

    probes: int | None = None
    idle_time: int | None = None
    interval: int | None = None


class Cors(Strict):
    """Cross-origin settings."""

    origins: list[str] = Field(default_factory=list)
    methods: list[str] = Field(default_factory=list)
    headers: list[str] = Field(default_factory=list)
    exposed_headers: list[str] = Field(default_factory=list)
    credentials: Flag = False
    max_age: str | None = None
    v2CommaSeparatedOrigins: Flag | None = None


class LegacyCors(Strict):
    """`Cors` of v0 to v2, where a list may be a text."""

    origins: str | list[str] = Field(default_factory=list)
    methods: str | list[str] = Field(default_factory=list)
    headers: str | list[str] = Field(default_factory=list)
    exposed_headers: str | list[str] = Field(default_factory=list)
    credentials: Flag = False
    max_age: str | None = None


class _Common(Strict):
    prefix: str
    service: str
    prefix_regex: Flag = False
    prefix_exact: Flag = False
    case_sensitive: Flag = True
    host: str | None = None
    host_regex: Flag = False
    method: str | None = None
    method_regex: Flag = False
    regex_headers: Headers = Field(default_factory=dict)
    regex_query_parameters: Headers = Field(default_factory=dict)
    precedence: int = 0
    weight: Percent | None = None
    rewrite: str | None = None
    regex_rewrite: RegexSubstitution | None = None
    host_rewrite: str | None = None
    auto_host_rewrite: Flag = False
    host_redirect: Flag = False
    path_redirect: str | None = None
    prefix_redirect: str | None = None
    regex_redirect: RegexSubstitution | None = None
    redirect_response_code: Literal[301, 302, 303, 307, 308] = 301
    shadow: Flag = False
    timeout_ms: int | None = None
    idle_timeout_ms: int | None = None
    connect_timeout_ms: int | None = None
    cluster_idle_timeout_ms: int | None = None
    cluster_max_connection_lifetime_ms: int | None = None
    retry_policy: RetryPolicy | None = None
    load_balancer: LoadBalancer | None = None
    resolver: str | None = None
    circuit_breakers: list[CircuitBreaker] | None = None
    keepalive: KeepAlive | None = None
    allow_upgrade: list[str] | None = None
    use_websocket: Flag | None = None
    bypass_auth: Flag | None = None
    auth_context_extensions: Headers | None = None
    bypass_error_response_overrides: Flag | None = None
    add_linkerd_headers: Flag | None = None
    cluster_tag: str | None = None
    dns_type: str | None = None
    docs: dict[str, Any] | None = None
    enable_ipv4: Flag | None = None
    enable_ipv6: Flag | None = None
    envoy_override: Any = None
    error_response_overrides: list[dict[str, Any]] | None = None
    grpc: Flag | None = None
    health_checks: list[ActiveHealthCheck] | None = None
    modules: list[dict[str, Any]] | None = None
    outlier_detection: Any = None
    priority: str | None = None
    respect_dns_ttl: Flag | None = None
    stats_name: str | None = None


class MappingV3(_Common):
    """`getambassador.io/v3alpha1`."""

    hostname: str | None = None
    headers: Headers = Field(default_factory=dict)
    query_parameters: Headers = Field(default_factory=dict)
    add_request_headers: dict[str, AddedHeader] = Field(default_factory=dict)
    add_response_headers: dict[str, AddedHeader] = Field(default_factory=dict)
    remove_request_headers: list[str] = Field(default_factory=list)
    remove_response_headers: list[str] = Field(default_factory=list)
    ambassador_id: list[str] | None = None
    cors: Cors | None = None
    labels: dict[str, list[dict[str, Any]]] | None = None
    tls: str | None = None
    v2ExplicitTLS: dict[str, Any] | None = None
    v2BoolHeaders: list[str] | None = None
    v2BoolQueryParameters: list[str] | None = None


class LegacyMapping(_Common):
    """`getambassador.io/v2`; v0 and v1 are read the same."""

    headers: ShortHeaders = Field(default_factory=dict)
    query_parameters: ShortHeaders = Field(default_factory=dict)
    add_request_headers: ShortAddedHeaders = Field(default_factory=dict)
    add_response_headers: ShortAddedHeaders = Field(default_factory=dict)
    remove_request_headers: str | list[str] = Field(default_factory=list)
    remove_response_headers: str | list[str] = Field(default_factory=list)
    ambassador_id: str | list[str] | None = None
    cors: LegacyCors | None = None
    labels: dict[str, Any] | None = None
    tls: str | bool | None = None
    v3health_checks: list[ActiveHealthCheck] | None = None
    v3StatsName: str | None = None
    circuit_breaker: Any = None
    rate_limits: Any = None
    headers_regex: Any = None


Model = MappingV3 | LegacyMapping
MODELS: dict[str, type[Model]] = {
    "v0": LegacyMapping,
    "v1": LegacyMapping,
    "v2": LegacyMapping,
    "v3alpha1": MappingV3,
}

# The `host` of a v2 document that Emissary converted from a v3alpha1 document without any host.
CONVERTED_WITHOUT_HOST = "_skip_mapping_with_empty_host_"


def health_checks_of(model: Model) -> list[ActiveHealthCheck]:
    """The health checks; v2 has them under another name, by Emissary's conversion from v3alpha1."""
    converted = model.v3health_checks if isinstance(model, LegacyMapping) else None
    return converted or model.health_checks or []


# An empty text means "not given" for all text attributes but these (they are pointers in Emissary's Go).
_KEPT_EMPTY = {"rewrite"}
TEXT_ATTRIBUTES = frozenset(
    name
    for model in MODELS.values()
    for name, info in model.model_fields.items()
    if name not in _KEPT_EMPTY and (info.annotation is str or str in get_args(info.annotation))
)

# Attributes that are read and kept but have no effect yet: each gets a notice.
NO_EFFECT_YET = frozenset(
    "bypass_error_response_overrides circuit_breaker cluster_tag"
    " dns_type docs enable_ipv4 enable_ipv6 envoy_override error_response_overrides grpc keepalive"
    " modules priority respect_dns_ttl stats_name".split()
)
# Attributes kept on the Mapping and shown by `explain`, with or without effect.
KEPT = NO_EFFECT_YET | frozenset(
    "add_linkerd_headers allow_upgrade auth_context_extensions bypass_auth health_checks labels load_balancer"
    " outlier_detection rate_limits resolver tls use_websocket v3health_checks".split()
)
