"""Descriptions of the attributes of an AuthService, for the reference page and for editors."""

from canary_mw.config.reference.attribute_doc import AttributeDoc

_OF_CONVERSION = "Written by Emissary's own conversion; "

AUTH_SERVICE_ATTRIBUTES: dict[str, AttributeDoc] = {
    "auth_service": AttributeDoc("The service that is asked, as `service` of a Mapping.", "auth_service: auth:3000"),
    "path_prefix": AttributeDoc("Put before the path that the service gets.", "path_prefix: /check", default="none"),
    "tls": AttributeDoc("TLS to the service, by a TLSContext.", "tls: upstream-context"),
    "proto": AttributeDoc("How the service is asked.", "proto: http", differs="`grpc` is not supported yet: an error"),
    "protocol_version": AttributeDoc(
        "Of gRPC; HTTP has none.", "protocol_version: v3", differs="`v3` where it is missing"
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
    "stats_name": AttributeDoc("Has no effect yet, and a notice says so.", "stats_name: auth", differs="no effect yet"),
    "v3StatsName": AttributeDoc(_OF_CONVERSION + "ignored.", "v3StatsName: auth"),
    "v2ExplicitTLS": AttributeDoc(_OF_CONVERSION + "ignored.", "v2ExplicitTLS: {tls: x}"),
    "ambassador_id": AttributeDoc("As in a Mapping.", "ambassador_id: [default]", default="all"),
}
