"""Descriptions of the attributes of TCPMapping, LogService, TracingService and ConsulResolver."""

from canary_mw.config.reference.attribute_doc import AttributeDoc

_NO_EFFECT = "Has no effect, and a notice says so."
_NONE = "no effect"
_OF_CONVERSION = "Written by Emissary's own conversion; "
_ID = AttributeDoc("As in a Mapping.", "ambassador_id: [default]", default="all")
_STATS = AttributeDoc(_NO_EFFECT, "stats_name: broker", differs=_NONE)

TCP_MAPPING_ATTRIBUTES: dict[str, AttributeDoc] = {
    "port": AttributeDoc("The port that is opened.", "port: 5672", differs="needs no Listener"),
    "service": AttributeDoc(
        "Where connections lead: `[https://]name[.namespace]:port`. `https://` speaks TLS to it.",
        "service: broker:5672",
        differs="a certificate is always verified",
    ),
    "host": AttributeDoc(
        "Server name (SNI) of the connections that are meant, exact or `*.example.com`. Their TLS ends here, by the"
        " certificate of the TLSContext whose `hosts` has the name.",
        "host: db.example.com",
        default="every connection",
        differs="`*.` covers names in `hosts`; connections with another name go to the document without `host`, if any",
    ),
    "address": AttributeDoc("The address that is opened.", "address: 127.0.0.1", default="`0.0.0.0`"),
    "weight": AttributeDoc(
        "Percent of the connections of the same address, port and host; those without one share the remainder.",
        "weight: 10",
        default="a share of the remainder",
        differs="counts as it is written; Emissary hands Envoy running sums",
    ),
    "idle_timeout_ms": AttributeDoc(
        "Milliseconds without a byte in either direction; 0 for no limit.",
        'idle_timeout_ms: "30000"',
        default="one hour",
        differs="works; a number is accepted, too",
    ),
    "connect_timeout_ms": AttributeDoc(
        "Milliseconds for a connection to the service.", "connect_timeout_ms: 500", default="3000"
    ),
    "circuit_breakers": AttributeDoc(
        "`max_connections` to the service in each process; one more is closed at once.",
        "circuit_breakers: [{max_connections: 100}]",
        default="none",
    ),
    "tls": AttributeDoc(
        "`true` means `https://` for the service; a text means the same, with the TLSContext of this name.",
        "tls: upstream-context",
    ),
    "resolver": AttributeDoc(
        "As in a Mapping.", "resolver: endpoint", default="that of the Module, else `kubernetes-service`"
    ),
    "enable_ipv4": AttributeDoc(_NO_EFFECT, "enable_ipv4: true", differs=_NONE),
    "enable_ipv6": AttributeDoc(_NO_EFFECT, "enable_ipv6: false", differs=_NONE),
    "cluster_tag": AttributeDoc(_NO_EFFECT, "cluster_tag: canary", differs=_NONE),
    "stats_name": _STATS,
    "ambassador_id": _ID,
}

LOG_SERVICE_ATTRIBUTES: dict[str, AttributeDoc] = {
    "service": AttributeDoc("The service that is told by gRPC, as `service` of a Mapping.", "service: als:3000"),
    "driver": AttributeDoc(
        "`http` tells of requests as such, `tcp` of their connections.",
        "driver: http",
        differs="needs the extra `grpc`",
    ),
    "driver_config": AttributeDoc(
        "`additional_log_headers`, for driver `http`: headers that an entry carries besides the common fields.",
        "driver_config: {additional_log_headers: [{header_name: x-user, during_trailer: false}]}",
        default="`{}`",
        differs="may be missing; no trailer is told",
    ),
    "flush_interval_time": AttributeDoc("Seconds after which entries are sent.", "flush_interval_time: 1"),
    "flush_interval_byte_size": AttributeDoc(
        "Bytes of entries after which they are sent sooner.", "flush_interval_byte_size: 16384"
    ),
    "grpc": AttributeDoc("gRPC is always spoken.", "grpc: true", differs="no effect; Emissary needs `true`"),
    "protocol_version": AttributeDoc(
        "Only v3 exists.", "protocol_version: v3", default="`v3`", differs="`v3` where it is missing, with a notice"
    ),
    "v3ProtocolVersion": AttributeDoc(_OF_CONVERSION + "`protocol_version`.", "v3ProtocolVersion: v3"),
    "stats_name": _STATS,
    "v3StatsName": AttributeDoc(_OF_CONVERSION + "has no effect.", "v3StatsName: als", differs=_NONE),
    "ambassador_id": _ID,
}

TRACING_SERVICE_ATTRIBUTES: dict[str, AttributeDoc] = {
    "service": AttributeDoc("The collector of spans, as `service` of a Mapping.", "service: zipkin:9411"),
    "driver": AttributeDoc(
        "`zipkin` sends JSON of version 2, `opentelemetry` OTLP over gRPC, with the extra `grpc`.",
        "driver: zipkin",
        differs="`datadog` is a warning: its Agent takes OTLP; spans go to the SDK that an app has set up",
    ),
    "sampling": AttributeDoc(
        "Percents: `client` of requests with `x-client-trace-id`, `random` of all others, `overall` of what these"
        " leave. What a request has brought wins over them.",
        "sampling: {client: 100, random: 10, overall: 100}",
        default="100 each",
    ),
    "custom_tags": AttributeDoc(
        "Tags of all spans: `tag`, and one of `literal: {value}`, `environment` and `request_header: {name,"
        " default_value}`.",
        "custom_tags: [{tag: tenant, request_header: {name: x-tenant}}]",
        default="none",
    ),
    "v3CustomTags": AttributeDoc(_OF_CONVERSION + "`custom_tags`.", "v3CustomTags: [{tag: a, literal: {value: b}}]"),
    "tag_headers": AttributeDoc(
        "Names of request headers that are tags; ignored beside `custom_tags`. Of v1 and v2.",
        "tag_headers: [x-tenant]",
        default="none",
    ),
    "config": AttributeDoc(
        "`propagation_modes` (`B3`, `TRACE_CONTEXT`) and `service_name`; for `zipkin` also `collector_endpoint`,"
        " `collector_hostname` and `trace_id_128bit`.",
        "config: {service_name: front, propagation_modes: [B3, TRACE_CONTEXT]}",
        default="by the driver",
        differs="`service_name` and `propagation_modes` work with both drivers; `shared_span_context` and"
        " `collector_endpoint_version` have no effect, and a notice says so",
    ),
    "stats_name": _STATS,
    "v3StatsName": AttributeDoc(_OF_CONVERSION + "has no effect.", "v3StatsName: tracing", differs=_NONE),
    "ambassador_id": _ID,
}

CONSUL_RESOLVER_ATTRIBUTES: dict[str, AttributeDoc] = {
    "address": AttributeDoc(
        "The Consul agent: `host:port`, `http://host:port` or `https://host:port`; `${NAME}` is a variable of the"
        " environment.",
        "address: consul.example.com:8500",
        default="`127.0.0.1:8500`",
        differs="`CONSUL_HTTP_TOKEN`, `_TOKEN_FILE`, `_SSL` and `CONSUL_CACERT` count",
    ),
    "datacenter": AttributeDoc(
        "The datacenter whose services are meant.",
        "datacenter: dc1",
        default="required",
        differs="two datacenters with a service of one name do not mix",
    ),
    "ambassador_id": _ID,
}
