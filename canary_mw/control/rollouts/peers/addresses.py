"""Where the other pods are, by the EndpointSlices of their Service, and which addresses may hear the token of peers."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from canary_mw.upstreams.discovery.endpoint_slices import Slice

# The name of the port of a Service that leads to the admin port.
PORT_NAME = "admin"
# RFC 1918, RFC 6598 and RFC 4193; the token travels in clear text.
_PRIVATE_4 = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8")))
_PRIVATE_6 = tuple(map(IPv6Network, ("fc00::/7", "::1/128")))
# The metadata service of AWS has an address of its own in that range.
_METADATA = ip_address("fd00:ec2::254")

Address = tuple[str, int]


class Pod(NamedTuple):
    """A pod behind the Service.

    Attributes:
        ready: whether it gets new requests.
    """

    address: Address
    ready: bool


def pods_of(slices: Iterable[Slice], own_port: int) -> tuple[Pod, ...]:
    """All pods of the slices of a Service, ready or not, each once.

    Args:
        own_port: the admin port of this process, which counts where the Service names none.
    """
    slices = tuple(slices)
    found = _pods(slices, "IPv4", own_port) or _pods(slices, "IPv6", own_port)
    # A copy that is not ready yet may stand in another slice while an endpoint moves.
    ready = {each.address for each in found if each.ready}
    return tuple(Pod(address, address in ready) for address in sorted({each.address for each in found}))


def _pods(slices: Iterable[Slice], family: str, own_port: int) -> list[Pod]:
    return [
        # Of a Service that publishes pods that are not ready all are called so; `serving` then says how it is.
        Pod((each.addresses[0], dict(part.ports).get(PORT_NAME, own_port)), each.serving and not each.terminating)
        for part in slices
        if part.family == family
        for each in part.endpoints
        if each.addresses
    ]


def may_hear_token(host: str) -> bool:
    """Whether the token may be sent to an address in clear text: it is of this machine, or of a private network."""
    address = ip_address(host)
    if isinstance(address, IPv4Address):
        return any(address in each for each in _PRIVATE_4)
    if address.ipv4_mapped is not None:
        return may_hear_token(str(address.ipv4_mapped))
    return address != _METADATA and any(address in each for each in _PRIVATE_6)


def text_of(address: Address) -> str:
    """An address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
