"""The destinations of one kind, and the thread that sends what waits for them, so that no request waits for it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from canary_mw.forking import JOIN_TIMEOUT, SystemThread, after_fork, ensure_forked_hooks, start_thread
from canary_mw.locks import new_lock
from canary_mw.observability.exports.destination import Destination

P = TypeVar("P")
T = TypeVar("T")

# Seconds at the end of the process, less than it waits for its threads.
_LAST = JOIN_TIMEOUT * 0.8


class Queues(Generic[P, T]):
    """What a middleware sends to the services of one kind of document; the thread is started with the first item.

    Args:
        make: makes the destination of a document.
        thread: name of the thread.
    """

    def __init__(self, make: Callable[[P], Destination[T]], thread: str) -> None:
        self._make, self._thread_name = make, thread
        self._policies: tuple[P, ...] = ()
        self.reset_after_fork()
        _queues.add(self)

    def reset_after_fork(self) -> None:
        """Create the state of this process: what waits is the parent's, and so are its connections."""
        self._lock = new_lock()
        # Held while there is nothing to do; released to wake the thread.
        self._gate = new_lock()
        self._gate.acquire()
        self._thread: SystemThread | None = None
        self._ended = False
        self._leaving: list[Destination[T]] = []
        self._destinations = {each: self._make(each) for each in self._policies}

    def follow(self, policies: Sequence[P]) -> None:
        """Send by these documents from now on; those that stay keep what waits, and the others are sent the rest."""
        ensure_forked_hooks()
        with self._lock:
            known = dict(self._destinations)
            self._policies = tuple(dict.fromkeys(policies))
            self._destinations = {
                each: known.pop(each) if each in known else self._make(each) for each in self._policies
            }
            if self._thread is not None:
                self._leaving += known.values()
                self.wake()

    def add(self, item: T) -> None:
        """Let something wait, for all destinations."""
        ensure_forked_hooks()
        wakes = [each.add(item) for each in self._destinations.values()]
        if any(wakes):
            with self._lock:
                if self._thread is None:
                    self._ended = False
                    self._thread = start_thread(self._run, self._thread_name, stop=self.end)
                self.wake()

    def waiting(self) -> list[T]:
        """What waits, for all destinations."""
        return [item for each in self._destinations.values() for item in list(each.waiting)]

    def wake(self) -> None:
        """Let the thread look."""
        with suppress(RuntimeError):
            self._gate.release()

    def end(self) -> None:
        """Ask the thread to end."""
        self._ended = True
        self.wake()

    def close(self) -> None:
        """Send what is left, within the time that a thread has to end; a later item starts a new thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self.end()
            thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        while not self._ended:
            pause = min((each.due_in(monotonic()) for each in self._current()), default=inf)
            if pause > 0:
                self._gate.acquire(timeout=-1 if pause == inf else pause)
            if not self._ended:
                self._flush_due()
        self._close([*self._leaving, *self._current()])

    def _current(self) -> list[Destination[T]]:
        return list(self._destinations.values())

    def _flush_due(self) -> None:
        leaving, self._leaving = self._leaving, []
        self._close(leaving)
        for each in self._current():
            if each.due_in(monotonic()) <= 0 and not self._ended:
                each.flush()

    def _close(self, destinations: Sequence[Destination[T]]) -> None:
        end = monotonic() + _LAST
        for each in destinations:
            each.close(max(0.0, end - monotonic()))


_queues: "WeakSet[Queues[Any, Any]]" = WeakSet()


def _after_fork() -> None:
    for each in list(_queues):
        each.reset_after_fork()


after_fork(_after_fork)
