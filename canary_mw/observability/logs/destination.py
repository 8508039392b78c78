"""One LogService as its thread sees it: entries that wait, a stream, and when it is tried again."""

import logging
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Protocol

from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.protobuf.access_log import STREAM_MESSAGE
from canary_mw.forwarding.protobuf.codec import encode
from canary_mw.host import HostLogger
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.logs.entries import Logged, encoded
from canary_mw.rules.filters.logs import LogPolicy

logger = HostLogger(logging.getLogger("canary_mw.log_service"))

# Entries that wait; more are dropped.
MAX_ENTRIES = 10_000
# An entry is about as large; the exact size is known once it is encoded.
_ENTRY_BYTES = 400
# Seconds: for a connection or a message, between attempts to connect at first and at most, and between two lines.
_LIMIT = 3.0
_FIRST_DELAY, _MAX_DELAY = 1.0, 30.0
_LOG_INTERVAL = 60.0


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


class Destination:
    """Any thread may call `add`, and one thread calls the others.

    Attributes:
        waiting: the entries that wait, the oldest first.
    """

    def __init__(self, policy: LogPolicy, node_id: str, connect: Connect, tally: Tally) -> None:
        self.policy = policy
        self.waiting: deque[Logged] = deque()
        self._identifier = {"node": {"id": node_id, "cluster": policy.node}, "log_name": policy.name}
        self._connect, self._tally = connect, tally
        self._enough = max(1, policy.flush_bytes // _ENTRY_BYTES)
        self._since = self._retry_at = self._logged_at = -inf
        self._delay = _FIRST_DELAY
        self._stream: LogStream | None = None
        self._new = False

    def add(self, logged: Logged) -> bool:
        """Let an entry wait, or drop it; whether the thread has to look."""
        count = len(self.waiting)
        if count >= MAX_ENTRIES:
            self._count("dropped", 1)
            return False
        if not count:
            self._since = monotonic()
        self.waiting.append(logged)
        return count in (0, self._enough)

    def due_in(self, now: float) -> float:
        """Seconds until something is to be sent; infinite where nothing waits."""
        if not self.waiting:
            return inf
        at = -inf if len(self.waiting) > self._enough else self._since + self.policy.flush_interval
        return max(at, self._retry_at) - now

    def flush(self, limit: float = _LIMIT) -> None:
        """Send what waits, within some seconds for each step."""
        try:
            self._send_all(limit)
        except UpstreamError as exc:
            self._fail(exc)
        except Exception as exc:
            # What cannot be encoded is no reason to end the thread.
            logger.exception("LogService %s: entries are lost", self.policy.name)
            self._fail(exc)

    def close(self, limit: float) -> None:
        """Send what is left, and end the stream, within some seconds altogether."""
        end = monotonic() + limit
        if self.waiting:
            self.flush(limit)
        if self.waiting:
            self._count("dropped", len(self.waiting))
            self.waiting.clear()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close(max(0.0, end - monotonic()))

    def _send_all(self, limit: float) -> None:
        end = monotonic() + limit
        if self._stream is not None and not self._stream.is_open():
            # A service that has started anew: nothing is lost.
            self._stream.close(0.0)
            self._stream = None
        if self._stream is None:
            self._stream, self._new = self._connect(self.policy, limit), True
        while self.waiting:
            entries = self._take()
            fields: dict[str, object] = {f"{self.policy.driver}_logs": {"log_entry": entries}}
            if self._new:
                fields["identifier"] = self._identifier
            try:
                self._stream.send(encode(STREAM_MESSAGE, fields), max(0.0, end - monotonic()))
            except BaseException:
                self._count("dropped", len(entries))
                raise
            self._new, self._delay = False, _FIRST_DELAY
            self._count("sent", len(entries))

    def _take(self) -> list[bytes]:
        """The entries of one message."""
        entries: list[bytes] = []
        size = 0
        while self.waiting and (not entries or size < self.policy.flush_bytes):
            try:
                entries.append(encoded(self.waiting.popleft(), self.policy))
            except BaseException:
                self._count("dropped", len(entries) + 1)
                raise
            size += len(entries[-1])
        return entries

    def _fail(self, error: Exception) -> None:
        now = monotonic()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close(0.0)
        self._retry_at = now + self._delay
        self._delay = min(self._delay * 2, _MAX_DELAY)
        if now >= self._logged_at + _LOG_INTERVAL:
            self._logged_at = now
            logger.warning("LogService %s cannot be told, requests go on without it: %s", self.policy.name, error)

    def _count(self, result: str, count: int) -> None:
        self._tally("log_entries", self.policy.service.text, result, count=count)
