"""Which peers are trusted, and which headers need a trusted peer or a signature."""

import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from secrets import token_hex

from canary_mw.exceptions import ConfigError
from canary_mw.forwarding.trusted_headers import TrustedHeaders

_CACHE_SIZE = 4096


def trusted_peers(peers: Iterable[str]) -> Callable[[str | None], bool]:
    """A function that says whether the X-Forwarded-* headers of a peer are used.

    Args:
        peers: addresses, networks as CIDR, or "*" for all.

    Raises:
        ConfigError: one of them is neither.
    """
    texts = [peer.strip() for peer in peers if peer.strip()]
    networks = [_network(text) for text in texts if text != "*"]
    if "*" in texts:
        return lambda peer: True

    # Bounded, because peers choose their addresses.
    @lru_cache(_CACHE_SIZE)
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
    """The header keys of a file, one per line: the first one signs, all verify. Empty lines and # comments are skipped.

    Raises:
        ConfigError: the file cannot be read, or has no key.
    """
    try:
        lines = [line.strip() for line in Path(path).read_bytes().splitlines()]
    except OSError as exc:
        raise ConfigError(f"the header keys cannot be read: {exc.strerror}", file=os.fspath(path)) from None
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys:
        raise ConfigError("there is no header key", file=os.fspath(path), hint="make one with: openssl rand -hex 32")
    return keys


def trusted_headers(
    names: Iterable[str], key_file: str | os.PathLike[str] | None, *, needs_keys: bool = True
) -> TrustedHeaders | None:
    """The trusted headers of a middleware's arguments; raises as `TrustedHeaders.from_settings` and `read_keys` do.

    Args:
        needs_keys: whether an unreadable file of keys is an error; else no signature is valid.
    """
    try:
        keys = read_keys(key_file) if key_file else ()
    except ConfigError:
        if needs_keys:
            raise
        keys = (token_hex().encode("ascii"),)
    return TrustedHeaders.from_settings(names, keys)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        hint = "write an address, a network such as 10.0.0.0/8, or *"
        raise ConfigError(f"trusted peer {text!r} is not an address", hint=hint) from None
