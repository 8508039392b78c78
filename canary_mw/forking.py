"""Processes and threads: hooks that run in a forked child, and `start_thread`.

Hooks also run if the server forks in C and calls no hook of `os`, as uWSGI does. `start_thread` is the only way a
thread of this package starts; see `locks` for what such a thread may share with requests.
"""

import atexit
import os
import random
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import finalize

from canary_mw.locks import (
    Latch,
    check_threads,
    new_lock,
    original,
    system_ident,
    system_threads,
    threads_are_greenlets,
    wait_for,
)

# Seconds for which the end of the process waits for its threads, all together.
JOIN_TIMEOUT = 2.0


class SystemThread:
    """A thread of this package; see `start_thread`.

    Attributes:
        name: shown by `threading`, unless that is patched.
        native_id: the number that the system has for the thread, once it runs.
        stop: see `start_thread`.
    """

    def __init__(
        self, target: Callable[[], object], name: str, stop: Callable[[], object] | None, owner: object
    ) -> None:
        self.name = name
        self.native_id: int | None = None
        self.stop = stop
        self._target: Callable[[], object] | None = target
        self._thread: threading.Thread | None = None
        self._ident: int | None = None
        self._host: Any = None
        self._ended = Latch()
        self._finalizer = None if stop is None or owner is None else finalize(owner, stop)
        if self._finalizer is not None:
            self._finalizer.atexit = False

    def start(self) -> None:
        """Start it."""
        if threads_are_greenlets():
            self._host = _host_loop()
            original("_thread", "start_new_thread")(self._run, ())
        else:
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.is_set()

    def is_current(self) -> bool:
        """Whether it is the thread that calls this."""
        return self._ident == system_ident()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end; False after `timeout` seconds."""
        ended = wait_for(self._ended, timeout)
        if ended and self._thread is not None:
            # It has nothing left to do.
            self._thread.join()
        return ended

    def _run(self) -> None:
        target, self._target = self._target, None
        assert target is not None
        self._ident, self.native_id = system_ident(), threading.get_native_id()
        system_threads[self._ident] = self._host
        try:
            target()
        finally:
            # Before the thread counts as ended: it may be what holds the owner of another one.
            del target
            self._end()

    def _end(self) -> None:
        if threads_are_greenlets():
            _close_hub()
        if self._finalizer is not None:
            self._finalizer.detach()
        system_threads.pop(system_ident(), None)
        _threads.discard(self)
        self._ended.set()


def start_thread(
    target: Callable[[], object],
    name: str,
    *,
    stop: Callable[[], object] | None = None,
    owner: object = None,
) -> SystemThread:
    """Start a daemon thread of the system; call it at first use, in the process that needs the thread.

    Args:
        target: runs in the thread. It must not refer to `owner`.
        stop: asks the thread to end. It takes no lock and returns at once. The end of the process calls it, and waits
            for the thread at most `JOIN_TIMEOUT` seconds. None for a thread that cannot be asked; nobody waits for it.
        owner: when this object is collected, `stop` is called.

    Raises:
        ConfigError: see `check_threads`.
    """
    check_threads()
    ensure_forked_hooks()
    thread = SystemThread(target, name, stop, owner)
    _threads.add(thread)
    try:
        thread.start()
    except BaseException:
        _threads.discard(thread)
        raise
    if stop is not None:
        _end_threads_at_exit()
    return thread


def running_threads() -> list[SystemThread]:
    """The threads of this package in this process."""
    ensure_forked_hooks()
    return list(_threads)


_threads: set[SystemThread] = set()
_ends_at_exit = False


def _end_threads_at_exit() -> None:
    global _ends_at_exit
    if not _ends_at_exit:
        _ends_at_exit = True
        atexit.register(_end_threads)


def _end_threads() -> None:
    """A thread may be in native code, which must not outlive the interpreter."""
    threads = [thread for thread in running_threads() if thread.stop is not None]
    for thread in threads:
        assert thread.stop is not None
        thread.stop()
    limit = monotonic() + JOIN_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, limit - monotonic()))


def _host_loop() -> Any:
    """The event loop of the hub that a new thread works for: that of the caller, or of the one that a thread works for.

    It makes the hub if there is none. gevent imports modules for the first hub of a process. Two threads that do so at
    once wait for each other for ever, because the locks of imports are patched, and wait in hubs.
    """
    import gevent.event

    return system_threads.get(system_ident()) or gevent.get_hub().loop


def _close_hub() -> None:
    """Close what gevent opens for a thread at its first call of a patched function, if there was one."""
    from gevent._hub_local import get_hub_if_exists

    hub = get_hub_if_exists()
    if hub is not None:
        hub.destroy(destroy_loop=True)


def after_fork(hook: Callable[[], object]) -> None:
    """Call a function in every forked child before it serves; hooks run in the order they were added."""
    _hooks.append(hook)


def ensure_forked_hooks() -> None:
    """Run the hooks if this is a forked child where they did not run; on return they have run."""
    if os.getpid() == _pid:
        return
    with _lock:
        if os.getpid() != _pid:
            _run_hooks()


def _run_hooks() -> None:
    global _pid
    for hook in _hooks:
        hook()
    _pid = os.getpid()


def _forget_threads() -> None:
    # They are the parent's.
    _threads.clear()
    system_threads.clear()


_lock = new_lock()
_pid = os.getpid()
# Python seeds `random` itself, but only after an `os.fork`.
_hooks: list[Callable[[], object]] = [random.seed, _forget_threads]


def _after_fork_in_child() -> None:
    # A thread of the parent may have held the lock during the fork.
    global _lock
    _lock = new_lock()
    _run_hooks()


os.register_at_fork(after_in_child=_after_fork_in_child)
