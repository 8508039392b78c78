"""Entries of Envoy's access log for connections of TCPMappings."""

from typing import Any, NamedTuple

from canary_mw.forwarding.protobuf.access_log import TCP_ENTRY
from canary_mw.forwarding.protobuf.codec import encode
from canary_mw.observability.logs.entries import DOWNSTREAM_END, address_of, cluster, endpoint_of, time_of


class Connection(NamedTuple):
    """A connection that has ended.

    Attributes:
        ended: seconds since the epoch.
        client: address and port, None where they are not known.
        upstream: address:port, None where there was no connection to it.
        service: of the TCPMapping, whose namespace is the next one.
        flag: why it came to nothing, as Envoy names it.
        received: bytes of the client.
        sent: bytes to the client.
    """

    ended: float
    seconds: float
    client: tuple[str, int] | None
    upstream: str | None
    service: str
    namespace: str
    flag: str | None
    received: int
    sent: int


def encoded_connection(connection: Connection) -> bytes:
    """The entry of a connection."""
    peer = None if connection.client is None else address_of(*connection.client)
    common: dict[str, Any] = {
        "downstream_remote_address": peer,
        "downstream_direct_remote_address": peer,
        "start_time": time_of(connection.ended - connection.seconds),
        "duration": time_of(connection.seconds),
        "upstream_remote_address": endpoint_of(connection.upstream),
        "upstream_cluster": cluster(connection.service, connection.namespace),
        "response_flags": None if connection.flag is None else {connection.flag: True},
        "access_log_type": DOWNSTREAM_END,
    }
    moved = {"received_bytes": connection.received, "sent_bytes": connection.sent}
    present = {name: value for name, value in common.items() if value is not None}
    return encode(TCP_ENTRY, {"common_properties": present, "connection_properties": moved})
