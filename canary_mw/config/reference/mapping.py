"""Descriptions of the attributes of a Mapping, for the reference page and for editors."""

from canary_mw.config.reference.attribute_doc import AttributeDoc
from canary_mw.config.reference.policies import ENDPOINTS, POLICIES

_NO_EFFECT_DIFFERENCE = "no effect yet: read, shown by `explain`, and a notice says so"
_HAS_NO_EFFECT = "Has no effect yet."

MATCHING = {
    "prefix": AttributeDoc(
        "Text that the path begins with, byte for byte: `/svc` matches `/svcfoo` too.", "prefix: /shop/"
    ),
    "prefix_exact": AttributeDoc("`prefix` is the whole path.", "prefix_exact: true"),
    "prefix_regex": AttributeDoc(
        "`prefix` is an RE2 regex of the whole path; it overrides `prefix_exact`.",
        "prefix_regex: true",
        differs="the kind of prefix is part of the identity of a group; exact comes before plain before regex",
    ),
    "case_sensitive": AttributeDoc("`false`: a plain or exact prefix compares without case.", "case_sensitive: false"),
    "hostname": AttributeDoc(
        "Host of the request (v3alpha1): `*`, exact, `*suffix` or `prefix*`; it overrides `host`.",
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
    "method": AttributeDoc("Method of the request; case-sensitive.", "method: GET", default="any"),
    "method_regex": AttributeDoc("`method` is an RE2 regex of the whole method.", "method_regex: true"),
    "headers": AttributeDoc(
        "Headers that must all be present with these values; for a repeated one, any value is enough. In v0 to v2"
        " `true` without quotes requires only its presence, with any value, and `false` requires nothing.",
        'headers: {gray: "true"}',
    ),
    "regex_headers": AttributeDoc("The same with RE2 regexes of the whole value.", 'regex_headers: {x-user: "qa-.*"}'),
    "query_parameters": AttributeDoc(
        "Query parameters that must all be present, compared undecoded; for a repeated one, the first value counts.",
        'query_parameters: {version: "2"}',
        differs="checked for redirects too",
    ),
    "regex_query_parameters": AttributeDoc(
        "The same with RE2 regexes of the whole value.", 'regex_query_parameters: {version: "[23]"}'
    ),
    "precedence": AttributeDoc("First sort key of the order of groups, larger first.", "precedence: 10"),
    "weight": AttributeDoc(
        "Percent of its group, 0 to 100; Mappings without one share the remainder. For a shadow: percent of requests"
        " that are copied. Another number, or more than 100 in a group, is an error: after an edit the shares stay as"
        " they were; at the first load the number counts as 0 beside others, and the sum is cut at 100.",
        "weight: 20",
        default="a share of the remainder; 100 for a shadow",
        differs="a remainder without a Mapping goes to the group again, not to 404; in a middleware to the wrapped app;"
        " a mistake takes nobody out of service",
    ),
}

FORWARDING = {
    "service": AttributeDoc(
        "Where requests go: `[http://|https://]name[.namespace][:port]`.", "service: shop-gray:8080"
    ),
    "tls": AttributeDoc(
        "`true` (v0 to v2) means `https://` for the service; a text means the same, with the TLSContext of this name.",
        "tls: upstream-context",
        differs="a Mapping with an unknown TLSContext is in error; Emissary sends without it, in clear text too",
    ),
    "rewrite": AttributeDoc(
        'Replaces the matched prefix; `""` leaves the path unchanged. With `prefix_regex` it replaces the whole path.',
        'rewrite: ""',
        default="`/`",
        differs="a rewrite that yields a dot segment gets the response 400",
    ),
    "regex_rewrite": AttributeDoc(
        "RE2 replacement in the path, with `\\1` for groups; it overrides `rewrite`.",
        "regex_rewrite: {pattern: '/svc/(.*)', substitution: '/\\1'}",
        differs="belongs to its Mapping, not to the group",
    ),
    "host_rewrite": AttributeDoc(
        "Host of the request to the upstream.", "host_rewrite: shop.internal", default="the client's"
    ),
    "auto_host_rewrite": AttributeDoc(
        "The Host for the upstream is the name of the service.", "auto_host_rewrite: true"
    ),
    "add_request_headers": AttributeDoc(
        "Headers to add; `append: false` replaces. Values may hold `%REQ(name?other):length%`, `%PROTOCOL%`,"
        " `%DOWNSTREAM_REMOTE_ADDRESS%`, `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`, `%START_TIME(%s)%`; `%%` is a"
        " percent sign. A header whose operators give no value is not added. v0 to v2 accept plain texts too.",
        'add_request_headers: {x-gray: {value: "1", append: false}}',
        default="none",
        differs="belongs to its Mapping, not to the group; with an invalid value only its Mapping is in error",
    ),
    "remove_request_headers": AttributeDoc(
        "Headers to remove, before any is added.",
        "remove_request_headers: [x-debug]",
        default="none",
        differs="belongs to its Mapping, not to the group",
    ),
    "add_response_headers": AttributeDoc(
        "The same for responses, with `%RESP(name)%` and `%RESPONSE_CODE%` in addition.",
        "add_response_headers: {x-version: {value: gray}}",
        default="none",
        differs="as `add_request_headers`",
    ),
    "remove_response_headers": AttributeDoc(
        "Headers to remove from responses.",
        "remove_response_headers: [server]",
        default="none",
        differs="belongs to its Mapping, not to the group",
    ),
    "add_linkerd_headers": AttributeDoc(
        "Adds `l5d-dst-override: host:port`.", "add_linkerd_headers: true", default="the Module's"
    ),
    "shadow": AttributeDoc(
        "Gets copies of the requests of its group, with `-shadow` appended to the Host and with `x-shadow: true`; its"
        " responses are discarded.",
        "shadow: true",
        differs="GET, HEAD and OPTIONS only, unless `metadata_labels: {shadow_writes: allow}` or"
        " `CANARY_MW_SHADOW_WRITES` lets writes be copied",
    ),
}

REDIRECTS = {
    "host_redirect": AttributeDoc(
        "The response is a redirect to the host that `service` names; it applies to the whole group.",
        "host_redirect: true",
        differs="query parameters and `host_regex` count",
    ),
    "path_redirect": AttributeDoc("Path of the redirect; it overrides the next two.", "path_redirect: /moved"),
    "prefix_redirect": AttributeDoc("Replaces the matched prefix in the redirect.", "prefix_redirect: /new/"),
    "regex_redirect": AttributeDoc(
        "RE2 replacement in the path of the redirect.", "regex_redirect: {pattern: '^/old', substitution: /new}"
    ),
    "redirect_response_code": AttributeDoc("Status of the redirect.", "redirect_response_code: 308"),
}

META = {
    "ambassador_id": AttributeDoc(
        "Ids that the Mapping is meant for; `CANARY_MW_AMBASSADOR_ID` is the id of the process.",
        "ambassador_id: [default]",
        default="all",
        differs="without it a Mapping is meant for every id, not only for `default`; one for another id gets a notice",
    ),
    "docs": AttributeDoc(
        f"Location of the API documentation of the service. {_HAS_NO_EFFECT}",
        "docs: {path: /openapi.json}",
        differs=_NO_EFFECT_DIFFERENCE,
    ),
    "stats_name": AttributeDoc(
        f"Name in statistics. {_HAS_NO_EFFECT}", "stats_name: shop", differs=_NO_EFFECT_DIFFERENCE
    ),
    "cluster_tag": AttributeDoc(
        f"Separates clusters. {_HAS_NO_EFFECT}", "cluster_tag: blue", differs=_NO_EFFECT_DIFFERENCE
    ),
    "labels": AttributeDoc(
        "What a RateLimitService counts, by domain; each group is one descriptor.",
        "labels: {ambassador: [{request: [{generic_key: {value: shop}}]}]}",
        differs="a label in error leaves out its descriptor alone; labels are each Mapping's own",
    ),
    "v3StatsName": AttributeDoc("`stats_name`, written by Emissary's own conversion; ignored.", "v3StatsName: shop"),
    "v2ExplicitTLS": AttributeDoc("Written by Emissary's own conversion; ignored.", "v2ExplicitTLS: {tls: x}"),
    "v2BoolHeaders": AttributeDoc("Written by Emissary's own conversion; ignored.", "v2BoolHeaders: [gray]"),
    "v2BoolQueryParameters": AttributeDoc(
        "Written by Emissary's own conversion; ignored.", "v2BoolQueryParameters: [q]"
    ),
}

NOT_YET = {
    "allow_upgrade": AttributeDoc(
        "Allowed upgrades; others get the response 403. Only WebSockets are supported.",
        "allow_upgrade: [websocket]",
        default="none; in a middleware, all",
        differs="belongs to its Mapping, not to the group; a middleware allows what the Mapping does not forbid; other"
        " upgrades are forwarded as plain requests",
    ),
    "use_websocket": AttributeDoc(
        "`true` is `allow_upgrade: [websocket]`, `false` forbids WebSockets.",
        "use_websocket: false",
        default="`false`; in a middleware, `true`",
        differs="`false` means no; a middleware needs no `true`",
    ),
    "bypass_auth": AttributeDoc(
        "The AuthService is not asked about its requests.",
        "bypass_auth: true",
        differs="not where a header that only the service may give would lead to it",
    ),
    "auth_context_extensions": AttributeDoc(
        "Told to an AuthService that is asked over gRPC, as `context_extensions`.",
        "auth_context_extensions: {team: shop}",
    ),
    "grpc": AttributeDoc(f"The upstream speaks gRPC. {_HAS_NO_EFFECT}", "grpc: true", differs=_NO_EFFECT_DIFFERENCE),
    "keepalive": AttributeDoc(
        f"TCP keep-alive towards the upstream. {_HAS_NO_EFFECT}",
        "keepalive: {probes: 3, idle_time: 60, interval: 10}",
        differs=_NO_EFFECT_DIFFERENCE,
    ),
    "error_response_overrides": AttributeDoc(
        f"Responses in place of errors. {_HAS_NO_EFFECT}",
        "error_response_overrides: []",
        differs="does not drop the Mapping; " + _NO_EFFECT_DIFFERENCE,
    ),
    "bypass_error_response_overrides": AttributeDoc(
        f"Disables the Module's overrides. {_HAS_NO_EFFECT}",
        "bypass_error_response_overrides: true",
        differs=_NO_EFFECT_DIFFERENCE,
    ),
    "dns_type": AttributeDoc(
        f"How the service is resolved. {_HAS_NO_EFFECT}", "dns_type: strict_dns", differs=_NO_EFFECT_DIFFERENCE
    ),
    "enable_ipv4": AttributeDoc(
        f"Resolves to IPv4. {_HAS_NO_EFFECT}", "enable_ipv4: true", differs=_NO_EFFECT_DIFFERENCE
    ),
    "enable_ipv6": AttributeDoc(
        f"Resolves to IPv6. {_HAS_NO_EFFECT}", "enable_ipv6: true", differs=_NO_EFFECT_DIFFERENCE
    ),
    "respect_dns_ttl": AttributeDoc(
        f"Resolves again after the TTL. {_HAS_NO_EFFECT}", "respect_dns_ttl: true", differs=_NO_EFFECT_DIFFERENCE
    ),
    "envoy_override": AttributeDoc(
        "Raw Envoy configuration: ignored.", "envoy_override: {}", differs=_NO_EFFECT_DIFFERENCE
    ),
    "modules": AttributeDoc("From old versions: ignored.", "modules: []", differs=_NO_EFFECT_DIFFERENCE),
    "circuit_breaker": AttributeDoc("From v0: ignored.", "circuit_breaker: {}", differs=_NO_EFFECT_DIFFERENCE),
    "rate_limits": AttributeDoc("Labels of v0, in the default domain.", "rate_limits: [{descriptor: shop}]"),
    "headers_regex": AttributeDoc("From v1, and never documented: ignored.", "headers_regex: {}"),
}

SECTIONS: dict[str, dict[str, AttributeDoc]] = {
    "Matching": MATCHING,
    "Forwarding": FORWARDING,
    "Redirects": REDIRECTS,
    "Timeouts, retries, limits, CORS": POLICIES,
    "Endpoints of the service": ENDPOINTS,
    "Metadata": META,
    "Without effect so far": NOT_YET,
}
ATTRIBUTES: dict[str, AttributeDoc] = {name: text for section in SECTIONS.values() for name, text in section.items()}
