"""A TCPMapping: where the connections of a port lead."""

from collections.abc import Iterable
from typing import NamedTuple

from canary_mw.rules.mapping import Mapping
from canary_mw.rules.upstream import UpstreamTLS

# Seconds without a byte in either direction, as in Envoy.
DEFAULT_IDLE_TIMEOUT = 3600.0


class TCPMapping(NamedTuple):
    """A TCPMapping document as a value.

    Attributes:
        address: that the port is opened at.
        host: server name (SNI) of its TLS connections, with `*.` for all names below; empty for every connection.
        certificate: what they are terminated with; None without a host.
        idle_timeout: seconds without a byte in either direction; None for no limit.
        mapping: its name, service, weight and options, as those of a Mapping. Its prefix stands for port and host, so
            that weights mean the same as those of Mappings.
    """

    address: str
    port: int
    host: str
    certificate: UpstreamTLS | None
    idle_timeout: float | None
    mapping: Mapping


def covers(pattern: str, host: str) -> bool:
    """Whether a name of a certificate, or of a TCPMapping, holds for a host; `*.` stands for one or more labels."""
    return pattern == host or (pattern.startswith("*.") and len(host) >= len(pattern) and host.endswith(pattern[1:]))


def most_specific(patterns: Iterable[str], host: str) -> str | None:
    """The pattern that holds for a host: the host itself, else the longest one."""
    return max(
        (each for each in patterns if covers(each, host)), key=lambda each: (each == host, len(each)), default=None
    )
