"""Users of pods behind what a Service does: requests go to pods that are ready, and none is sent twice.

Each user has a sticky key whose slot is known, so an answer tells whether a pod gives gray more than it may.
"""

import asyncio
import contextlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from time import monotonic
from typing import NamedTuple

from pods import Pod

from canary_mw.routing.sticky import digest_function
from canary_mw.rules.release import SLOTS, HashFunction

_KEYS = 1000
_PATIENCE = 20.0


class Seen(NamedTuple):
    """An answer.

    Attributes:
        percent: the least weight with which this user gets gray.
        began, ended: seconds of the monotonic clock.
    """

    pod: str
    percent: float
    gray: bool
    began: float
    ended: float


class Balancer:
    """The pods that get requests."""

    def __init__(self) -> None:
        self.ready: list[Pod] = []
        self._running: Counter[str] = Counter()
        self._turn = 0

    async def remove(self, pod: Pod) -> None:
        """Send nothing to a pod any more; returns when it has answered all that it was sent."""
        self.ready.remove(pod)
        while self._running[pod.name]:  # noqa: ASYNC110 - clients do not announce it
            await asyncio.sleep(0.005)

    def next(self) -> Pod:
        """The pod for the next request: each in turn."""
        self._turn += 1
        return self.ready[self._turn % len(self.ready)]

    @contextlib.contextmanager
    def asking(self, pod: Pod) -> Iterator[None]:
        """While a pod is asked."""
        self._running[pod.name] += 1
        try:
            yield
        finally:
            self._running[pod.name] -= 1


class Users:
    """Users of one release.

    Attributes:
        seen: all answers.
        failed: what became of requests without one.
        over: set to end them.
    """

    def __init__(self, balancer: Balancer, release: str, port: int) -> None:
        self.seen: list[Seen] = []
        self.failed: list[str] = []
        self.over = False
        self._balancer, self._release, self._port = balancer, release, port
        self._keys = _keys(release)
        self._random = Random(1)

    async def visit(self, pause: float) -> None:
        """Ask as users in turn, with seconds between two requests."""
        async with _Connections(self._port) as connections:
            while not self.over:
                await self._ask(connections, self._balancer.next(), *self._random.choice(self._keys))
                await asyncio.sleep(pause)

    async def probe(self, weight: Callable[[], float], pause: float) -> None:
        """Ask all pods at once, again and again, as the user who is the first to get gray above a weight."""
        async with _Connections(self._port) as connections:
            while not self.over:
                place = bisect_right(self._keys, (weight(), b"\xff"))
                if place < len(self._keys):
                    pods = list(self._balancer.ready)
                    await asyncio.gather(*(self._ask(connections, each, *self._keys[place]) for each in pods))
                await asyncio.sleep(pause)

    async def _ask(self, connections: "_Connections", pod: Pod, percent: float, key: bytes) -> None:
        began = monotonic()
        with self._balancer.asking(pod):
            try:
                async with asyncio.timeout(_PATIENCE):
                    status, body = await connections.ask(pod, self._release, key)
            except (OSError, EOFError, TimeoutError) as exc:
                self.failed.append(f"{pod.name}: {exc!r}")
                await asyncio.sleep(0.1)
                return
        if status != b"200":
            self.failed.append(f"{pod.name}: {status!r} {body!r}")
        self.seen.append(Seen(pod.name, percent, body == b"gray", began, monotonic()))


class _Connections:
    """A connection to each pod, for one request at a time to each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: dict[str, tuple[int, asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> "_Connections":
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in [*self._open]:
            await self._leave(name)

    async def ask(self, pod: Pod, release: str, key: bytes) -> tuple[bytes, bytes]:
        """Status and body of the answer of a pod."""
        reader, writer = await self._to(pod)
        try:
            writer.write(b"GET /%b/ HTTP/1.1\r\nhost: shop\r\nx-user: %b\r\n\r\n" % (release.encode(), key))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        except BaseException:
            await self._leave(pod.name)
            raise
        if b"connection: close" in head:
            await self._leave(pod.name)
        return head.split(b" ", 2)[1], body

    async def _to(self, pod: Pod) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        life, *found = self._open.get(pod.name, (0,))
        if life != pod.lives:
            if found:
                await self._leave(pod.name)
            made = await asyncio.open_connection(pod.host, self._port)
            self._open[pod.name] = (pod.lives, *made)
        return self._open[pod.name][1:]

    async def _leave(self, name: str) -> None:
        _, _, writer = self._open.pop(name)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def exceeding(seen: Sequence[Seen], weights: Sequence[tuple[float, float]]) -> list[Seen]:
    """The answers from gray that no weight allowed while they were asked for.

    Args:
        weights: (since when, percent), in order.
    """
    times = [at for at, _ in weights]
    found = []
    for each in seen:
        if each.gray:
            first, last = max(bisect_right(times, each.began) - 1, 0), bisect_right(times, each.ended)
            if each.percent >= max((weight for _, weight in weights[first:last]), default=0.0):
                found.append(each)
    return found


def _keys(salt: str) -> list[tuple[float, bytes]]:
    """(percent, key) of users, spread evenly, in the order of their slots."""
    digest = digest_function(HashFunction("sha256", salt))
    found: dict[int, tuple[float, bytes]] = {}
    number = 0
    while len(found) < _KEYS:
        key = b"user-%d" % number
        slot = digest(key) * SLOTS >> 64
        found.setdefault(slot * _KEYS // SLOTS, (100 * slot / SLOTS, key))
        number += 1
    return sorted(found.values())
