"""The kinds without effect yet, and the attributes that each requires (Emissary's CRDs, and its compiler).

What Emissary runs is no error here: a Host without hostname is one for `*`.
"""

REQUIRED: dict[str, tuple[str, ...]] = {
    "DevPortal": (),
    "Host": (),
    "Listener": ("port", "securityModel", "hostBinding"),
}
# Kinds of Edge Stack in the same API group, in versions of their own.
EDGE_STACK_KINDS = frozenset(
    ("AmbassadorInstallation", "Filter", "FilterPolicy", "Project", "ProjectController", "ProjectRevision", "RateLimit")
)
# The resolver by whose name a Mapping asks for the endpoints of a Service, in place of its address in DNS.
ENDPOINT_RESOLVER = "KubernetesEndpointResolver"
KUBERNETES_RESOLVERS = (ENDPOINT_RESOLVER, "KubernetesServiceResolver")
CONSUL_RESOLVER = "ConsulResolver"
RESOLVER_KINDS = frozenset((CONSUL_RESOLVER, *KUBERNETES_RESOLVERS))
FILTER_KINDS = ("AuthService", "RateLimitService")
# What is said of them.
INSTEAD = {
    "DevPortal": "there is no developer portal here",
    "Host": "host names and TLS of the way in are those of your Ingress or Gateway, or of `--ssl-certfile`",
    "Listener": "the port is that of `--port`, or of the server of an app",
}
EFFECTIVE_KINDS = (
    *("Mapping", "Module", "TLSContext", "TCPMapping", "LogService", "TracingService"),
    *(*FILTER_KINDS, CONSUL_RESOLVER, *KUBERNETES_RESOLVERS),
)
KNOWN_KINDS = (*REQUIRED, *EDGE_STACK_KINDS, *EFFECTIVE_KINDS)
