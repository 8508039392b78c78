"""Hooks that run in a forked child, also if the server forks in C and calls no hook of `os`, as uWSGI does."""

import os
import random
import threading
from collections.abc import Callable

_lock = threading.Lock()
_pid = os.getpid()
# Python seeds `random` itself, but only after an `os.fork`.
_hooks: list[Callable[[], object]] = [random.seed]


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


def _after_fork_in_child() -> None:
    # A thread of the parent may have held the lock during the fork.
    global _lock
    _lock = threading.Lock()
    _run_hooks()


os.register_at_fork(after_in_child=_after_fork_in_child)
