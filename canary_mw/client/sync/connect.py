"""Connecting a blocking thread to an upstream, with one time limit for all steps."""

import math
import socket
from time import monotonic

from canary_mw.client.tls import ConnectionSecurity
from canary_mw.rules.upstream import Origin

# Seconds, 23 days: the system counts timeouts in milliseconds, as a signed 32-bit number.
MAX_TIMEOUT = 2e6


def connect(origin: Origin, security: ConnectionSecurity, limit: float) -> socket.socket:
    """Open a connected, non-blocking socket, after the TLS handshake if there is one.

    Args:
        limit: monotonic time at which the attempt ends.

    Raises:
        TimeoutError: `limit` is reached; `errno` is None.
        OSError: the connection was refused, the name not found or the certificate not verified.
        ValueError: the host is not a valid name.
        OverflowError: the port is out of range.
    """
    sock = _connect_tcp(origin.address or origin.host, origin.port, limit)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _wrap_tls(sock, security, limit)
    except BaseException:
        sock.close()
        raise


def _connect_tcp(host: str, port: int, limit: float) -> socket.socket:
    """Connect to the first address of a name that accepts. The system's resolver limits the time of name resolution.

    Args:
        limit: monotonic time.
    """
    last_error: OSError | None = None
    for family, socket_type, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, socket_type, protocol)
        try:
            sock.settimeout(_remaining(limit))
            sock.connect(address)
            return sock
        except OSError as exc:
            sock.close()
            last_error = exc
        except BaseException:
            sock.close()
            raise
    raise last_error or OSError(f"no address for {host}")


def _wrap_tls(sock: socket.socket, security: ConnectionSecurity, limit: float) -> socket.socket:
    """Make the TLS handshake, if there is one, and the socket non-blocking."""
    if security.context is not None:
        # The timeout of a socket is one for the whole handshake.
        sock.settimeout(_remaining(limit))
        # An end of TCP without close_notify is an error then, not an end of the stream: anybody on the way can make it.
        sock = security.context.wrap_socket(sock, server_hostname=security.name, suppress_ragged_eofs=False)
    sock.setblocking(False)
    return sock


def _remaining(limit: float) -> float | None:
    """Seconds until `limit`, None for no limit."""
    if limit == math.inf:
        return None
    remaining = limit - monotonic()
    if remaining <= 0:
        raise TimeoutError
    return min(remaining, MAX_TIMEOUT)
