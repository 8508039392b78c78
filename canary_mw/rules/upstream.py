"""How an upstream is reached: origins, TLS, circuit breakers, load balancing, health checks."""

from typing import Literal, NamedTuple


class OutlierDetection(NamedTuple):
    """`outlier_detection`: when an endpoint is ejected, and for how long, with Envoy's defaults.

    Attributes:
        consecutive_5xx: failures in a row before an ejection, 0 for never; a lost or refused connection counts.
        consecutive_gateway_failure: the same for 502, 503 and 504 only.
        interval: seconds without ejection after which the number of ejections decreases by one.
        base_ejection_time: seconds, multiplied by the number of ejections.
        max_ejection_time: limit of the ejection time in seconds.
        max_ejection_percent: of the endpoints; one may always be ejected.
    """

    consecutive_5xx: int = 5
    consecutive_gateway_failure: int = 0
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 10


class HealthCheck(NamedTuple):
    """One of `health_checks`: the request to every endpoint, with Emissary's defaults.

    Attributes:
        host: value of the Host header, None for the authority of the endpoint.
        headers: additional headers; names in lower case.
        statuses: ranges of statuses of a healthy endpoint, both ends included.
        interval: seconds between two checks.
        timeout: seconds until the response.
    """

    path: bytes
    host: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    statuses: tuple[tuple[int, int], ...] = ((200, 200),)
    interval: float = 5.0
    timeout: float = 3.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 2


LoadBalancerPolicy = Literal["round_robin", "least_request", "ring_hash", "maglev"]


class Cookie(NamedTuple):
    """The cookie of a hashing load balancer: it keeps a client at its endpoint.

    Attributes:
        path: of Set-Cookie, empty for none.
        ttl: seconds, 0 for a session cookie, None if the cookie is only read and never set.
    """

    name: bytes
    path: bytes = b""
    ttl: float | None = None


class LoadBalancing(NamedTuple):
    """`load_balancer`; the hashing policies hash the first of cookie, header and source_ip that is set."""

    policy: LoadBalancerPolicy = "round_robin"
    cookie: Cookie | None = None
    header: bytes | None = None
    source_ip: bool = False


class KubernetesService(NamedTuple):
    """A Service of a cluster whose endpoints are asked for, in place of its address in DNS.

    Attributes:
        namespace: empty for that of this process.
        port: one of the Service, not of its pods.
    """

    name: str
    namespace: str
    port: int


class EndpointOptions(NamedTuple):
    """What a Mapping sets for the endpoints of its service; as in Envoy, different settings make different clusters.

    Attributes:
        kubernetes_service: for `resolver` with the name of a KubernetesEndpointResolver; None for DNS.
        consul_service: for `resolver` with the name of a ConsulResolver.
        grpc: requests are gRPC calls over HTTP/2: the body is the message, without its prefix.
    """

    load_balancer: LoadBalancing = LoadBalancing()
    outlier_detection: OutlierDetection | None = None
    health_checks: tuple[HealthCheck, ...] = ()
    kubernetes_service: KubernetesService | None = None
    consul_service: "ConsulService | None" = None
    grpc: bool = False


class UpstreamTLS(NamedTuple):
    """A TLSContext: the TLS of connections to an upstream, or of those that a port accepts.

    Its files are read when a connection is opened.

    Attributes:
        name: for the log.
        secret: `namespace/name`, or the absolute path of a directory; None for no client certificate.
        ca_secret: the same for the CA certificates only; None for those in `secret`.
        sni: server name, which the certificate must hold; None for the host of the service.
        min_version: "v1.2" or "v1.3", None for v1.2.
        max_version: "v1.2" or "v1.3", None for the newest.
        hosts: names that a port is called by where this is its certificate.
        cert_required: whether a client of such a port needs a certificate.
    """

    name: str
    secret: str | None = None
    ca_secret: str | None = None
    sni: str | None = None
    min_version: str | None = None
    max_version: str | None = None
    hosts: tuple[str, ...] = ()
    cert_required: bool = False


class Origin(NamedTuple):
    """Where a connection leads, and the key of its connection pool.

    Attributes:
        host: a name or an address, which TLS verifies.
        address: a resolved address of the host; None: the system resolves it for each connection.
        tls: None for the system's CA certificates and no client certificate.
    """

    scheme: str
    host: str
    port: int
    address: str | None = None
    tls: UpstreamTLS | None = None

    @property
    def authority(self) -> str:
        """host:port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """address:port, or host:port where the address is not known."""
        return f"{self.address or self.host}:{self.port}"


class ConsulAgent(NamedTuple):
    """Where a ConsulResolver asks.

    Attributes:
        address: scheme, host and port; the scheme is empty where the document names none.
    """

    address: Origin
    datacenter: str


class ConsulService(NamedTuple):
    """A service of a Consul catalog whose passing instances are asked for, in place of an address in DNS."""

    agent: ConsulAgent
    name: str


class CircuitBreakers(NamedTuple):
    """Limits of one service in one process (`circuit_breakers`), with Envoy's defaults."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3


class UpstreamOptions(NamedTuple):
    """What a Mapping sets for connections and attempts to its upstream; made once per reload.

    Attributes:
        per_try_timeout: seconds for one attempt, None for the rest of the timeout.
        idle_timeout: seconds without a byte in either direction, None for no limit.
        keepalive_expiry: seconds that an idle connection is kept, None for the client's default.
        max_connection_lifetime: seconds after which a connection gets no new request, None for no limit.
        endpoints: load balancing and health of the endpoints, None for round robin.
        tls: the TLSContext that the Mapping names.
    """

    per_try_timeout: float | None = None
    idle_timeout: float | None = None
    keepalive_expiry: float | None = None
    max_connection_lifetime: float | None = None
    circuit_breakers: CircuitBreakers | None = None
    endpoints: EndpointOptions | None = None
    tls: UpstreamTLS | None = None


DEFAULT_OPTIONS = UpstreamOptions()
