"""The kinds without effect yet, and the attributes that each requires (Emissary's CRDs)."""

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
# Resolvers that exist in Emissary without a document.
RESOLVERS = frozenset(("kubernetes-service", "kubernetes-endpoint"))
