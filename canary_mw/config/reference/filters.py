"""Descriptions of the attributes of AuthService and RateLimitService, for the reference page and for editors."""

from canary_mw.config.reference.attribute_doc import AttributeDoc

_OF_CONVERSION = "Written by Emissary's own conversion; "

AUTH_SERVICE_ATTRIBUTES: dict[str, AttributeDoc] = {
    "auth_service": AttributeDoc("The service that is asked, as `service` of a Mapping.", "auth_service: auth:3000"),
    "path_prefix": AttributeDoc("Put before the path that the service gets.", "path_prefix: /check", default="none"),
    "tls": AttributeDoc("TLS to the service, by a TLSContext.", "tls: upstream-context"),
    "proto": AttributeDoc(
        "How the service is asked.", "proto: http", differs="`grpc` needs the extra `grpc`; without it, an error"
    ),
    "protocol_version": AttributeDoc(
        "Of gRPC; HTTP has none.", "protocol_version: v3", differs="`v3` where it is missing, with a notice"
    ),
    "timeout_ms": AttributeDoc("Bounds connect, send and answer together; 0 for no limit.", "timeout_ms: 500"),
    "connect_timeout_ms": AttributeDoc("Bounds the attempt to connect; 0 for no limit.", "connect_timeout_ms: 100"),
    "allowed_request_headers": AttributeDoc(
        "Headers that the service gets besides authorization, cookie, from, proxy-authorization, user-agent and"
        " x-forwarded-for, -host and -proto.",
        "allowed_request_headers: [x-token]",
        differs='`["*"]` for all',
    ),
    "allowed_authorization_headers": AttributeDoc(
        "Headers of its answer that the request gets besides authorization, location, proxy-authenticate, set-cookie"
        " and www-authenticate. A refusal hands them to the client.",
        "allowed_authorization_headers: [x-user]",
        differs="one that the service does not send is removed from the request: no client can bring it",
    ),
    "allowed_headers": AttributeDoc("Of v0: counts as both lists.", "allowed_headers: [x-token]"),
    "add_auth_headers": AttributeDoc(
        "Headers of every call, in place of those of the client. Their values are shown nowhere.",
        "add_auth_headers: {x-api: key}",
    ),
    "include_body": AttributeDoc(
        "The service gets the first `max_bytes` of a body; a longer one is cut with `allow_partial`, else refused.",
        "include_body: {max_bytes: 4096, allow_partial: true}",
    ),
    "allow_request_body": AttributeDoc(
        "`include_body: {max_bytes: 4096, allow_partial: true}`.", "allow_request_body: true"
    ),
    "add_linkerd_headers": AttributeDoc(
        "Adds `l5d-dst-override` to the call.",
        "add_linkerd_headers: true",
        default="that of the Module",
        differs="names the service; Emissary names `path_prefix`",
    ),
    "failure_mode_allow": AttributeDoc(
        "A request goes on while the service is down, slow or answers 500 and above.", "failure_mode_allow: true"
    ),
    "status_on_error": AttributeDoc(
        "The answer then, without `failure_mode_allow`.", "status_on_error: {code: 503}", default="`{code: 403}`"
    ),
    "circuit_breakers": AttributeDoc(
        "As in a Mapping.", "circuit_breakers: [{max_requests: 100}]", default="those of the Module"
    ),
    "v3CircuitBreakers": AttributeDoc(_OF_CONVERSION + "`circuit_breakers`.", "v3CircuitBreakers: []"),
    "cluster_idle_timeout_ms": AttributeDoc("As in a Mapping.", "cluster_idle_timeout_ms: 30000"),
    "cluster_max_connection_lifetime_ms": AttributeDoc("As in a Mapping.", "cluster_max_connection_lifetime_ms: 60000"),
    "stats_name": AttributeDoc("Has no effect, and a notice says so.", "stats_name: auth", differs="no effect"),
    "v3StatsName": AttributeDoc(_OF_CONVERSION + "ignored.", "v3StatsName: auth"),
    "v2ExplicitTLS": AttributeDoc(_OF_CONVERSION + "ignored.", "v2ExplicitTLS: {tls: x}"),
    "ambassador_id": AttributeDoc("As in a Mapping.", "ambassador_id: [default]", default="all"),
}

RATE_LIMIT_SERVICE_ATTRIBUTES: dict[str, AttributeDoc] = {
    "service": AttributeDoc("The service that is asked by gRPC, as `service` of a Mapping.", "service: limiter:5000"),
    "timeout_ms": AttributeDoc(
        "Bounds connect, send and answer together; 0 for no limit. `check` notes less than 50.", "timeout_ms: 50"
    ),
    "domain": AttributeDoc(
        "The `labels` of this domain count.",
        "domain: shop",
        default="that of the Module, or `ambassador`",
    ),
    "tls": AttributeDoc("TLS to the service, by a TLSContext.", "tls: upstream-context"),
    "protocol_version": AttributeDoc(
        "Only v3 exists.", "protocol_version: v3", default="`v3`", differs="`v3` where it is missing, with a notice"
    ),
    "failure_mode_deny": AttributeDoc(
        "A request is answered with 500 while the service fails; else it passes.", "failure_mode_deny: true"
    ),
    "grpc": AttributeDoc(
        "With `use_resource_exhausted_code`, clients of gRPC get the status 8 over the limit, not 14.",
        "grpc: {use_resource_exhausted_code: true}",
        default="none",
        differs="works; Emissary reads another key, and sends 14",
    ),
    "v3GRPC": AttributeDoc(_OF_CONVERSION + "`grpc`.", "v3GRPC: {}", default="none"),
    "stats_name": AttributeDoc("Has no effect, and a notice says so.", "stats_name: rl", differs="no effect"),
    "v3StatsName": AttributeDoc(_OF_CONVERSION + "ignored.", "v3StatsName: rl"),
    "v2ExplicitTLS": AttributeDoc(_OF_CONVERSION + "ignored.", "v2ExplicitTLS: {tls: x}"),
    "ambassador_id": AttributeDoc("As in a Mapping.", "ambassador_id: [default]", default="all"),
}
