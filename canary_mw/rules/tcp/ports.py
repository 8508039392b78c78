"""Which TCPMapping takes a connection: by its port, its server name (SNI), and one roll by the weights."""

from collections.abc import Iterable
from collections.abc import Mapping as Dict
from typing import NamedTuple

from canary_mw.rules.tcp.mapping import TCPMapping, most_specific
from canary_mw.rules.weights import rescaled

Address = tuple[str, int]


class TCPGroup(NamedTuple):
    """The TCPMappings of one port and host, with the upper bounds of their rolls, in percent."""

    shares: tuple[tuple[float, TCPMapping], ...]

    def choose(self, roll: float) -> TCPMapping:
        """The TCPMapping of a roll in [0, 100)."""
        return next((mapping for bound, mapping in self.shares if roll < bound), self.shares[-1][1])


class TCPPort(NamedTuple):
    """What takes the connections of a port.

    Attributes:
        by_host: for connections with TLS, which is terminated; by server name.
        any: for all others, as they are; None where they are closed.
    """

    by_host: Dict[str, TCPGroup]
    any: TCPGroup | None

    def of(self, server_name: str | None) -> TCPGroup | None:
        """What takes a connection; None closes it.

        Args:
            server_name: the name in its ClientHello, None for one that begins with no TLS.
        """
        pattern = most_specific(self.by_host, server_name) if server_name else None
        return self.any if pattern is None else self.by_host[pattern]


def tcp_ports(mappings: Iterable[TCPMapping]) -> dict[Address, TCPPort]:
    """The ports that are to be open."""
    groups: dict[Address, dict[str, list[TCPMapping]]] = {}
    for mapping in mappings:
        groups.setdefault((mapping.address, mapping.port), {}).setdefault(mapping.host, []).append(mapping)
    return {
        address: TCPPort(
            {host: _group(members) for host, members in hosts.items() if host},
            _group(hosts[""]) if "" in hosts else None,
        )
        for address, hosts in groups.items()
    }


def _group(members: list[TCPMapping]) -> TCPGroup:
    found = {id(each.mapping): each for each in members}
    bounds = rescaled([each.mapping for each in members])
    return TCPGroup(tuple((bound, found[id(mapping)]) for mapping, bound in bounds))
