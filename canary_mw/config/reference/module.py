"""Descriptions of the keys of the Module `ambassador`, for the reference page and for editors."""

from canary_mw.config.reference.attribute_doc import AttributeDoc

_OF_MAPPINGS = "of every Mapping without one"

KEYS: dict[str, AttributeDoc] = {
    "cluster_request_timeout_ms": AttributeDoc(f"`timeout_ms` {_OF_MAPPINGS}.", "cluster_request_timeout_ms: 10000"),
    "cluster_idle_timeout_ms": AttributeDoc(
        f"`cluster_idle_timeout_ms` {_OF_MAPPINGS}.", "cluster_idle_timeout_ms: 30000"
    ),
    "cluster_max_connection_lifetime_ms": AttributeDoc(
        f"`cluster_max_connection_lifetime_ms` {_OF_MAPPINGS}.", "cluster_max_connection_lifetime_ms: 600000"
    ),
    "cors": AttributeDoc(
        f"`cors` {_OF_MAPPINGS}.",
        "cors: {origins: [https://shop.example.com]}",
        differs="origins are a list; a text is an error, where Emissary takes it letter by letter",
    ),
    "retry_policy": AttributeDoc(f"`retry_policy` {_OF_MAPPINGS}.", "retry_policy: {retry_on: gateway-error}"),
    "circuit_breakers": AttributeDoc(f"`circuit_breakers` {_OF_MAPPINGS}.", "circuit_breakers: [{max_requests: 200}]"),
    "add_linkerd_headers": AttributeDoc(f"`add_linkerd_headers` {_OF_MAPPINGS}.", "add_linkerd_headers: true"),
    "defaults": AttributeDoc(
        "`add_request_headers`, `add_response_headers`, `remove_request_headers`, `remove_response_headers` and"
        f" `stats_name` {_OF_MAPPINGS}, here or below `httpmapping`; an own value, even `{{}}`, replaces them.",
        "defaults: {httpmapping: {remove_response_headers: [server]}}",
        default="none",
    ),
    "regex_max_size": AttributeDoc("Instructions that a regex of a rule may compile to.", "regex_max_size: 500"),
    "strip_matching_host_port": AttributeDoc(
        "The port of the Host is removed if it is the port of the listener.", "strip_matching_host_port: true"
    ),
    "merge_slashes": AttributeDoc("`//` in a path becomes `/` before matching.", "merge_slashes: true"),
    "reject_requests_with_escaped_slashes": AttributeDoc(
        "A path with `%2F` or `%5C` gets the response 400.", "reject_requests_with_escaped_slashes: true"
    ),
    "headers_with_underscores_action": AttributeDoc(
        "Headers with `_` in their names are allowed, dropped, or their requests rejected (400).",
        "headers_with_underscores_action: DROP_HEADER",
    ),
    "max_request_headers_kb": AttributeDoc(
        "A request head over this size in KiB gets the response 431.",
        "max_request_headers_kb: 16",
        default="the server's own limit",
    ),
    "preserve_external_request_id": AttributeDoc(
        "`false`: the `x-request-id` of a client is replaced.",
        "preserve_external_request_id: false",
        differs="true is the default",
    ),
    "xff_num_trusted_hops": AttributeDoc(
        "Number of proxies in front whose `X-Forwarded-*` headers are trusted.", "xff_num_trusted_hops: 1"
    ),
    "server_name": AttributeDoc(
        "Value of `server` in all responses, except those that reject a request before matching.",
        "server_name: edge",
        default="the upstream's",
        differs="without it, Emissary sends `envoy`; in a middleware, the name that the server adds stays",
    ),
    "ip_allow": AttributeDoc(
        "Only these peers are allowed; others get the response 403.",
        "ip_allow: [{peer: 10.0.0.0/8}]",
        default="all peers",
    ),
    "ip_deny": AttributeDoc("These peers get the response 403.", "ip_deny: [{peer: 192.0.2.7}]", default="no peers"),
    "load_balancer": AttributeDoc(f"`load_balancer` {_OF_MAPPINGS}.", "load_balancer: {policy: round_robin}"),
    "resolver": AttributeDoc(f"`resolver` {_OF_MAPPINGS}.", "resolver: kubernetes-endpoint"),
    "default_label_domain": AttributeDoc(
        "The domain of a RateLimitService that names none.", "default_label_domain: shop", default="`ambassador`"
    ),
    "default_labels": AttributeDoc(
        "Labels before those of each group of a Mapping; where it has none, they make a group.",
        "default_labels: {ambassador: {defaults: [{remote_address: {key: remote_address}}]}}",
    ),
    "keepalive": AttributeDoc(f"`keepalive` {_OF_MAPPINGS}. Has no effect yet.", "keepalive: {probes: 3}"),
}
