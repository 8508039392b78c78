"""What the two HTTP/1.1 clients, asyncio's and the blocking one, have in common besides `Answer` (RFC 9112)."""

from typing import NamedTuple

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.rules.upstream import CircuitBreakers, Origin


class Limits(NamedTuple):
    """Bounds of a client, per origin where not said otherwise.

    Attributes:
        max_connections: open connections.
        max_pending: requests that wait for one of them.
        keepalive_idle: seconds that an unused connection is kept; 0 keeps none.
        max_head: bytes of the head of one answer.
    """

    max_connections: int = 1024
    max_pending: int = 1024
    keepalive_idle: float = 60.0
    max_head: int = 102400


def limits_under(limits: Limits, breakers: CircuitBreakers | None) -> Limits:
    """The limits under breakers, which never widen them; as in Envoy, one connection is always allowed."""
    if breakers is None:
        return limits
    connections = min(limits.max_connections, max(breakers.max_connections, 1))
    pending = min(limits.max_pending, breakers.max_pending_requests)
    return limits._replace(max_connections=connections, max_pending=pending)


# Why a connection was closed that no exchange was on.
CERTIFICATES_CHANGED = "the certificates have changed"
IDLE_TIMEOUT = "the connection was idle for too long"
EVICTED = "made room for a fresh connection"


def check_pending(pending: int, limits: Limits, origin: Origin, breakers: CircuitBreakers | None) -> None:
    """Raise UpstreamConnectError when so many requests wait that no other may: UpstreamOverloaded under breakers."""
    if pending < limits.max_pending:
        return
    kind = UpstreamConnectError if breakers is None else UpstreamOverloaded
    raise kind(
        f"{origin.authority}: too many requests waiting ({limits.max_pending}) for one of "
        f"{limits.max_connections} connections"
    )


def pool_timeout(origin: Origin) -> UpstreamTimeout:
    """What is raised for a request whose deadline passes before it has a connection."""
    return UpstreamTimeout(f"{origin.authority}: the deadline passed while waiting for a free connection")


def connect_error(exc: Exception, origin: Origin, connect_timeout: float, *, at_deadline: bool) -> UpstreamError:
    """What it means that a connection could not be opened.

    Args:
        connect_timeout: seconds that it was given.
        at_deadline: the request's deadline was to come before they were over.
    """
    # The system's own ETIMEDOUT is a TimeoutError too, but has a number.
    if not isinstance(exc, TimeoutError) or exc.errno is not None:
        return UpstreamConnectError(f"{origin.authority}: cannot connect: {exc}")
    if at_deadline:
        return UpstreamTimeout(f"{origin.authority}: the deadline passed while connecting")
    return UpstreamConnectError(f"{origin.authority}: no connection within {connect_timeout:g} s")
