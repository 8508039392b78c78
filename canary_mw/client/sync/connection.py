"""One HTTP/1.1 connection to an upstream, for threads, and its current exchange (RFC 9112).

The counterpart of `client.aio.connection`. What the event loop does there in the background is done here by the thread
that waits for the response.
"""

import math
import select
import socket
import ssl
from collections.abc import Generator, Iterator
from contextlib import suppress
from time import monotonic
from typing import Protocol
from weakref import finalize

from canary_mw.client import limits
from canary_mw.client.sync.sockets import MAX_READ, may_keep_lock, nothing_to_read, receive, send
from canary_mw.client.sync.timed_parser import SyncTimedResponseParser
from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.http.request_writer import iter_encoded
from canary_mw.rules.upstream import DEFAULT_OPTIONS, UpstreamOptions

# The chunks, their length, and the seconds from the last one to the response head.
SyncUpload = tuple[Iterator[bytes], int | None, float | None]

# Larger than a TLS record (RFC 8446, section 5.1): `poll` does not see the rest of a record that is read in part.
_SEGMENT = 65536
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """The pool of a connection."""

    def is_shared(self) -> bool:
        """Whether there is more than one connection."""

    def release(self, connection: "SyncConnection") -> None:
        """Take back a reusable connection."""

    def discard(self, connection: "SyncConnection") -> None:
        """Remove a closed connection."""


class SyncConnection(SyncTimedResponseParser):
    """One connection and its current exchange. One thread at a time uses it.

    Args:
        pool: the owner of the connection.
        authority: see `ResponseParser`.
        max_head: see `ResponseParser`.
        sock: connected, after any TLS handshake, non-blocking. The connection closes it.

    Attributes:
        closed: nothing can be sent any more.
        error: why the response will never be complete, or None.
        options: those of the current or the last request.
        reused: the connection has served a request before.
        opened_at: monotonic time at which it was opened.
    """

    __slots__ = (
        "__weakref__",
        "_abort_error",
        "_attempt_deadline",
        "_head_timeout",
        "_keeps_lock",
        "_may_keep_lock",
        "_pool",
        "_upload",
        "closed",
        "error",
        "opened_at",
        "options",
        "reused",
    )

    def __init__(self, pool: Owner, authority: str, max_head: int, sock: socket.socket) -> None:
        super().__init__(authority, max_head, sock)
        # When nobody uses its client any more, and at exit. A socket that is collected open is a warning.
        finalize(self, sock.close)
        self._pool = pool
        self._may_keep_lock = may_keep_lock(sock)
        self._keeps_lock = False
        self.closed = self.reused = False
        self.error: Exception | None = None
        self.options = DEFAULT_OPTIONS
        self.opened_at = self._last_activity
        self._upload: Generator[bytes, None, bytes] | None = None
        self._head_timeout: float | None = None
        self._attempt_deadline = math.inf
        self._abort_error: Exception | None = None

    # The exchange: called by the client and the response.

    def exchange(
        self, data: bytes, head_only: bool, deadline: float, upload: SyncUpload | None, options: UpstreamOptions
    ) -> None:
        """Send a request; return when the response head is received, or raise the error of the exchange.

        Args:
            data: the request head, and the body if it is known whole.
            head_only: the response has no body, as to HEAD.
            deadline: monotonic time.
            upload: a body that is sent in chunks.
            options: those of the request.
        """
        self._start_response(head_only)
        # One thread alone has nobody to wait for, and plain calls cost it less.
        self._keeps_lock = self._may_keep_lock and self._pool.is_shared()
        self.options = options
        self._deadline = deadline
        self._idle_timeout = options.idle_timeout
        self._record_activity()
        self._unsent = data
        self._upload = None if upload is None else iter_encoded(*upload[:2])
        self._head_timeout = None if upload is None else upload[2]
        self._attempt_deadline = deadline
        self._send_some()
        while self.head is None and self.error is None:
            self.wait()
        if self.head is None:
            assert self.error is not None
            raise self.error

    def wait(self) -> None:
        """Wait until bytes are sent or received, or the exchange fails. An interruption closes the connection."""
        try:
            self._step()
        except BaseException:
            self.fail(UpstreamProtocolError(f"{self._authority}: the exchange was cancelled", sent=True))
            raise

    def read_available(self) -> None:
        """Read what has arrived, without waiting, up to one segment."""
        while not self.complete and self.error is None and self._buffered < _SEGMENT and self._is_readable():
            self._receive_some()

    def take_buffered(self) -> bytes:
        """Return and clear the body bytes received so far."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        return data

    def release(self) -> None:
        """Return to the pool if nothing of the exchange is left in either direction, else close."""
        if self.complete and self._keep_alive and not self.closed and self._upload is None and not self._unsent:
            self.take_buffered()
            self._pool.release(self)
        else:
            self.fail(UpstreamProtocolError(f"{self._authority}: the answer was closed before its end", sent=True))

    def fail(self, error: Exception) -> None:
        """Close at once. An incomplete exchange ends with `error`; the first error is kept."""
        if not self.complete and self.error is None:
            self.error = error
        if not self.closed:
            self._close_socket()
            self._pool.discard(self)

    # Called while the connection is idle, or from another thread.

    def is_reusable(self) -> bool:
        """Whether an idle connection is still open and has received no unexpected bytes."""
        if self._keeps_lock:
            return nothing_to_read(self._sock.fileno())
        if not self._is_readable():
            return True
        try:
            self._sock.recv(1)
        except _BLOCKED:
            # A TLS record without application data, such as a session ticket.
            return True
        except OSError:
            return False
        return False

    def abort(self, error: Exception) -> None:
        """Abort the exchange of another thread, which then raises `error`."""
        self._abort_error = error
        with suppress(OSError):
            # Of the plain socket: an SSLSocket must not be used by two threads at once.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def abandon(self, error: Exception) -> None:
        """In a forked child: close the descriptor of the parent's connection without sending anything."""
        self.error = error
        if not self.closed:
            self._close_socket()

    def _close_socket(self) -> None:
        self.closed = True
        self._unsent = b""
        self._upload = None
        self._parser = None
        self._sock.close()

    # Steps of the exchange.

    def _step(self) -> None:
        """Send a part of the request or receive a part of the response."""
        if self._upload is not None and not self._unsent and not self._is_readable():
            self._encode_next_chunk(self._upload)
            if self.error is not None:
                return
        ready = self._wait_ready(select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN)
        if ready & ~select.POLLOUT:
            self._receive_some()
        elif ready:
            self._send_some()

    def _encode_next_chunk(self, upload: Generator[bytes, None, bytes]) -> None:
        try:
            self._unsent = next(upload)
        except StopIteration as stop:
            self._unsent = stop.value
            self._upload = None
            if self._head_timeout is not None and self.head is None:
                self._deadline = min(self._attempt_deadline, monotonic() + self._head_timeout)
        except Exception as exc:  # noqa: BLE001 - an error of the request body is raised where the response is awaited
            self.fail(exc)
        else:
            self._limit_stall()

    def _limit_stall(self) -> None:
        """Give the upstream time to take the next bytes of an upload that has no other limit yet."""
        if self._upload is not None and self._head_timeout is not None and self.head is None:
            self._deadline = min(self._attempt_deadline, monotonic() + limits.MAX_UPLOAD_STALL)

    def _send_some(self) -> None:
        data = self._unsent
        try:
            # fileno() each time: a closed descriptor may belong to another socket by now, and fileno() is -1 then.
            if self._keeps_lock and isinstance(data, bytes) and len(data) <= MAX_READ:
                sent = send(self._sock.fileno(), data)
            else:
                sent = self._sock.send(data)
        except _BLOCKED:
            return
        except OSError:
            self._read_early_response()
            return
        if sent:
            self._record_activity()
            self._limit_stall()
        self._unsent = memoryview(data)[sent:] if sent < len(data) else b""

    def _read_early_response(self) -> None:
        """Read the response that the upstream sent before it closed the connection during the upload, then close."""
        while not self.closed and not self.complete and self._receive_some():
            pass
        self._on_close(clean=False)

    def _receive_some(self) -> bool:
        """Read once; whether there was anything to read, the end of the stream included."""
        try:
            # Body reads release the interpreter lock, because they take longer.
            data = receive(self._sock.fileno()) if self._keeps_lock and self.head is None else self._sock.recv(_SEGMENT)
        except _BLOCKED:
            return False
        except OSError:
            self._on_close(clean=False)
            return True
        if data is None:
            return False
        if not data:
            self._on_close(clean=True)
            return True
        self._record_activity()
        if (error := self._feed(data)) is not None:
            self.fail(error)
        return True

    def _on_close(self, *, clean: bool) -> None:
        if clean and self._until_eof and self._abort_error is None:
            self.complete = True
        self.fail(self._abort_error or self._eof_error())
