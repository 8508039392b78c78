"""Descriptions of the traffic and endpoint policies of a Mapping; `mapping.py` has the other attributes."""

from canary_mw.config.reference.attribute_doc import AttributeDoc

POLICIES = {
    "timeout_ms": AttributeDoc(
        "Milliseconds for the whole exchange with all attempts; 0 is no limit. In a middleware the default counts from"
        " the last byte of the request body, and ends at the response head.",
        "timeout_ms: 10000",
        default="the Module's, else 3000",
        differs="does not apply after the response head of a `text/event-stream`; the default of a middleware",
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
        "When a failed attempt is retried. `retry_on`: `5xx` and `gateway-error` (502, 503, 504) cover resets too,"
        " `connect-failure` only failed connections, `retriable-4xx` is 409. `num_retries`: 1. `per_try_timeout`: as"
        " `1.5s`. Requests of every method are retried, if the body can be sent again.",
        "retry_policy: {retry_on: gateway-error, num_retries: 2, per_try_timeout: 1.5s}",
        default="the Module's, else none",
        differs="belongs to its Mapping, not to the group",
    ),
    "circuit_breakers": AttributeDoc(
        "Limits for the service in each process; over one of them the response is 503 with `x-envoy-overloaded: true`.",
        "circuit_breakers: [{max_connections: 100, max_pending_requests: 50, max_requests: 200, max_retries: 3}]",
        default="the Module's, else 1024, 1024, 1024 and 3",
        differs="does not exclude a Mapping from its group",
    ),
    "priority": AttributeDoc(
        "`high` selects the `circuit_breakers` of that priority.", "priority: high", default="`default`"
    ),
    "cors": AttributeDoc(
        "Preflights of an allowed origin are answered here; other responses to it get the CORS headers. Origins are"
        " exact or `*`; v0 to v2 accept a text with commas.",
        "cors: {origins: [https://shop.example.com], methods: [GET, POST], credentials: true, max_age: '600'}",
        default="the Module's, else none",
        differs="belongs to its Mapping, not to the group",
    ),
}

ENDPOINTS = {
    "resolver": AttributeDoc(
        "How endpoints are found: the name of a resolver. `kubernetes-service` looks the name of the service up by DNS."
        " `endpoint`, or `kubernetes-endpoint`, or a KubernetesEndpointResolver of the rules: requests go to the pods"
        " that the [EndpointSlices](kubernetes.md#endpoints-of-services) of the Service name. A ConsulResolver: to the"
        " [passing instances in Consul](kubernetes.md#endpoints-in-consul); `service` is a name there.",
        "resolver: endpoint",
        default="the Module's, else `kubernetes-service`",
        differs="a Service or port that the cluster does not know is looked up by DNS",
    ),
    "load_balancer": AttributeDoc(
        "How an endpoint of the service is selected: `round_robin`, `least_request` (the less loaded of two), or by"
        " hash of one of `cookie`, `header`, `source_ip` (`ring_hash`, `maglev`). A missing cookie with `ttl` is set in"
        " the response; `0s` is a session cookie. Without the cookie or header any endpoint is selected.",
        "load_balancer: {policy: ring_hash, cookie: {name: sticky, ttl: 60s}}",
        default="the Module's, else `round_robin`",
        differs="needs no `resolver`",
    ),
    "outlier_detection": AttributeDoc(
        "When an endpoint is ejected: after `consecutive_5xx` (5) failures, or `consecutive_gateway_failure` (none),"
        " in a row, for `base_ejection_time` (30s) times the number of its ejections, less one for each `interval`"
        " (10s) without one, at most `max_ejection_time` (300s). At most `max_ejection_percent` (10) of the endpoints,"
        " but always one, may be ejected. Lost and refused connections and timeouts are failures. With more than half"
        " of the endpoints unhealthy, all are used.",
        "outlier_detection: {consecutive_5xx: 3, base_ejection_time: 10s}",
        default="none",
        differs="has an effect, and does not drop the Mapping; success rates are not evaluated",
    ),
    "health_checks": AttributeDoc(
        "Request to every endpoint each `interval` (5s): `health_check: {http: {path, hostname, add_request_headers,"
        " remove_request_headers, expected_statuses}}`. An unexpected status, or no response within `timeout` (3s)"
        " `unhealthy_threshold` (2) times, makes it unhealthy until `healthy_threshold` (1) expected ones.",
        "health_checks: [{health_check: {http: {path: /health}}, interval: 2s}]",
        default="none",
        differs="gRPC checks have no effect yet",
    ),
    "v3health_checks": AttributeDoc(
        "`health_checks`, written by Emissary's own conversion.",
        "v3health_checks: [{health_check: {http: {path: /health}}}]",
        default="none",
    ),
}
