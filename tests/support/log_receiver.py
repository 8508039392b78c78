"""A log service that keeps what it is told."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from google.protobuf.json_format import MessageToDict
from grpc_peer import Connection, Peer, serving

SERVICE = "---\napiVersion: getambassador.io/v3alpha1\nkind: LogService\nname: als\nservice: logs\ngrpc: true\n"
PLAIN = "driver: http\ndriver_config: {}\nprotocol_version: v3\nflush_interval_time: 0\n"


class Receiver:
    """Keeps the messages; `ended` counts the streams that ended in peace."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.ended = 0
        self._open: list[Connection] = []

    def drop(self) -> None:
        """End all connections, as a service that dies."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.sock.shutdown(socket.SHUT_RDWR)

    def __call__(self, connection: Connection) -> None:
        """Read a connection to its end."""
        self._open.append(connection)
        count = 0
        while connection.read():
            found = connection.messages()
            for raw in found[count:]:
                message = StreamAccessLogsMessage.FromString(raw)
                self.messages.append(MessageToDict(message, preserving_proto_field_name=True))
            count = len(found)
            for call in connection.ended():
                self.ended += 1
                connection.answer(call, b"")

    @property
    def identifiers(self) -> list[dict[str, Any]]:
        """Those of the streams."""
        return [each["identifier"] for each in self.messages if "identifier" in each]

    def entries(self, kind: str = "http_logs") -> list[dict[str, Any]]:
        """What it was told."""
        return [entry for each in self.messages for entry in each.get(kind, {}).get("log_entry", [])]


@contextlib.contextmanager
def receiving() -> Iterator[tuple[Receiver, Peer]]:
    """Serve one."""
    receiver = Receiver()
    with serving(receiver) as peer:
        yield receiver, peer
