"""Clients that have ended their sending side: they wait for an answer, or have left.

TCP tells which when something is sent: a client that has left answers with a reset. What is sent is the beginning of
the answer, which is the same for all, a byte at a time and with growing pauses.
"""

import asyncio
import select
import socket
import sys
from typing import Any

# Seconds until the first byte of an answer that is not ready is sent; each pause is twice the one before.
PROBE_DELAY, MAX_PROBE_DELAY = 0.25, 32.0
# How every response begins (`http.response_writer`).
_BEGINNING = b"HTTP/1.1 "
# Offset of `tcpi_bytes_acked`, 64 bits, in Linux's `struct tcp_info`.
_BYTES_ACKED = 120


class ProbingTransport:
    """The transport of a client that sends no more, for the response that it waits for.

    The first write is the response: it goes on where the probes have ended, and ends them.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self._loop = loop
        self._sent = 0
        self._delay = PROBE_DELAY
        self._timer: asyncio.TimerHandle | None = loop.call_later(PROBE_DELAY, self._probe)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Write, without what was sent of it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.transport.write(data[self._sent :])
        self._sent = 0

    def _probe(self) -> None:
        if self.transport.is_closing():
            return
        if _was_reset(self.transport.get_extra_info("socket")):
            self.transport.abort()
            return
        if self._sent < len(_BEGINNING):
            self.transport.write(_BEGINNING[self._sent : self._sent + 1])
            self._sent += 1
        self._delay = min(2 * self._delay, MAX_PROBE_DELAY)
        self._timer = self._loop.call_later(self._delay, self._probe)


def _was_reset(sock: socket.socket) -> bool:
    poll = select.poll()
    # Errors and hang-ups are always reported.
    poll.register(sock.fileno(), 0)
    return bool(poll.poll(0))


def bytes_acked(sock: socket.socket) -> int | None:
    """Bytes of what was sent that the peer has acknowledged; None where the system does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
    except (AttributeError, OSError):
        return None
    return int.from_bytes(info[_BYTES_ACKED:], sys.byteorder) if len(info) == _BYTES_ACKED + 8 else None
