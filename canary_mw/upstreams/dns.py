"""Names of services to addresses."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them; those of IPv6 only where there are none of IPv4.

    A pod often cannot reach what it can resolve: mixed, half of the requests would fail.

    Raises:
        OSError: there are none.
        UnicodeError: it cannot be a name.
    """
    return addresses(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


def addresses(found: Sequence[tuple[int, int, int, str, tuple[Any, ...]]]) -> list[str]:
    """Those of what `getaddrinfo` gives that are used, see `resolve`."""
    of_ipv4 = [str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET]
    return list(dict.fromkeys(of_ipv4 or (str(address[0]) for *_, address in found)))


def is_looked_up(host: str) -> bool:
    """Whether a host is a name that may stand for several endpoints; "localhost" is this one (RFC 6761)."""
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False
