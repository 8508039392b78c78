"""The kinds without effect yet, and the attributes that each requires (Emissary's CRDs, and its compiler).

What Emissary runs is no error here: a Host without hostname is one for `*`, a ConsulResolver has a default address.
"""

REQUIRED: dict[str, tuple[str, ...]] = {
    "AuthService": ("auth_service",),
    "ConsulResolver": ("datacenter",),
    "DevPortal": (),
    "Host": (),
    "KubernetesEndpointResolver": (),
    "KubernetesServiceResolver": (),
    "Listener": ("port", "securityModel", "hostBinding"),
    "LogService": ("service",),
    "RateLimitService": ("service",),
    "TCPMapping": ("port", "service"),
    "TracingService": ("driver", "service"),
}
# Kinds of Edge Stack in the same API group, in versions of their own.
EDGE_STACK_KINDS = frozenset(
    ("AmbassadorInstallation", "Filter", "FilterPolicy", "Project", "ProjectController", "ProjectRevision", "RateLimit")
)
RESOLVER_KINDS = frozenset(("ConsulResolver", "KubernetesEndpointResolver", "KubernetesServiceResolver"))
# Resolvers that exist in Emissary without a document.
RESOLVERS = frozenset(("kubernetes-service", "kubernetes-endpoint"))
