"""Look-ups of host names in a few threads of our own.

The default executor of an event loop has few threads, and they belong to the host: one look-up at a silent name server
holds a thread for ten seconds and more. Names whose last look-up failed have fewer threads than the others, so that
they do not hold up a name that has addresses.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from canary_mw.forking import after_fork, start_thread
from canary_mw.locks import new_lock, original

# Threads for names in general, and for those whose last look-up failed. Both are numbers of the process.
MAX_THREADS = (12, 4)
_NAMES, _FAILED_NAMES = 0, 1

Name = tuple[str, int]
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[Sequence[AddressInfo]]]


async def look_up(host: str, port: int) -> Sequence[AddressInfo]:
    """The result of `socket.getaddrinfo`, for TCP. Callers that ask for the same name at once share one look-up.

    Raises:
        OSError: the name has no address.
        UnicodeError: the text is no valid host name.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[AddressInfo]] = loop.create_future()
    _lookups.add((host, port), (loop, future))
    return await future


class _Lookups:
    """The look-ups of a process. A thread starts when one is needed, and ends when no look-up waits for it."""

    def __init__(self) -> None:
        self._lock = new_lock()
        # Of the names that are looked up now, or wait for it.
        self._waiters: dict[Name, list[Waiter]] = {}
        self._queues: tuple[deque[Name], deque[Name]] = (deque(), deque())
        self._threads = [0, 0]
        self._failed: set[Name] = set()

    def add(self, name: Name, waiter: Waiter) -> None:
        with self._lock:
            if name in self._waiters:
                self._waiters[name].append(waiter)
                return
            kind = _FAILED_NAMES if name in self._failed else _NAMES
            self._waiters[name] = [waiter]
            self._queues[kind].append(name)
            if self._threads[kind] >= MAX_THREADS[kind]:
                return
            self._threads[kind] += 1
        try:
            start_thread(partial(self._work, kind), "canary-mw-dns")
        except RuntimeError as exc:
            self._end_thread(kind, OSError(f"no thread for the look-up: {exc}"))

    def _work(self, kind: int) -> None:
        # Not gevent's, which waits in further threads.
        getaddrinfo = original("socket", "getaddrinfo")
        while (name := self._next(kind)) is not None:
            try:
                found: Sequence[AddressInfo] | Exception = getaddrinfo(*name, type=socket.SOCK_STREAM)
            except Exception as exc:  # noqa: BLE001 - raised where it is awaited
                found = exc
            self._finish(name, found)

    def _next(self, kind: int) -> Name | None:
        """The next name that somebody waits for; None ends the thread."""
        with self._lock:
            queue = self._queues[kind]
            while queue:
                name = queue.popleft()
                if not all(future.done() for _, future in self._waiters[name]):
                    return name
                del self._waiters[name]
            self._threads[kind] -= 1
            return None

    def _finish(self, name: Name, found: Sequence[AddressInfo] | Exception) -> None:
        with self._lock:
            waiters = self._waiters.pop(name)
            if isinstance(found, Exception):
                self._failed.add(name)
            else:
                self._failed.discard(name)
        for loop, future in waiters:
            # The loop may be closed by now; then nothing waits for the addresses.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, found)

    def _end_thread(self, kind: int, error: OSError) -> None:
        """After a thread could not be started: if no other is left for its names, they fail."""
        with self._lock:
            self._threads[kind] -= 1
            names = list(self._queues[kind]) if not self._threads[kind] else []
            if names:
                self._queues[kind].clear()
        for name in names:
            self._finish(name, error)


def _settle(future: asyncio.Future[Sequence[AddressInfo]], found: Sequence[AddressInfo] | Exception) -> None:
    if future.done():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)


_lookups = _Lookups()


def _reset_after_fork() -> None:
    """In a forked child: the threads of the parent are not there, and one of them may have held the lock."""
    global _lookups
    _lookups = _Lookups()


after_fork(_reset_after_fork)
