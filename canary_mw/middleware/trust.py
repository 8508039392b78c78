"""Which peers and headers are believed."""

import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from canary_mw.exceptions import ConfigError
from canary_mw.forwarding.trusted_headers import TrustedHeaders

_REMEMBERED = 4096


def trusted_peers(peers: Iterable[str]) -> Callable[[str | None], bool]:
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
