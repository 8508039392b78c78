"""Opening a connection to an upstream from an event loop, without the threads of its default executor."""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TypeVar

from canary_mw.client.aio.name_lookup import look_up
from canary_mw.client.tls import ConnectionSecurity
from canary_mw.rules.upstream import Origin

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def open_connection(factory: Callable[[], P], origin: Origin, security: ConnectionSecurity) -> P:
    """Connect to the first address of an origin that accepts, with the TLS handshake if there is one.

    The event loop gets an address, never a name: it would look that up in its default executor.

    Returns:
        The protocol of the connection.

    Raises:
        OSError: the connection was refused, the name not found or the certificate not verified.
        ValueError: the host is not a valid name.
        OverflowError: the port is out of range.
    """
    loop = asyncio.get_running_loop()
    last_error: OSError | None = None
    for address in await _addresses(origin.address or origin.host, origin.port):
        try:
            _, protocol = await loop.create_connection(
                factory, address, origin.port, ssl=security.context, server_hostname=security.name
            )
        except ssl.SSLError:
            raise
        except OSError as exc:
            last_error = exc
        else:
            return protocol
    raise last_error or OSError(f"no address for {origin.host}")


async def _addresses(host: str, port: int) -> Iterable[str]:
    try:
        ip_address(host)
    except ValueError:
        return dict.fromkeys(str(address[0]) for *_, address in await look_up(host, port))
    return (host,)
