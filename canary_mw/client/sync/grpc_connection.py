"""One HTTP/2 connection to a gRPC server, for threads, with one call at a time: the twin of that for asyncio.

Streams are here alone: what sends them has a thread of its own.
"""

import math
import select
import socket
import ssl
from contextlib import suppress
from time import monotonic
from typing import Protocol
from weakref import finalize

from canary_mw.client.grpc.call import Call
from canary_mw.client.grpc.session import Session
from canary_mw.client.sync.connect import MAX_TIMEOUT
from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamProtocolError, UpstreamTimeout
from canary_mw.rules.upstream import DEFAULT_OPTIONS, UpstreamOptions

# Larger than a TLS record (RFC 8446, section 5.1): `poll` does not see the rest of a record that is read in part.
_SEGMENT = 65536
# Reads of what an idle connection has received. A server that has sent more has other things in mind than answers.
_MAX_READS = 16
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """The pool of a connection."""

    def release(self, connection: "SyncGrpcConnection") -> None:
        """Take back a reusable connection."""

    def discard(self, connection: "SyncGrpcConnection") -> None:
        """Remove a closed connection."""


class SyncGrpcConnection:
    """See `PooledConnection`. One thread at a time uses it.

    Args:
        pool: the owner of the connection.
        authority: the name of the server, for messages.
        sock: connected, after any TLS handshake, non-blocking. The connection closes it.
    """

    def __init__(self, pool: Owner, authority: str, sock: socket.socket) -> None:
        # When nobody uses its client any more, and at exit. A socket that is collected open is a warning.
        finalize(self, sock.close)
        self._pool = pool
        self._authority = authority
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._session = Session(authority)
        self._unsent = bytearray()
        self._heard_at = -math.inf
        self._abort_error: UpstreamError | None = None
        self.closed = self.reused = False
        self.options = DEFAULT_OPTIONS
        self.opened_at = monotonic()

    def exchange(self, call: Call, deadline: float, options: UpstreamOptions) -> None:
        """Make a call; return when it has ended. `deadline` is a monotonic time."""
        self.options = options
        started = monotonic()
        self._session.open(call)
        try:
            while not call.ended:
                self._flush()
                self._wait(call, started, deadline)
        except BaseException:
            self.fail(UpstreamProtocolError(f"{self._authority}: the call was cancelled", sent=True))
            raise
        self._flush()

    def begin(self, call: Call) -> None:
        """Open a stream; what is sent goes with its first message."""
        self._session.open(call)

    def push(self, call: Call, message: bytes, deadline: float) -> None:
        """Send a message of a stream, as soon as the server takes it; the stream may have ended then."""
        self.hear()
        self._session.push(call, message)
        started = monotonic()
        self._flush()
        while not call.ended and (call.unsent or self._unsent):
            self._wait(call, started, deadline)
            self._flush()

    def hear(self) -> None:
        """Read what the server has sent: the end of a stream, an answer before the end, or the reason of one."""
        for _ in range(_MAX_READS):
            if self.closed or not self._receive_some():
                return

    def finish(self, call: Call, deadline: float) -> None:
        """End a stream and wait for the answer, so that the server has read all; then close."""
        self._session.finish(call)
        while not call.ended:
            self._flush()
            self._wait(call, monotonic(), deadline)
        self.fail(UpstreamConnectError(f"{self._authority}: the stream is over"))

    def release(self) -> None:
        """Return to the pool if it can take another call, else close."""
        if not self.closed and not self._unsent and self._session.room:
            self._pool.release(self)
        else:
            self.fail(UpstreamConnectError(f"{self._authority}: the connection takes no more calls"))

    def fail(self, error: UpstreamError) -> None:
        """See `PooledConnection`."""
        self._session.lose(error)
        if not self.closed:
            self._close_socket()
            self._pool.discard(self)

    def is_reusable(self) -> bool:
        """See `PooledConnection`. Frames that have arrived meanwhile are read: they may say that the server leaves."""
        for _ in range(_MAX_READS):
            if not self._is_readable() or not self._receive_some():
                return not self.closed and self._session.room > 0
        return False

    def abort(self, error: UpstreamError) -> None:
        """See `PooledConnection`."""
        self._abort_error = error
        with suppress(OSError):
            # Of the plain socket: an SSLSocket must not be used by two threads at once.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def abandon(self, error: UpstreamError) -> None:
        """See `PooledConnection`."""
        if not self.closed:
            self._close_socket()

    def _close_socket(self) -> None:
        self.closed = True
        self._unsent.clear()
        self._sock.close()

    def _wait(self, call: Call, started: float, deadline: float) -> None:
        """Wait until more can be sent, or receive a part of the answer."""
        remaining = deadline - monotonic()
        events = select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN
        ready = self._poll_events(events, remaining) if remaining > 0 and not call.ended else 0
        if ready & ~select.POLLOUT:
            self._receive_some()
        elif not ready and not call.ended:
            self._session.cancel(
                call, UpstreamTimeout(f"{self._authority}: no answer to the call before the deadline", sent=True)
            )
            if self._heard_at < started:
                # Nothing at all has come: the server may be gone, and the next call is not to wait for it.
                self.fail(UpstreamConnectError(f"{self._authority}: has sent nothing before the deadline", sent=True))

    def _flush(self) -> None:
        """Send what can be sent without waiting."""
        self._unsent += self._session.outgoing()
        while self._unsent and not self.closed:
            try:
                sent = self._sock.send(self._unsent)
            except _BLOCKED:
                return
            except OSError as exc:
                self.hear()
                self._lose_connection(exc)
                return
            del self._unsent[:sent]

    def _receive_some(self) -> bool:
        """Read once; whether there was anything to read, the end of the stream included."""
        try:
            data = self._sock.recv(_SEGMENT)
        except _BLOCKED:
            return False
        except OSError as exc:
            self._lose_connection(exc)
            return True
        if not data:
            self._lose_connection(None)
            return True
        self._heard_at = monotonic()
        self._session.receive(data)
        if self._session.error is not None:
            self.fail(self._session.error)
        return True

    def _lose_connection(self, exc: OSError | None) -> None:
        reason = f"the connection was lost: {exc}" if exc else "the server has closed the connection"
        self.fail(self._abort_error or UpstreamConnectError(f"{self._authority}: {reason}", sent=True))

    def _is_readable(self) -> bool:
        return not self.closed and bool(self._poll_events(select.POLLIN, 0))

    def _poll_events(self, events: int, timeout: float) -> int:
        self._poll.modify(self._sock, events)
        found = self._poll.poll(None if timeout == math.inf else min(timeout, MAX_TIMEOUT) * 1000)
        return found[0][1] if found else 0
