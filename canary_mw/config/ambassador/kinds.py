"""The kinds without effect yet: what they cannot do without (Emissary's CRDs)."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "AuthService": ("auth_service",),
    "ConsulResolver": ("address", "datacenter"),
    "DevPortal": (),
    "Host": ("hostname",),
    "KubernetesEndpointResolver": (),
    "KubernetesServiceResolver": (),
    "Listener": ("port", "securityModel", "hostBinding"),
    "LogService": ("service", "driver"),
    "RateLimitService": ("service",),
    "TCPMapping": ("port", "service"),
    "TracingService": ("driver", "service"),
}
RESOLVER_KINDS = frozenset(("ConsulResolver", "KubernetesEndpointResolver", "KubernetesServiceResolver"))
# Those that Emissary brings along.
RESOLVERS = frozenset(("kubernetes-service", "kubernetes-endpoint"))
