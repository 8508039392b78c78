"""The keys of an attempt to which something has happened, in this worker; readers add up those of all workers."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from itertools import chain
from time import time
from typing import Protocol
from zlib import crc32

from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts.layout import CHUNK, ENTRY, entries
from canary_mw.observability.figures.layout import Kind
from canary_mw.observability.figures.storage import Storage
from canary_mw.observability.figures.writer import FiguresWriter

_FIRST_CHUNK, _LARGEST_CHUNK = 64, 4096
# A network is a /24 or a /64.
_HOST_BITS = {4: 8, 6: 64}
_CACHE_SIZE = 1024


def nothing() -> None:
    """Nobody is told."""


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

    __slots__ = (
        "_busy",
        "_cap",
        "_chunks",
        "_count",
        "_figures",
        "_generation",
        "_key",
        "_late",
        "_open",
        "_room",
        "_storage",
        "_tell",
        "_touched",
        "_watched",
        "known",
        "mask",
    )

    def __init__(self, figures: FiguresWriter, key: tuple[str, ...], cap: int, touched: Touched | None = None) -> None:
        self.known: dict[int, int] = {}
        self.mask = 0
        self._figures = figures
        self._key = key
        self._cap = cap
        self._generation = 0
        self._chunks = 0
        self._busy = False
        self._late: list[tuple[int, int, int, int]] = []
        # The chunk that is written, its entries, and what it has room for.
        self._open: memoryview | None = None
        self._count = self._room = 0
        self._storage: Storage | None = None
        self._watched: set[int] = set()
        self._tell: Callable[[], object] = nothing
        self._touched = touched or Touched()
        self._touched.logs.append(self)

    def watch(self, arm: int, tell: Callable[[], object]) -> None:
        """Call a function for each key of an arm that is added."""
        self._watched.add(arm)
        self._tell = tell

    def add(self, digest: int, arm: int, step: int, network: int = 0) -> None:
        """Keep a key, unless it is thinned out.

        A collection of garbage in the midst of this may end another request, whose key is then kept after this one.
        """
        self._late.append((digest, arm, step, network))
        if self._busy:
            return
        self._busy = True
        try:
            while self._late:
                self._keep(*self._late.pop())
        finally:
            self._busy = False

    def _keep(self, digest: int, arm: int, step: int, network: int) -> None:
        if not digest & self.mask:
            known = self.known
            known[digest] = known.get(digest, 0) | 1 << step
            self._touched.keys.add(digest)
            self._write_one((digest, arm, network, int(time())))
            if arm in self._watched:
                self._tell()
            if len(known) > self._cap:
                self._thin()

    def _write_one(self, entry: tuple[int, int, int, int]) -> None:
        chunk, count = self._open, self._count
        # The memory of figures moves where their file was removed.
        if chunk is None or count >= self._room or self._storage is not self._figures.storage:
            self._write([entry])
        else:
            ENTRY.pack_into(chunk, CHUNK.size + count * ENTRY.size, *entry)
            self._count = count + 1
            CHUNK.pack_into(chunk, 0, self.mask.bit_length(), count + 1)

    def _write(self, new: Sequence[tuple[int, ...]]) -> bool:
        """Write entries; returns whether there was room for all."""
        self._storage = self._figures.storage
        while new:
            self._open = chunk = self._record(self._chunks - 1) if self._chunks else None
            count = CHUNK.unpack_from(chunk)[1] if chunk is not None else 0
            room = (len(chunk) - CHUNK.size) // ENTRY.size if chunk is not None else 0
            if chunk is None or count >= room:
                chunk, count = self._record(self._chunks), 0
                if chunk is None:
                    return False
                self._open = chunk
                self._chunks += 1
                room = (len(chunk) - CHUNK.size) // ENTRY.size
            part = new[: room - count]
            packed = b"".join(ENTRY.pack(*each) for each in part)
            start = CHUNK.size + count * ENTRY.size
            chunk[start : start + len(packed)] = packed
            self._count, self._room = count + len(part), room
            CHUNK.pack_into(chunk, 0, self.mask.bit_length(), self._count)
            new = new[len(part) :]
        return True

    def _record(self, number: int) -> memoryview | None:
        size = CHUNK.size + min(_FIRST_CHUNK << number, _LARGEST_CHUNK) * ENTRY.size
        return self._figures.record(Kind.KEYS, (*self._key, str(self._generation), str(number)), size)

    def _thin(self) -> None:
        """Keep half of the keys. Both lie in the file for a moment, so that a process that is killed loses nothing."""
        self._open = None
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
