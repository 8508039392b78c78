"""Lists of hosts: names, `*.suffix`, addresses and networks, each with or without a port."""

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

_CACHE_SIZE = 1024
_FORMS = "write a name, *.SUFFIX, NAME:PORT, an address, or a network such as 10.0.0.0/8"

Matcher = Callable[[str, int], bool]


class _Entry(NamedTuple):
    """One host, or several.

    Attributes:
        name: lower-case; begins with a dot for all hosts below it; empty for a network.
        port: None for any.
    """

    name: str
    port: int | None
    network: IPv4Network | IPv6Network | None = None

    def matches(self, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return host.endswith(self.name) if self.name[0] == "." else host == self.name


class _Hosts:
    """A list that has somebody; a class, because what is compiled of rules crosses processes."""

    def __init__(self, entries: tuple[_Entry, ...]) -> None:
        self._entries = entries
        # Bounded, because an app may call hosts that its users name.
        self._known = lru_cache(_CACHE_SIZE)(partial(_matches, entries))

    def __call__(self, host: str, port: int) -> bool:
        return self._known(host, port)

    def __reduce__(self) -> tuple[type["_Hosts"], tuple[tuple[_Entry, ...]]]:
        return _Hosts, (self._entries,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hosts) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self._entries)


def _matches(entries: tuple[_Entry, ...], host: str, port: int) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    address = _address(name)
    return any(entry.matches(name, address, port) for entry in entries)


def host_matcher(texts: Iterable[str]) -> Matcher:
    """A function that says whether a host and a port are in a list; an empty list has none.

    Raises:
        ValueError: a text is no host; the message says what may be written.
    """
    entries = tuple(_entry(text) for text in texts)
    return _Hosts(entries) if entries else nobody


def check_host(text: str) -> None:
    """Raises ValueError where a text of a list is no host."""
    _entry(text)


def nobody(host: str, port: int) -> bool:
    """The empty list."""
    return False


def _entry(text: str) -> _Entry:
    if text.count("/") == 1:
        try:
            return _Entry("", None, ip_network(text, strict=False))
        except ValueError:
            raise ValueError(f"{text!r} is not a host: {_FORMS}") from None
    address = _address(text.strip("[]"))
    name, port = (text, None) if address is not None else _split_port(text)
    address = address or _address(name.strip("[]"))
    if address is not None:
        return _Entry("", port, ip_network(address))
    suffix = name.startswith("*.")
    plain = _ascii(name[2:] if suffix else name).rstrip(".").lower()
    if not plain or not all(_is_label(label) for label in plain.split(".")):
        raise ValueError(f"{text!r} is not a host: {_FORMS}")
    return _Entry(f".{plain}" if suffix else plain, port)


def _split_port(text: str) -> tuple[str, int | None]:
    name, colon, port = text.rpartition(":")
    if not colon:
        return text, None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is not a host: {_FORMS}")
    return name, int(port)


def _ascii(name: str) -> str:
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return ""


def _is_label(label: str) -> bool:
    return 0 < len(label) < 64 and label.replace("-", "").replace("_", "").isalnum()


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
