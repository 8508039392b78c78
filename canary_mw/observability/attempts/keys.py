"""The keys of an attempt to which something has happened, in this worker; readers add up those of all workers."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from itertools import chain
from time import time
from typing import Protocol
from zlib import crc32

from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts.layout import CHUNK, ENTRY, Entry, entries
from canary_mw.observability.figures.layout import Kind
from canary_mw.observability.figures.writer import FiguresWriter

_FIRST_CHUNK, _LARGEST_CHUNK = 64, 4096
# A network is a /24 or a /64.
_HOST_BITS = {4: 8, 6: 64}
_CACHE_SIZE = 1024


class Touched:
    """The keys to which anything has happened: one look-up says that nothing has.

    Attributes:
        keys: stays the same set.
        logs: that have them.
    """

    __slots__ = ("keys", "logs")

    def __init__(self) -> None:
        self.keys: set[int] = set()
        self.logs: list[KeyLog] = []

    def renew(self) -> None:
        """Forget the keys that no log has."""
        self.keys.clear()
        self.keys.update(*(each.known for each in self.logs))


class KeyLog:
    """Keys to which one thing has happened, each once a step.

    Args:
        key: release, attempt and the name of the measure.
        cap: the most keys that are kept.
        touched: is told of the keys.

    Attributes:
        known: for each key the steps in which it happened, as bits.
        mask: the low bits of kept keys, which are 0. Call all methods with the lock of the figures held.
    """

    __slots__ = ("_busy", "_cap", "_chunks", "_figures", "_generation", "_key", "_late", "_touched", "known", "mask")

    def __init__(self, figures: FiguresWriter, key: tuple[str, ...], cap: int, touched: Touched | None = None) -> None:
        self.known: dict[int, int] = {}
        self.mask = 0
        self._figures = figures
        self._key = key
        self._cap = cap
        self._generation = 0
        self._chunks = 0
        self._busy = False
        self._late: list[tuple[Entry, int]] = []
        self._touched = touched or Touched()
        self._touched.logs.append(self)

    def add(self, digest: int, arm: int, step: int, network: int = 0) -> None:
        """Keep a key, unless it is thinned out.

        A collection of garbage in the midst of this may end another request, whose key is then kept after this one.
        """
        self._late.append((Entry(digest, arm, network, int(time())), step))
        if self._busy:
            return
        self._busy = True
        try:
            while self._late:
                self._keep(*self._late.pop())
        finally:
            self._busy = False

    def _keep(self, entry: Entry, step: int) -> None:
        digest, known = entry.digest, self.known
        if not digest & self.mask:
            known[digest] = known.get(digest, 0) | 1 << step
            self._touched.keys.add(digest)
            self._write([entry])
            if len(known) > self._cap:
                self._thin()

    def _write(self, new: Sequence[Iterable[int]]) -> bool:
        """Write entries; returns whether there was room for all."""
        while new:
            # Looked up each time: the memory of figures moves where their file was removed.
            chunk = self._record(self._chunks - 1) if self._chunks else None
            count = CHUNK.unpack_from(chunk)[1] if chunk is not None else 0
            room = (len(chunk) - CHUNK.size) // ENTRY.size - count if chunk is not None else 0
            if chunk is None or not room:
                chunk, count = self._record(self._chunks), 0
                if chunk is None:
                    return False
                self._chunks += 1
                room = (len(chunk) - CHUNK.size) // ENTRY.size
            packed = b"".join(ENTRY.pack(*each) for each in new[:room])
            start = CHUNK.size + count * ENTRY.size
            chunk[start : start + len(packed)] = packed
            CHUNK.pack_into(chunk, 0, self.mask.bit_length(), count + len(new[:room]))
            new = new[room:]
        return True

    def _record(self, number: int) -> memoryview | None:
        size = CHUNK.size + min(_FIRST_CHUNK << number, _LARGEST_CHUNK) * ENTRY.size
        return self._figures.record(Kind.KEYS, (*self._key, str(self._generation), str(number)), size)

    def _thin(self) -> None:
        """Keep half of the keys. Both lie in the file for a moment, so that a process that is killed loses nothing."""
        chunks = [chunk for chunk in map(self._record, range(self._chunks)) if chunk is not None]
        mask = self.mask = self.mask << 1 | 1
        self.known = {digest: steps for digest, steps in self.known.items() if not digest & mask}
        self._touched.renew()
        kept = [each for each in chain.from_iterable(entries(chunk)[1] for chunk in chunks) if not each[0] & mask]
        before = self._generation, self._chunks
        self._generation, self._chunks = 1 - self._generation, 0
        moved = self._write(kept)
        if not moved:
            self._empty(map(self._record, range(self._chunks)))
            self._generation, self._chunks = before
        self._empty(chunks)
        if not moved:
            self._chunks = 0
            self._write(kept)

    def _empty(self, chunks: Iterable[memoryview | None]) -> None:
        for chunk in chunks:
            if chunk is not None:
                CHUNK.pack_into(chunk, 0, self.mask.bit_length(), 0)


class ClientAddresses(Protocol):
    """Knows the clients of requests."""

    def address_of(self, head: RequestHead) -> str | None:
        """The address of the client behind trusted proxies, None where it is not known."""


@lru_cache(_CACHE_SIZE)
def network_of(client: str | None) -> int:
    """16 bits of a hash of the network of a client, /24 or /64; 0 where it is not known."""
    try:
        address = ip_address(client or "")
    except ValueError:
        return 0
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    network = int(address) >> _HOST_BITS[address.version]
    return crc32(f"{address.version} {network}".encode()) % 0xFFFF + 1
