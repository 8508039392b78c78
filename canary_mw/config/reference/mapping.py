"""What the attributes of a Mapping and the keys of the Module mean, in words: for the reference page and for editors.

Types and defaults come from the models; `default` is named here where a missing value means more than nothing.
"""

from typing import NamedTuple


class AttributeDoc(NamedTuple):
    """One attribute.

    Attributes:
        example: YAML that stands alone in a v3alpha1 Mapping, or in the one version that knows the attribute.
        differs: how it differs from Emissary, empty where it does not.
    """

    meaning: str
    example: str
    default: str = ""
    differs: str = ""


_NONE_YET = "no effect yet: read, shown by `explain`, and a notice says so"
_HAS_NO_EFFECT = "Has no effect yet."

MATCHING = {
    "prefix": AttributeDoc(
        "Text that the path begins with, byte for byte: `/svc` takes `/svcfoo` too.", "prefix: /shop/"
    ),
    "prefix_exact": AttributeDoc("`prefix` is the whole path.", "prefix_exact: true"),
    "prefix_regex": AttributeDoc(
        "`prefix` is an RE2 regex of the whole path; it wins over `prefix_exact`.",
        "prefix_regex: true",
        differs="the kind of prefix is part of what makes a group; exact comes before plain before regex",
    ),
    "case_sensitive": AttributeDoc("`false`: a plain or exact prefix compares without case.", "case_sensitive: false"),
    "hostname": AttributeDoc(
        "Host of the request (v3alpha1): `*`, exact, `*suffix` or `prefix*`; it wins over `host`.",
        'hostname: "*.example.com"',
        default="every host",
        differs="without case, and without port unless it names one; without any host a Mapping matches every host",
    ),
    "host": AttributeDoc(
        "Host of the request: exact in v3alpha1, and as `hostname` in v0 to v2.",
        "host: shop.example.com",
        default="every host",
        differs="as `hostname`",
    ),
    "host_regex": AttributeDoc("`host` is an RE2 regex of the whole host.", "host_regex: true"),
    "method": AttributeDoc("Method of the request, in its own case.", "method: GET", default="any"),
    "method_regex": AttributeDoc("`method` is an RE2 regex of the whole method.", "method_regex: true"),
    "headers": AttributeDoc(
        "Headers that must all be there with these values; of a repeated one any value will do. In v0 to v2 `true` asks"
        " only for its presence.",
        'headers: {gray: "true"}',
    ),
    "regex_headers": AttributeDoc("The same with RE2 regexes of the whole value.", 'regex_headers: {x-user: "qa-.*"}'),
    "query_parameters": AttributeDoc(
        "Parameters of the query that must all be there, compared undecoded; of a repeated one the first counts.",
        'query_parameters: {version: "2"}',
        differs="checked for redirects too",
    ),
    "regex_query_parameters": AttributeDoc(
        "The same with RE2 regexes of the whole value.", 'regex_query_parameters: {version: "[23]"}'
    ),
    "precedence": AttributeDoc("First sort key of the order of groups, larger first.", "precedence: 10"),
    "weight": AttributeDoc(
        "Percent of its group, 0 to 100; Mappings without one share the rest. Of a shadow: percent that is copied.",
        "weight: 20",
        default="a share of the rest; 100 for a shadow",
        differs="a rest that nobody takes goes to the group again, not to 404; in a middleware to the wrapped app",
    ),
}

FORWARDING = {
    "service": AttributeDoc(
        "Where requests go: `[http://|https://]name[.namespace][:port]`.", "service: shop-gray:8080"
    ),
    "tls": AttributeDoc(
        "`true` (v0 to v2) is `https://` before the service; a text is that too, by the TLSContext of this name.",
        "tls: upstream-context",
        differs="a TLSContext that is not there costs the Mapping; Emissary sends without it, in clear text too",
    ),
    "rewrite": AttributeDoc(
        'Replaces the matched prefix; `""` leaves the path alone. With `prefix_regex` it replaces the whole path.',
        'rewrite: ""',
        default="`/`",
        differs="a rewrite that yields a dot segment is answered 400",
    ),
    "regex_rewrite": AttributeDoc(
        "RE2 replacement in the path, with `\\1` for groups; it wins over `rewrite`.",
        "regex_rewrite: {pattern: '/svc/(.*)', substitution: '/\\1'}",
        differs="belongs to its Mapping, not to the group",
    ),
    "host_rewrite": AttributeDoc("Host that the upstream sees.", "host_rewrite: shop.internal", default="the client's"),
    "auto_host_rewrite": AttributeDoc("The upstream sees the name of the service as Host.", "auto_host_rewrite: true"),
    "add_request_headers": AttributeDoc(
        "Headers to add; `append: false` replaces. Values may hold `%REQ(name?other):length%`, `%PROTOCOL%`,"
        " `%DOWNSTREAM_REMOTE_ADDRESS%`, `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`, `%START_TIME(%s)%`; `%%` is a"
        " percent sign. One whose operators give nothing is not added. v0 to v2 take plain texts too.",
        'add_request_headers: {x-gray: {value: "1", append: false}}',
        default="none",
        differs="belongs to its Mapping, not to the group; a wrong value costs only its Mapping",
    ),
    "remove_request_headers": AttributeDoc(
        "Headers to take away, before any is added.",
        "remove_request_headers: [x-debug]",
        default="none",
        differs="belongs to its Mapping, not to the group",
    ),
    "add_response_headers": AttributeDoc(
        "The same for answers, with `%RESP(name)%` and `%RESPONSE_CODE%` besides.",
        "add_response_headers: {x-version: {value: gray}}",
        default="none",
        differs="as `add_request_headers`",
    ),
    "remove_response_headers": AttributeDoc(
        "Headers to take away from answers.",
        "remove_response_headers: [server]",
        default="none",
        differs="belongs to its Mapping, not to the group",
    ),
    "add_linkerd_headers": AttributeDoc(
        "Adds `l5d-dst-override: host:port`.", "add_linkerd_headers: true", default="the Module's"
    ),
    "shadow": AttributeDoc(
        "Gets copies of what its group forwards, under the Host with `-shadow` and with `x-shadow: true`; its answers"
        " are dropped.",
        "shadow: true",
        differs="GET, HEAD and OPTIONS only, unless `metadata_labels: {shadow_writes: allow}` or"
        " `CANARY_MW_SHADOW_WRITES` lets writes be copied",
    ),
}

REDIRECTS = {
    "host_redirect": AttributeDoc(
        "Answered here with a redirect to the host that `service` names; it takes the whole group.",
        "host_redirect: true",
        differs="query parameters and `host_regex` count",
    ),
    "path_redirect": AttributeDoc("Path of the redirect; it wins over the next two.", "path_redirect: /moved"),
    "prefix_redirect": AttributeDoc("Replaces the matched prefix in the redirect.", "prefix_redirect: /new/"),
    "regex_redirect": AttributeDoc(
        "RE2 replacement in the path of the redirect.", "regex_redirect: {pattern: '^/old', substitution: /new}"
    ),
    "redirect_response_code": AttributeDoc("Status of the redirect.", "redirect_response_code: 308"),
}

POLICIES = {
    "timeout_ms": AttributeDoc(
        "Milliseconds for the whole exchange, all tries together; 0 is no limit.",
        "timeout_ms: 10000",
        default="the Module's, else 3000",
        differs="ends at the head of a `text/event-stream`",
    ),
    "idle_timeout_ms": AttributeDoc(
        "Milliseconds without a byte in either direction.", "idle_timeout_ms: 30000", default="none"
    ),
    "connect_timeout_ms": AttributeDoc(
        "Milliseconds for a connection; 0 is no limit.", "connect_timeout_ms: 500", default="3000"
    ),
    "cluster_idle_timeout_ms": AttributeDoc(
        "Milliseconds that an unused connection to the upstream is kept.",
        "cluster_idle_timeout_ms: 30000",
        default="the Module's",
    ),
    "cluster_max_connection_lifetime_ms": AttributeDoc(
        "Milliseconds after which a connection to the upstream takes no new request.",
        "cluster_max_connection_lifetime_ms: 600000",
        default="the Module's",
    ),
    "retry_policy": AttributeDoc(
        "When a failed try is repeated. `retry_on`: `5xx` and `gateway-error` (502, 503, 504) cover resets too,"
        " `connect-failure` only failed connections, `retriable-4xx` is 409. `num_retries`: 1. `per_try_timeout`: as"
        " `1.5s`. Every method is tried again, if its body can still be sent.",
        "retry_policy: {retry_on: gateway-error, num_retries: 2, per_try_timeout: 1.5s}",
        default="the Module's, else none",
        differs="belongs to its Mapping, not to the group",
    ),
    "circuit_breakers": AttributeDoc(
        "Limits for the service in each process; over one of them the answer is 503 with `x-envoy-overloaded: true`.",
        "circuit_breakers: [{max_connections: 100, max_pending_requests: 50, max_requests: 200, max_retries: 3}]",
        default="the Module's, else 1024, 1024, 1024 and 3",
        differs="does not keep a Mapping out of its group",
    ),
    "priority": AttributeDoc(
        "`high` picks the `circuit_breakers` of that priority.", "priority: high", default="`default`"
    ),
    "cors": AttributeDoc(
        "Preflights of an allowed origin are answered here, other answers to it are marked. Origins are exact or `*`; a"
        " text with commas will do in v0 to v2.",
        "cors: {origins: [https://shop.example.com], methods: [GET, POST], credentials: true, max_age: '600'}",
        default="the Module's, else none",
        differs="belongs to its Mapping, not to the group",
    ),
}

ENDPOINTS = {
    "load_balancer": AttributeDoc(
        "Which endpoint of the service is asked: `round_robin`, `least_request` (the less loaded of two), or by a hash"
        " of one of `cookie`, `header`, `source_ip` (`ring_hash`, `maglev`). A cookie with `ttl` is issued when it is"
        " missing; `0s` lasts as long as the browser. Without the cookie or header any endpoint is asked.",
        "load_balancer: {policy: ring_hash, cookie: {name: sticky, ttl: 60s}}",
        default="the Module's, else `round_robin`",
        differs="needs no `resolver`",
    ),
    "outlier_detection": AttributeDoc(
        "When an endpoint is left alone: after `consecutive_5xx` (5) failures, or `consecutive_gateway_failure` (none),"
        " in a row, for `base_ejection_time` (30s) times the number of its ejections, less one for each `interval`"
        " (10s) without, at most `max_ejection_time` (300s). `max_ejection_percent` (10) of the endpoints, but always"
        " one, may be. Lost and refused connections and timeouts are failures. With more than half of the endpoints"
        " not well, all are asked.",
        "outlier_detection: {consecutive_5xx: 3, base_ejection_time: 10s}",
        default="none",
        differs="has an effect, and does not drop the Mapping; success rates are not looked at",
    ),
    "health_checks": AttributeDoc(
        "What every endpoint is asked each `interval` (5s): `health_check: {http: {path, hostname, add_request_headers,"
        " remove_request_headers, expected_statuses}}`. A wrong answer, or `unhealthy_threshold` (2) missing ones"
        " within `timeout` (3s), keep requests away until `healthy_threshold` (1) right ones.",
        "health_checks: [{health_check: {http: {path: /health}}, interval: 2s}]",
        default="none",
        differs="gRPC checks have no effect yet",
    ),
}

META = {
    "ambassador_id": AttributeDoc(
        "Ids for which the Mapping is meant; the own one is `CANARY_MW_AMBASSADOR_ID`.",
        "ambassador_id: [default]",
        default="all",
    ),
    "docs": AttributeDoc(
        f"Where the service documents itself. {_HAS_NO_EFFECT}", "docs: {path: /openapi.json}", differs=_NONE_YET
    ),
    "stats_name": AttributeDoc(f"Name in statistics. {_HAS_NO_EFFECT}", "stats_name: shop", differs=_NONE_YET),
    "cluster_tag": AttributeDoc(f"Keeps clusters apart. {_HAS_NO_EFFECT}", "cluster_tag: blue", differs=_NONE_YET),
    "labels": AttributeDoc(
        f"Descriptors for rate limits. {_HAS_NO_EFFECT}",
        "labels: {ambassador: [{request: [{generic_key: {value: shop}}]}]}",
        differs=_NONE_YET,
    ),
    "v2ExplicitTLS": AttributeDoc("Written by Emissary's own conversion; ignored.", "v2ExplicitTLS: {tls: x}"),
    "v2BoolHeaders": AttributeDoc("Written by Emissary's own conversion; ignored.", "v2BoolHeaders: [gray]"),
    "v2BoolQueryParameters": AttributeDoc(
        "Written by Emissary's own conversion; ignored.", "v2BoolQueryParameters: [q]"
    ),
}

NOT_YET = {
    "resolver": AttributeDoc(
        "How endpoints are found: the name of a resolver that is defined. Has no effect yet, but must be known.",
        "resolver: kubernetes-endpoint",
        differs=_NONE_YET,
    ),
    "allow_upgrade": AttributeDoc(
        "Upgrades that are let through; others are answered 403. Only WebSockets are carried out.",
        "allow_upgrade: [websocket]",
        default="none",
        differs="belongs to its Mapping, not to the group; other upgrades are forwarded as plain requests",
    ),
    "use_websocket": AttributeDoc(
        "`true` is `allow_upgrade: [websocket]`.", "use_websocket: true", differs="`false` means no"
    ),
    "bypass_auth": AttributeDoc(f"Asks no AuthService. {_HAS_NO_EFFECT}", "bypass_auth: true", differs=_NONE_YET),
    "auth_context_extensions": AttributeDoc(
        f"Told to the AuthService. {_HAS_NO_EFFECT}", "auth_context_extensions: {team: shop}", differs=_NONE_YET
    ),
    "grpc": AttributeDoc(f"The upstream speaks gRPC. {_HAS_NO_EFFECT}", "grpc: true", differs=_NONE_YET),
    "keepalive": AttributeDoc(
        f"TCP keep-alive towards the upstream. {_HAS_NO_EFFECT}",
        "keepalive: {probes: 3, idle_time: 60, interval: 10}",
        differs=_NONE_YET,
    ),
    "error_response_overrides": AttributeDoc(
        f"Answers in place of errors. {_HAS_NO_EFFECT}",
        "error_response_overrides: []",
        differs="does not drop the Mapping; " + _NONE_YET,
    ),
    "bypass_error_response_overrides": AttributeDoc(
        f"Keeps the Module's overrides away. {_HAS_NO_EFFECT}",
        "bypass_error_response_overrides: true",
        differs=_NONE_YET,
    ),
    "dns_type": AttributeDoc(
        f"How the service is resolved. {_HAS_NO_EFFECT}", "dns_type: strict_dns", differs=_NONE_YET
    ),
    "enable_ipv4": AttributeDoc(f"Resolves to IPv4. {_HAS_NO_EFFECT}", "enable_ipv4: true", differs=_NONE_YET),
    "enable_ipv6": AttributeDoc(f"Resolves to IPv6. {_HAS_NO_EFFECT}", "enable_ipv6: true", differs=_NONE_YET),
    "respect_dns_ttl": AttributeDoc(
        f"Resolves again after the TTL. {_HAS_NO_EFFECT}", "respect_dns_ttl: true", differs=_NONE_YET
    ),
    "envoy_override": AttributeDoc("Raw Envoy configuration: ignored.", "envoy_override: {}", differs=_NONE_YET),
    "modules": AttributeDoc("Of old versions: ignored.", "modules: []", differs=_NONE_YET),
    "circuit_breaker": AttributeDoc("Of v0: ignored.", "circuit_breaker: {}", differs=_NONE_YET),
    "rate_limits": AttributeDoc("Of v0: ignored.", "rate_limits: []", differs=_NONE_YET),
    "headers_regex": AttributeDoc("Of v1, and never documented: ignored.", "headers_regex: {}"),
}

SECTIONS: dict[str, dict[str, AttributeDoc]] = {
    "Which requests it takes": MATCHING,
    "Where it sends them, and as what": FORWARDING,
    "Redirects": REDIRECTS,
    "Time, retries, limits, origins": POLICIES,
    "Endpoints of the service": ENDPOINTS,
    "About the Mapping itself": META,
    "Without effect so far": NOT_YET,
}
ATTRIBUTES: dict[str, AttributeDoc] = {name: text for section in SECTIONS.values() for name, text in section.items()}
