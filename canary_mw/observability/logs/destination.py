"""One LogService as its thread sees it: entries that wait, and a stream."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from canary_mw.forwarding.protobuf.access_log import STREAM_MESSAGE
from canary_mw.forwarding.protobuf.codec import encode
from canary_mw.host import HostLogger
from canary_mw.observability.exports.destination import Destination
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.logs.connections import Connection, encoded_connection
from canary_mw.observability.logs.entries import Logged, encoded
from canary_mw.rules.filters.logs import LogPolicy

logger = HostLogger(logging.getLogger("canary_mw.log_service"))

# Entries that wait; more are dropped.
MAX_ENTRIES = 10_000
# An entry is about as large; the exact size is known once it is encoded.
_ENTRY_BYTES = 400


class LogStream(Protocol):
    """A stream of messages; see `GrpcStream`."""

    def is_open(self) -> bool:
        """Whether it can take a message."""

    def send(self, message: bytes, limit: float) -> object:
        """Send a message within some seconds; raises UpstreamError."""

    def close(self, limit: float) -> object:
        """End it within some seconds."""


# Opens a stream within some seconds.
Connect = Callable[[LogPolicy, float], LogStream]


class LogDestination(Destination[Logged | Connection]):
    """See `Destination`."""

    def __init__(self, policy: LogPolicy, node_id: str, connect: Connect, tally: Tally) -> None:
        self._policy, self._connect = policy, connect
        self._identifier = {"node": {"id": node_id, "cluster": policy.node}, "log_name": policy.name}
        self._stream: LogStream | None = None
        self._new = False
        super().__init__(
            f"LogService {policy.name}",
            logger,
            most=MAX_ENTRIES,
            enough=max(1, policy.flush_bytes // _ENTRY_BYTES),
            interval=policy.flush_interval,
            count=lambda result, count: tally("log_entries", policy.service.text, result, count=count),
        )

    def send_all(self, limit: float) -> None:
        """See `Destination.send_all`."""
        end = monotonic() + limit
        if self._stream is not None and not self._stream.is_open():
            # A service that has started anew: nothing is lost.
            self.disconnect(0.0)
        if self._stream is None:
            self._stream, self._new = self._connect(self._policy, limit), True
        while self.waiting:
            kind = self._kind(self.waiting[0])
            entries = self._take(kind)
            fields: dict[str, object] = {kind: {"log_entry": entries}}
            if self._new:
                fields["identifier"] = self._identifier
            try:
                self._stream.send(encode(STREAM_MESSAGE, fields), max(0.0, end - monotonic()))
            except BaseException:
                self.count("dropped", len(entries))
                raise
            self._new = False
            self.succeeded(len(entries))

    def disconnect(self, limit: float) -> None:
        """See `Destination.disconnect`."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close(limit)

    def _kind(self, item: Logged | Connection) -> str:
        return "tcp_logs" if isinstance(item, Connection) else f"{self._policy.driver}_logs"

    def _take(self, kind: str) -> list[bytes]:
        """The entries of one message: it holds those of one kind."""
        entries: list[bytes] = []
        size = 0
        while self.waiting and (not entries or size < self._policy.flush_bytes):
            item = self.waiting[0]
            if self._kind(item) != kind:
                break
            self.waiting.popleft()
            try:
                entries.append(
                    encoded_connection(item) if isinstance(item, Connection) else encoded(item, self._policy)
                )
            except BaseException:
                self.count("dropped", len(entries) + 1)
                raise
            size += len(entries[-1])
        return entries
