"""A transport without a network: what a protocol writes is kept, what it receives comes in any segments."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

PEER = ("192.0.2.7", 4711)
OWN = ("127.0.0.1", 8080)


class _Socket:
    """As much of a socket as is asked for."""

    def getpeername(self) -> tuple[str, int]:
        return PEER

    def getsockname(self) -> tuple[str, int]:
        return OWN

    def setsockopt(self, *_: object) -> None:
        pass


class Pipe(asyncio.Transport):
    """The near end of a connection; the protocol is notified of closing in the next turn, once, as the loops do.

    Attributes:
        written: everything that was, in order.
        aborted: it ended by a reset, not in good order.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.paused = self.aborted = False
        self._closing = self._eof = False
        self._socket = _Socket()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self._socket, "peername": PEER, "sockname": OWN}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof:
            raise RuntimeError("a write after the end was written")
        if not self._closing:
            self.written += data

    def write_eof(self) -> None:
        self._eof = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def leave(self) -> None:
        """The far end closes."""
        if not self._closing:
            self.protocol.eof_received()
            self.close()


async def deliver(pipe: Pipe, segments: Iterator[bytes], *, read: bool = True, turns: int = 1) -> None:
    """Give a protocol its bytes, none while it has paused reading, until it closes.

    Args:
        read: somebody takes what comes, so that reading is not paused for good.
        turns: of the loop, between two segments.
    """
    for segment in segments:
        await settled(lambda: not pipe.paused or pipe.is_closing(), 1000 if read else 0)
        if pipe.is_closing() or (pipe.paused and not read):
            return
        assert not pipe.paused, "reading is paused, and nobody does anything about it"
        pipe.protocol.data_received(segment)
        for _ in range(turns):
            await asyncio.sleep(0)


async def settled(done: Callable[[], bool], turns: int = 1000) -> None:
    """Until something holds, or the loop had that many turns without it."""
    while not done() and turns:
        turns -= 1
        await asyncio.sleep(0)


def cut(data: bytes, step: int) -> Iterator[bytes]:
    """Segments of uneven lengths that come from `step`; 0 leaves the data whole."""
    lengths = (step, 1, 3, 2 * step) if step else (len(data) or 1,)
    at = turn = 0
    while at < len(data):
        length = lengths[turn % len(lengths)]
        yield data[at : at + length]
        at, turn = at + length, turn + 1
