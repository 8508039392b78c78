"""Connection pool limits and the errors raised at them, for both HTTP/1.1 clients."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.rules.upstream import CircuitBreakers, Origin

# Seconds that a peer has for its part of the closing handshake of a websocket. RFC 6455 sets no limit.
CLOSE_TIMEOUT = 2.0


# Seconds in which an upstream has to take some of an upload that has no other limit yet; Envoy's stream idle timeout. A
# client that leaves such an upload is not noticed by every server.
MAX_UPLOAD_STALL = 300.0


class Limits(NamedTuple):
    """Limits of a client, per origin.

    Attributes:
        max_connections: open connections.
        max_pending: requests that wait for a connection.
        keepalive_expiry: seconds that an idle connection is kept; 0 keeps none.
        max_head: bytes of one response head.
    """

    max_connections: int = 1024
    max_pending: int = 1024
    keepalive_expiry: float = 60.0
    max_head: int = 102400


def limits_under(limits: Limits, circuit_breakers: CircuitBreakers | None) -> Limits:
    """Lower the limits to those of circuit breakers. As in Envoy, one connection is always allowed."""
    if circuit_breakers is None:
        return limits
    connections = min(limits.max_connections, max(circuit_breakers.max_connections, 1))
    pending = min(limits.max_pending, circuit_breakers.max_pending_requests)
    return limits._replace(max_connections=connections, max_pending=pending)


# Why an idle connection was closed.
CERTIFICATES_CHANGED = "the certificates have changed"
IDLE_TIMEOUT = "the connection was idle for too long"
EVICTED = "the connection was closed to make room for a new one"


def check_pending(pending: int, limits: Limits, origin: Origin, circuit_breakers: CircuitBreakers | None) -> None:
    """Check that one more request may wait for a connection.

    Raises:
        UpstreamConnectError: too many requests wait already.
        UpstreamOverloaded: the same, where the limit is that of circuit breakers.
    """
    if pending < limits.max_pending:
        return
    kind = UpstreamConnectError if circuit_breakers is None else UpstreamOverloaded
    error = kind(
        f"{origin.authority}: too many requests waiting ({limits.max_pending}) for one of "
        f"{limits.max_connections} connections"
    )
    error.reason = "overload"
    raise error


def client_closed() -> UpstreamConnectError:
    """The error of a request whose client is closed."""
    return UpstreamConnectError("the client was closed")


def pool_timeout(origin: Origin) -> UpstreamTimeout:
    """The error of a request whose deadline passes while it waits for a connection."""
    error = UpstreamTimeout(f"{origin.authority}: the deadline passed while waiting for a free connection")
    error.in_queue = True
    return error


def connect_error(exc: Exception, origin: Origin, connect_timeout: float, *, at_deadline: bool) -> UpstreamError:
    """The error of a failed attempt to connect.

    Args:
        connect_timeout: seconds that the attempt was allowed.
        at_deadline: the request deadline came before the end of `connect_timeout`.
    """
    # ETIMEDOUT of the system is a TimeoutError too, but has an errno.
    if not isinstance(exc, TimeoutError) or exc.errno is not None:
        return UpstreamConnectError(f"{origin.authority}: cannot connect: {exc}")
    if at_deadline:
        return UpstreamTimeout(f"{origin.authority}: the deadline passed while connecting")
    return UpstreamConnectError(f"{origin.authority}: no connection within {connect_timeout:g} s")


@contextmanager
def tried_before() -> Iterator[None]:
    """Around the second try of a request whose first one the upstream may have received; see `UpstreamError`."""
    try:
        yield
    except UpstreamError as exc:
        exc.tried_before = True
        raise
