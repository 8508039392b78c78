"""Locks and events of the system, also where gevent has patched `threading`.

What `threading` starts is a greenlet there, and one that waits in native code stops all others. Threads of this package
are threads of the system (`forking.start_thread`). So what they share with greenlets uses the locks of the system:
`new_lock` is held for microseconds and never over I/O, `Mutex` may be held longer, and `wait_for` waits for a thread.
The last two let the other greenlets run meanwhile.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from canary_mw.exceptions import ConfigError

# Seconds after which a greenlet tries again to take a lock that a thread of the system holds.
_PAUSE = 0.002


def original(module: str, name: str) -> Any:
    """A name of a module of the standard library, as it was before gevent patched the module."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(import_module(module), name) if monkey is None else monkey.get_original(module, name)


def threads_are_greenlets() -> bool:
    """Whether gevent has patched `threading` in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def patches_later() -> bool:
    """Whether a worker of gunicorn is to be patched by gevent, and is not yet: it was forked from a preloaded app."""
    return "gunicorn.workers.ggevent" in sys.modules and not threads_are_greenlets()


def after_patching(function: Callable[[], object]) -> None:
    """Call a function when gevent has patched this process."""
    import gevent.events

    def hear(event: object) -> None:
        if isinstance(event, gevent.events.GeventDidPatchAllEvent):
            function()

    gevent.events.subscribers.append(hear)


def check_threads() -> None:
    """Check that this process has threads to work with.

    Raises:
        ConfigError: eventlet has patched them. It takes `select.poll` away, which the client for threads waits with.
    """
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and any(map(patcher.is_monkey_patched, ("thread", "select"))):
        hint = "serve the app with gunicorn's gthread or gevent workers, or with waitress"
        raise ConfigError("canary-mw cannot run where eventlet has patched the threads of the process", hint=hint)


def new_lock() -> threading.Lock:
    """A lock of the system, also where `threading` is patched. Nothing waits or switches while it is held."""
    lock: threading.Lock = original("_thread", "allocate_lock")()
    return lock


def new_rlock() -> threading.RLock:
    """As `new_lock`, and its holder may take it again: the collector of garbage may call what takes it."""
    lock: threading.RLock = original("_thread", "RLock")()
    return lock


class Latch:
    """An event that happens once. Its `wait` blocks a thread of the system, also where `threading` is patched.

    `set` takes no lock, because the collector of garbage may call it at any moment.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._gate = new_lock()
        self._gate.acquire()
        self._callbacks: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """Let it happen; a second call does nothing."""
        self._is_set = True
        # The gate may be open already.
        with suppress(RuntimeError):
            self._gate.release()
        for callback in tuple(self._callbacks):
            callback()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it happens; False after `timeout` seconds."""
        limit = -1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        if not self._is_set and self._gate.acquire(timeout=limit):
            # Open the gate for the next one that waits; `set` may have done so.
            with suppress(RuntimeError):
                self._gate.release()
        return self._is_set

    def wait_in_greenlet(self, timeout: float | None) -> bool:
        """Wait without stopping the other greenlets of this thread."""
        import gevent.event

        loop, happened = gevent.get_hub().loop, gevent.event.Event()

        def wake() -> None:
            loop.run_callback_threadsafe(happened.set)

        # A loop that nothing else is registered with would end, and the wait with it.
        keep = loop.async_()
        keep.start(wake)
        self._callbacks.append(wake)
        try:
            if not self._is_set:
                happened.wait(timeout)
        finally:
            self._callbacks.remove(wake)
            keep.stop()
            keep.close()
        return self._is_set


def wait_for(latch: Latch, timeout: float | None = None) -> bool:
    """Wait for a latch in any thread or greenlet; False after `timeout` seconds."""
    return latch.wait_in_greenlet(timeout) if _in_greenlet() else latch.wait(timeout)


class Mutex:
    """A lock that may be held for long, over I/O too. Its holder may take it again."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        # Of the greenlet, where threads are greenlets.
        caller = threading.get_ident()
        if self._owner != caller:
            self._acquire()
            self._owner = caller
        self._depth += 1

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()

    def _acquire(self) -> None:
        if not _in_greenlet():
            self._lock.acquire()
            return
        import gevent

        while not self._lock.acquire(blocking=False):
            gevent.sleep(_PAUSE)


# The threads of this package, by what the system's `get_ident` returns in them. Where `threading` is patched, each with
# the event loop of the hub that it works for, else with None.
system_threads: dict[int, Any] = {}


def system_ident() -> int:
    """The number of the thread of the system that calls this."""
    ident: int = original("_thread", "get_ident")()
    return ident


def _in_greenlet() -> bool:
    """Whether other greenlets may run in this thread: it is none of ours, and `threading` is patched."""
    return threads_are_greenlets() and system_ident() not in system_threads
