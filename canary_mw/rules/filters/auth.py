"""An AuthService as a value: which requests it is asked about, what it gets, and what its answer changes."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from canary_mw.http.headers import HOP_BY_HOP_HEADERS, fold_underscores
from canary_mw.rules.service import Service
from canary_mw.rules.upstream import DEFAULT_OPTIONS, UpstreamOptions

Protocol = Literal["http", "grpc"]
# Paths by which somebody looks whether an app lives.
PROBES = (b"/healthz", b"/readyz", b"/livez", b"/ambassador/v0/check_alive", b"/ambassador/v0/check_ready")
# Headers of the client that an HTTP service gets without being named.
REQUEST_HEADERS = frozenset(
    b"authorization cookie from proxy-authorization user-agent x-forwarded-for x-forwarded-host"
    b" x-forwarded-proto".split()
)
# Headers of its answer that count without being named.
ANSWER_HEADERS = frozenset(b"authorization location proxy-authenticate set-cookie www-authenticate".split())
# What no service may set or remove: where a message ends, and where it has been.
NEVER_SET = (HOP_BY_HOP_HEADERS - {b"proxy-authenticate", b"proxy-authorization"}) | frozenset(
    (b"host", b"content-length", b"expect", b"via")
)


class IncludeBody(NamedTuple):
    """`include_body`: how much of a body a service gets; a longer one is cut, or refused with 413."""

    max_bytes: int
    allow_partial: bool


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """An AuthService.

    Attributes:
        name: for the log.
        services: asked in turn; several where there are several documents.
        path_prefix: put before the path that the service gets.
        timeout: seconds for connect, send and answer together, None for no limit.
        request_headers: headers that the service gets besides `REQUEST_HEADERS`.
        all_request_headers: it gets all of them.
        granted_headers: headers of its answer that the request gets besides `ANSWER_HEADERS`. No client can bring one.
        added_headers: headers of the call; their values may be secrets.
        include_body: None to send no body.
        failure_mode_allow: a request goes on when the service fails.
        status_on_error: the answer when it fails and the request does not go on.
        linkerd: the call says which service it is for.
        options: of connections to the service.
    """

    name: str
    services: tuple[Service, ...]
    proto: Protocol = "http"
    path_prefix: bytes = b""
    timeout: float | None = 5.0
    connect_timeout: float = 3.0
    request_headers: frozenset[bytes] = frozenset()
    all_request_headers: bool = False
    granted_headers: frozenset[bytes] = frozenset()
    added_headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    include_body: IncludeBody | None = None
    failure_mode_allow: bool = False
    status_on_error: int = 403
    linkerd: bool = False
    options: UpstreamOptions = DEFAULT_OPTIONS
    # Also as CGI and WSGI read them: `x_user` is `x-user` to an app behind either.
    folded: frozenset[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        own = self.granted_headers - ANSWER_HEADERS
        object.__setattr__(self, "folded", frozenset(map(fold_underscores, own)))

    def is_granted(self, name: bytes) -> bool:
        """Whether a header is one that only the service may give to a request."""
        return name.replace(b"_", b"-") in self.folded
