"""One HTTP/1.1 connection to an upstream on a blocking thread, and the exchange that is on it (RFC 9112).

The twin of `connection`: what the event loop does there in the background is done here by whoever waits for the answer.
"""

import math
import select
import socket
import ssl
from collections.abc import Generator, Iterator
from contextlib import suppress
from time import monotonic
from typing import Protocol

from canary_mw.client.sync.connect import MAX_TIMEOUT
from canary_mw.client.sync.sockets import MAX_READ, nothing_to_read, receive, send
from canary_mw.exceptions import UpstreamProtocolError, UpstreamTimeout
from canary_mw.http.request_writer import iter_encoded
from canary_mw.http.response_parser import ResponseParser
from canary_mw.rules.upstream import DEFAULT_OPTIONS, UpstreamOptions

SyncUpload = tuple[Iterator[bytes], int | None]

# More than a record of TLS (RFC 8446, section 5.1): what is left of one would wait where `poll` does not see it.
_SEGMENT = 65536
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """The pool of a connection."""

    def release(self, connection: "SyncConnection") -> None:
        """It may serve again."""

    def discard(self, connection: "SyncConnection") -> None:
        """It was closed."""


class SyncConnection(ResponseParser):
    """One connection and the exchange that is on it; one thread at a time uses it.

    Args:
        pool: where it is given back.
        authority: see `Answer`.
        max_head: see `Answer`.
        sock: connected, and after its TLS handshake; belongs to the connection from here on.

    Attributes:
        closed: nothing can be sent any more.
        error: why the answer will never be complete, or None.
        options: of the request that it serves, or served last.
        reused: it has served a request before.
        since: monotonic time at which it was made.
    """

    __slots__ = (
        "__weakref__",
        "_cut",
        "_deadline",
        "_idle",
        "_last",
        "_mask",
        "_out",
        "_plain",
        "_poll",
        "_pool",
        "_sock",
        "_upload",
        "closed",
        "error",
        "options",
        "reused",
        "since",
    )

    def __init__(self, pool: Owner, authority: str, max_head: int, sock: socket.socket) -> None:
        super().__init__(authority, max_head)
        self._pool = pool
        self._sock = sock
        self._plain = type(sock) is socket.socket
        self._mask = select.POLLIN
        self._poll = select.poll()
        self._poll.register(sock, self._mask)
        self.closed = self.reused = False
        self.error: Exception | None = None
        self.options = DEFAULT_OPTIONS
        self.since = self._last = monotonic()
        self._idle: float | None = None
        self._deadline = math.inf
        self._out: bytes | memoryview = b""
        self._upload: Generator[bytes, None, bytes] | None = None
        self._cut: Exception | None = None

    # The exchange, as its caller drives it.

    def exchange(
        self, data: bytes, head_only: bool, deadline: float, upload: SyncUpload | None, options: UpstreamOptions
    ) -> None:
        """Send a request; return when `head` is there, or raise why it never will be.

        Args:
            deadline: monotonic time.
        """
        self._expect(head_only)
        self.options = options
        self._deadline = deadline
        self._idle = options.idle_timeout
        self._moved()
        self._out = data
        self._upload = None if upload is None else iter_encoded(*upload)
        self._push()
        if self._plain and self._upload is None and not self._out:
            # With many threads it has been a while since we had the lock, and the answer may be there.
            self._pull()
        while self.head is None and self.error is None:
            self.wait()
        if self.head is None:
            assert self.error is not None
            raise self.error

    def wait(self) -> None:
        """Until something moved in either direction, or the exchange failed; an interruption closes the connection."""
        try:
            self._turn()
        except BaseException:
            self.fail(UpstreamProtocolError(f"{self._authority}: the exchange was given up", sent=True))
            raise

    def look(self) -> None:
        """Read what has come already, as far as it is little."""
        while not self.complete and self.error is None and self._unread < _SEGMENT and self._has_come():
            self._pull()

    def take_pieces(self) -> bytes:
        """What has come of the body and was not taken yet."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        return data

    def release(self) -> None:
        """Back to the pool if the exchange left nothing behind in either direction, else close."""
        if self.complete and self._keep_alive and not self.closed and self._upload is None and not self._out:
            self.take_pieces()
            self._pool.release(self)
        else:
            self.fail(UpstreamProtocolError(f"{self._authority}: the answer was closed before its end", sent=True))

    def fail(self, error: Exception) -> None:
        """Close at once; an exchange that is not complete ends with `error`, the first one counts."""
        if not self.complete and self.error is None:
            self.error = error
        if not self.closed:
            self._shut()
            self._pool.discard(self)

    def move_deadline(self, when: float) -> None:
        """The exchange may last longer than was said: until monotonic time `when`."""
        self._deadline = when

    # While it is idle, or from another thread.

    def quiet(self) -> bool:
        """Whether an idle connection is as it was left: neither ended nor told anything that nobody asked for."""
        if self._plain:
            return nothing_to_read(self._sock.fileno())
        if not self._has_come():
            return True
        try:
            self._sock.recv(1)
        except _BLOCKED:
            # No more than a record of TLS itself.
            return True
        except OSError:
            return False
        return False

    def cut(self, error: Exception) -> None:
        """End the exchange of another thread, which then gets `error`."""
        self._cut = error
        with suppress(OSError):
            # Past the TLS layer, which must not be touched from two threads.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def abandon(self, error: Exception) -> None:
        """In a forked child: let go of the parent's connection without a word on it."""
        self.error = error
        if not self.closed:
            self._shut()

    def _shut(self) -> None:
        self.closed = True
        self._out = b""
        self._upload = None
        self._parser = None
        self._sock.close()

    # One step of the exchange.

    def _turn(self) -> None:
        """Some of the request goes out, or some of the answer comes in."""
        if self._upload is not None and not self._out and not self._has_come():
            self._refill(self._upload)
            if self.error is not None:
                return
        ready = self._until_ready(select.POLLIN | select.POLLOUT if self._out else select.POLLIN)
        if ready & ~select.POLLOUT:
            self._pull()
        elif ready:
            self._push()

    def _refill(self, upload: Generator[bytes, None, bytes]) -> None:
        try:
            self._out = next(upload)
        except StopIteration as stop:
            self._out = stop.value
            self._upload = None
        except Exception as exc:  # noqa: BLE001 - whatever the client's body raised is for the one who awaits the answer
            self.fail(exc)

    def _until_ready(self, events: int) -> int:
        """What of the events is there; 0 when a limit passed before, which fails the exchange."""
        due = self._deadline if self._idle is None else min(self._deadline, self._last + self._idle)
        if due == math.inf:
            return self._poll_for(events, None)
        now = monotonic()
        # Where only the idle time is over, what has come meanwhile counts: it may be the reader who was slow.
        late = now >= (due if self._out else self._deadline)
        ready = 0 if late else self._poll_for(events, max(due - now, 0.0))
        if not ready:
            missing = "answer" if self.head is None else "end of the answer"
            limit = "the deadline" if due == self._deadline else f"{self._idle:g} s without a byte were over"
            self.fail(UpstreamTimeout(f"{self._authority}: no {missing} before {limit}", sent=True))
        return ready

    def _has_come(self) -> bool:
        """Whether something can be read without waiting."""
        return bool(self._poll_for(select.POLLIN, 0))

    def _poll_for(self, events: int, timeout: float | None) -> int:
        if events != self._mask:
            self._mask = events
            self._poll.modify(self._sock, events)
        found = self._poll.poll(None if timeout is None else min(timeout, MAX_TIMEOUT) * 1000)
        return found[0][1] if found else 0

    def _moved(self) -> None:
        """Bytes went in some direction."""
        if self._idle is not None:
            self._last = monotonic()

    def _push(self) -> None:
        out = self._out
        try:
            # The descriptor is asked for each time: one that was closed may be another socket's by now.
            if self._plain and isinstance(out, bytes) and len(out) <= MAX_READ:
                sent = send(self._sock.fileno(), out)
            else:
                sent = self._sock.send(out)
        except _BLOCKED:
            return
        except OSError:
            self._rescue_answer()
            return
        if sent:
            self._moved()
        self._out = memoryview(out)[sent:] if sent < len(out) else b""

    def _rescue_answer(self) -> None:
        """Read what the upstream said before it cut the upload off, then end."""
        while not self.closed and not self.complete and self._pull():
            pass
        self._ended(clean=False)

    def _pull(self) -> bool:
        """Read once; whether anything came, be it the end."""
        try:
            # A long body is read without the lock, for a call lasts longer then.
            data = receive(self._sock.fileno()) if self._plain and self.head is None else self._sock.recv(_SEGMENT)
        except _BLOCKED:
            return False
        except OSError:
            self._ended(clean=False)
            return True
        if data is None:
            return False
        if not data:
            self._ended(clean=True)
            return True
        self._moved()
        if (error := self._feed(data)) is not None:
            self.fail(error)
        return True

    def _ended(self, *, clean: bool) -> None:
        if clean and self._until_eof and self._cut is None:
            self.complete = True
        self.fail(self._cut or self._early_end())
