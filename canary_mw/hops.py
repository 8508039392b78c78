"""What one passage through this process means: its mark against loops, whom it believes, what it is called.

Shared by the shells, so that a pod behaves the same whichever of them it runs.
"""

import os
import re
import socket
from collections.abc import Callable, Collection, Iterable
from collections.abc import Mapping as Dict
from functools import lru_cache
from hashlib import blake2s
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from random import getrandbits

from .exceptions import ConfigError

# What Kubernetes appends to the name of a workload: ReplicaSet hash and pod, DaemonSet pod, StatefulSet ordinal. Its
# random names leave out vowels and look-alikes.
_POD_SUFFIX = re.compile(r"(-[bcdf-hj-np-tv-xz2456789]{5,10})?-[bcdf-hj-np-tv-xz2456789]{5}$|-\d+$")
_HOP_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_REMEMBERED = 4096


def local_names(local: str | Iterable[str] = (), environ: Dict[str, str] | None = None) -> frozenset[str]:
    """Names of the service that this process is.

    `CANARY_MW_LOCAL` (comma separated) wins over the code: the gray Deployment usually runs the same code.
    """
    given = (os.environ if environ is None else environ).get("CANARY_MW_LOCAL", "")
    names = given.split(",") if given else [local] if isinstance(local, str) else local
    return frozenset(name.strip().lower() for name in names if name.strip())


def default_hop_id(
    mode: str, local: Collection[str] = (), paths: Iterable[str] = (), environ: Dict[str, str] | None = None
) -> str:
    """An id of this deployment: the same in all its pods, and different from those that it forwards to.

    `CANARY_MW_ID`, else made from the workload's name and what it does.

    Args:
        mode: which shell it is; a proxy and the app behind it are two hops.
        local: names of the service that it is.
        paths: its rules.
    """
    environ = os.environ if environ is None else environ
    if given := environ.get("CANARY_MW_ID"):
        return given
    workload = _POD_SUFFIX.sub("", environ.get("HOSTNAME") or socket.gethostname())
    parts = "\n".join((workload, mode, *sorted(local), "", *paths))
    return blake2s(parts.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def hop_mark(hop_id: str) -> bytes:
    """What stands in `via` for a deployment.

    Raises:
        ConfigError: the id cannot stand in a header.
    """
    if not _HOP_ID.fullmatch(hop_id):
        hint = "use 1 to 64 letters, digits, . _ ~ -"
        raise ConfigError(f"hop id {hop_id!r} cannot stand in a header", hint=hint)
    return b"canary-mw-" + hop_id.encode()


def new_request_id() -> bytes:
    """A random UUID (RFC 9562, version 4) for a request that has no `x-request-id`."""
    bits = f"{getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}".encode()


def trust(peers: Iterable[str]) -> Callable[[str | None], bool]:
    """A test for whether the X-Forwarded-* headers of a peer count.

    Args:
        peers: addresses, networks as CIDR, or "*" for all.

    Raises:
        ConfigError: one of them is neither.
    """
    texts = [peer.strip() for peer in peers if peer.strip()]
    networks = [_network(text) for text in texts if text != "*"]
    if "*" in texts:
        return lambda peer: True

    # Bounded: an address is the peer's to choose.
    @lru_cache(_REMEMBERED)
    def trusted(peer: str | None) -> bool:
        try:
            address = ip_address(peer or "")
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in networks)

    return trusted


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        hint = "write an address, a network such as 10.0.0.0/8, or *"
        raise ConfigError(f"trusted peer {text!r} is not an address", hint=hint) from None
