"""What one passage through this process means: its mark against loops, whom it believes, what it is called.

Shared by the shells, so that a pod behaves the same whichever of them it runs.
"""

import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Mapping as Dict
from functools import lru_cache
from hashlib import blake2s
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import count
from pathlib import Path
from random import getrandbits

from .exceptions import ConfigError
from .forks import in_child
from .trustedheaders import TrustedHeaders

# What Kubernetes appends to the name of a workload: ReplicaSet hash and pod, DaemonSet pod, StatefulSet ordinal. Its
# random names leave out vowels and look-alikes.
_POD_SUFFIX = re.compile(r"(-[bcdf-hj-np-tv-xz2456789]{5,10})?-[bcdf-hj-np-tv-xz2456789]{5}$|-\d+$")
_HOP_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_REMEMBERED = 4096
# Odd, so that 48 bits times this are a permutation (Knuth's multiplicative hashing).
_SPREAD = 0x9E3779B97F4B


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


def _begin_ids() -> None:
    """Once for each process: a child must not repeat what its parent gives out."""
    global _ids, _suffix
    bits = f"{getrandbits(80):020x}"
    _suffix = f"8{bits[:3]}-a{bits[3:6]}-{bits[6:18]}".encode()
    _ids = count(getrandbits(48))


_ids: Iterator[int]
_suffix: bytes
_begin_ids()
in_child(_begin_ids)


def new_request_id() -> bytes:
    """A UUID (RFC 9562, version 8) for a request that has no `x-request-id`: unique, and no secret.

    Its first half is a number of this process, spread so that whoever samples by it gets an even share; the second is
    random, and drawn once.
    """
    number = next(_ids) * _SPREAD & 0xFFFFFFFFFFFF
    return b"%08x-%04x-%b" % (number >> 16, number & 0xFFFF, _suffix)


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


def read_keys(path: str | os.PathLike[str]) -> tuple[bytes, ...]:
    """The header keys of a file: one a line, the first signs, all verify; empty lines and those with a # pass.

    Raises:
        ConfigError: it cannot be read, or holds no key.
    """
    try:
        lines = [line.strip() for line in Path(path).read_bytes().splitlines()]
    except OSError as exc:
        raise ConfigError(f"the header keys cannot be read: {exc.strerror}", file=os.fspath(path)) from None
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys:
        raise ConfigError("there is no header key", file=os.fspath(path), hint="make one with: openssl rand -hex 32")
    return keys


def trusted_headers(names: Iterable[str], key_file: str | os.PathLike[str] | None) -> TrustedHeaders | None:
    """Which headers need trust, from the arguments of a shell; errors as `TrustedHeaders.of` and `read_keys`."""
    return TrustedHeaders.of(names, read_keys(key_file) if key_file else ())


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        hint = "write an address, a network such as 10.0.0.0/8, or *"
        raise ConfigError(f"trusted peer {text!r} is not an address", hint=hint) from None
