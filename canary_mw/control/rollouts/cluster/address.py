"""Which cluster keeps the states, and how a pod reaches it."""

import logging
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from canary_mw.control.rollouts.settings import parse_state_url
from canary_mw.control.sources.kubernetes import connect
from canary_mw.exceptions import ConfigError, StoreAway
from canary_mw.host import HostLogger
from canary_mw.kubernetes.credentials import Connection

logger = HostLogger(logging.getLogger("canary_mw.rollouts"))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where states lie.

    Attributes:
        lease: name of the Lease.
    """

    connection: Connection
    namespace: str
    lease: str

    @property
    def key(self) -> str:
        """The same for all who share the states."""
        return f"{self.connection.server} {self.namespace}"


def cluster_at(text: str, lease: str) -> Cluster:
    """The cluster of an address.

    Args:
        lease: the name of the Lease, unless the address has one.

    Raises:
        StoreAway: this process has no credentials for it, or would show them to others.
    """
    url, named = parse_state_url(text)
    try:
        connection = connect(url, may_exec=False)
        _check_secrecy(connection)
    except (ConfigError, OSError) as exc:
        raise StoreAway(str(exc)) from exc
    if connection.insecure:
        logger.warning("%s: the certificate of the API server is not verified", text)
    return Cluster(connection, url.namespaces[0] if url.namespaces else connection.namespace, named or lease)


def _check_secrecy(connection: Connection) -> None:
    """A token is sent over TLS, or does not leave this host."""
    parts = urlsplit(connection.server)
    if parts.scheme == "https" or _is_loopback(parts.hostname or "") or not connection.token():
        return
    raise ConfigError(
        f"the API server {connection.server} has no TLS: whoever listens would learn the token",
        hint="name its https:// address in the kubeconfig",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
