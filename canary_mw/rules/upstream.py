"""What a rule asks of the way to its upstream: origins, TLS, limits, balancing, health checks."""

from typing import Literal, NamedTuple


class OutlierDetection(NamedTuple):
    """`outlier_detection`: when an endpoint is left alone for a while, with Envoy's defaults.

    Attributes:
        consecutive_5xx: failures in a row that eject, 0 for never; a lost or refused connection is one.
        consecutive_gateway_failure: the same for 502, 503 and 504 alone.
        interval: seconds without ejection that make up for one earlier ejection.
        base_ejection_time: seconds, times the number of ejections.
        max_ejection_time: seconds at most.
        max_ejection_percent: of the endpoints; one may always be ejected.
    """

    consecutive_5xx: int = 5
    consecutive_gateway_failure: int = 0
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 10


class HealthCheck(NamedTuple):
    """One of `health_checks`: what is asked of every endpoint, with Emissary's defaults.

    Attributes:
        host: for the Host header, None for the authority of the endpoint.
        headers: further ones, lower-case names.
        statuses: ranges of good ones, both ends included.
        interval: seconds between two rounds.
        timeout: seconds for an answer.
    """

    path: bytes
    host: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    statuses: tuple[tuple[int, int], ...] = ((200, 200),)
    interval: float = 5.0
    timeout: float = 3.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 2


Policy = Literal["round_robin", "least_request", "ring_hash", "maglev"]


class Cookie(NamedTuple):
    """A cookie that keeps a client with its endpoint.

    Attributes:
        path: for Set-Cookie, empty for none.
        ttl: seconds, 0 until the browser ends; None: read, but never issued.
    """

    name: bytes
    path: bytes = b""
    ttl: float | None = None


class LoadBalancing(NamedTuple):
    """`load_balancer`; the hashing policies use the first of cookie, header and source_ip that is set."""

    policy: Policy = "round_robin"
    cookie: Cookie | None = None
    header: bytes | None = None
    source_ip: bool = False


class EndpointOptions(NamedTuple):
    """All that a Mapping says about the endpoints of its service; as in Envoy, other settings are another cluster."""

    load_balancer: LoadBalancing = LoadBalancing()
    outlier_detection: OutlierDetection | None = None
    health_checks: tuple[HealthCheck, ...] = ()


class UpstreamTLS(NamedTuple):
    """A TLSContext: what connections to an upstream are secured with; its files are read when one is opened.

    Attributes:
        name: for the log.
        secret: `namespace/name`, or the absolute path of a directory; None for no certificate of our own.
        ca_secret: the same for the authorities alone; None for those in `secret`.
        sni: the name that is asked for and that the certificate must hold; None for the host of the service.
        min_version: "v1.2" or "v1.3", None for v1.2.
        max_version: the same, None for the newest.
    """

    name: str
    secret: str | None = None
    ca_secret: str | None = None
    sni: str | None = None
    min_version: str | None = None
    max_version: str | None = None


class Origin(NamedTuple):
    """Where connections of one kind go: a key of the connection pool.

    Attributes:
        host: a name or an address; what TLS verifies.
        address: one of those that the name stands for; None: the system looks it up for each connection.
        tls: None for the system's authorities and no certificate of our own.
    """

    scheme: str
    host: str
    port: int
    address: str | None = None
    tls: UpstreamTLS | None = None

    @property
    def authority(self) -> str:
        """host:port as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class CircuitBreakers(NamedTuple):
    """Limits of one service in one process (`circuit_breakers`), with Envoy's defaults."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3


class UpstreamOptions(NamedTuple):
    """What a Mapping asks of the way to its upstream; made once per reload.

    Attributes:
        try_timeout: seconds for one try, None for what is left of the whole.
        idle_timeout: seconds without a byte in either direction, None for no limit.
        keepalive_idle: seconds that an unused connection is kept, None for the client's default.
        lifetime: seconds after which a connection is used no more, None for no limit.
        endpoints: among the endpoints of the service, None for in turn.
        tls: the TLSContext that the Mapping names.
    """

    try_timeout: float | None = None
    idle_timeout: float | None = None
    keepalive_idle: float | None = None
    lifetime: float | None = None
    circuit_breakers: CircuitBreakers | None = None
    endpoints: EndpointOptions | None = None
    tls: UpstreamTLS | None = None


DEFAULT_OPTIONS = UpstreamOptions()
