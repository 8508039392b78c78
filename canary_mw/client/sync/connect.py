"""How a thread connects to an upstream, all steps within one limit."""

import math
import socket
from time import monotonic

from canary_mw.client.tls import ConnectionSecurity
from canary_mw.rules.upstream import Origin

# Seconds, 23 days: a longer wait does not fit into the 31 bits of milliseconds that the system counts.
MAX_TIMEOUT = 2e6


def connect(origin: Origin, security: ConnectionSecurity, limit: float) -> socket.socket:
    """A socket that is connected and whose calls do not wait.

    Args:
        limit: monotonic time at which to give up.

    Raises:
        TimeoutError: without a number: at `limit`.
        OSError: refused, not found, not verified.
        ValueError: not the name of a host.
        OverflowError: not a port.
    """
    sock = _connected(origin.address or origin.host, origin.port, limit)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _secured(sock, security, limit)
    except BaseException:
        sock.close()
        raise


def _connected(host: str, port: int, limit: float) -> socket.socket:
    """Connect to the first address of a name that lets us; looking the name up has the limits of the system's resolver.

    Args:
        limit: monotonic time.
    """
    refused: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(limit))
            sock.connect(address)
            return sock
        except OSError as exc:
            sock.close()
            refused = exc
        except BaseException:
            sock.close()
            raise
    raise refused or OSError(f"no address for {host}")


def _secured(sock: socket.socket, security: ConnectionSecurity, limit: float) -> socket.socket:
    """The same after the TLS handshake, where there is one; no call of it waits from here on."""
    if security.context is not None:
        # The time is that of the whole handshake, unlike with other calls of a socket.
        sock.settimeout(_left(limit))
        sock = security.context.wrap_socket(sock, server_hostname=security.name)
    sock.setblocking(False)
    return sock


def _left(limit: float) -> float | None:
    """Seconds until then, None for ever."""
    if limit == math.inf:
        return None
    left = limit - monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, MAX_TIMEOUT)
