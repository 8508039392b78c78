"""The destinations of one kind, and the thread that sends what waits for them, so that no request waits for it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
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


class _Run:
    """A thread as others see it: where it waits, and whether it is asked to end."""

    def __init__(self) -> None:
        # Held while there is nothing to do; released to wake the thread.
        self.gate = new_lock()
        self.gate.acquire()
        self.ended = False
        self.thread: SystemThread | None = None

    def wake(self) -> None:
        """Let the thread look."""
        with suppress(RuntimeError):
            self.gate.release()

    def end(self) -> None:
        """Ask the thread to end."""
        self.ended = True
        self.wake()


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
        self._run: _Run | None = None
        # What comes after the end is sent, and nobody ends its thread.
        self._closed = False
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
            self._closed = False
            if self._run is not None:
                self._leaving += known.values()
                self._run.wake()

    def add(self, item: T) -> None:
        """Let something wait, for all destinations."""
        ensure_forked_hooks()
        wakes = [each.add(item) for each in self._destinations.values()]
        if any(wakes):
            with self._lock:
                if self._run is None:
                    run = self._run = _Run()
                    run.thread = start_thread(partial(self._work, run), self._thread_name, stop=run.end)
                self._run.wake()

    def waiting(self) -> list[T]:
        """What waits, for all destinations."""
        return [item for each in self._destinations.values() for item in list(each.waiting)]

    def end(self) -> None:
        """Ask the thread to end."""
        run = self._run
        if run is not None:
            run.end()

    def close(self) -> None:
        """Send what is left, within the time that a thread has to end; a later item has a thread until it is sent."""
        with self._lock:
            run, self._run = self._run, None
            self._closed = True
        if run is not None and run.thread is not None:
            run.end()
            run.thread.join(JOIN_TIMEOUT)

    def _work(self, run: _Run) -> None:
        while not run.ended and not self._is_done(run):
            pause = min((each.due_in(monotonic()) for each in self._current()), default=inf)
            if pause > 0:
                run.gate.acquire(timeout=-1 if pause == inf else pause)
            if not run.ended:
                self._flush_due(run)
        self._close([*self._leaving, *self._current()])

    def _is_done(self, run: _Run) -> bool:
        """Whether nothing waits for a thread that nobody will end."""
        with self._lock:
            if not self._closed or self._run is not run or any(each.waiting for each in self._current()):
                return False
            self._run = None
            return True

    def _current(self) -> list[Destination[T]]:
        return list(self._destinations.values())

    def _flush_due(self, run: _Run) -> None:
        leaving, self._leaving = self._leaving, []
        self._close(leaving)
        for each in self._current():
            if each.due_in(monotonic()) <= 0 and not run.ended:
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
