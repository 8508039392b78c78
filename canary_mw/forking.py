"""What a forked child does anew, also where its server forks past Python: uWSGI does, and calls no hook of `os`."""

import os
import random
import threading
from collections.abc import Callable

_lock = threading.Lock()
_process = os.getpid()
# Python itself sees to this one after a fork that it knows of.
_hooks: list[Callable[[], object]] = [random.seed]


def after_fork(hook: Callable[[], object]) -> None:
    """Have a function called in every forked child before it serves; those that were given first come first."""
    _hooks.append(hook)


def ensure_forked_hooks() -> None:
    """Call the functions if this is a child that they were not called in; on return they are through."""
    if os.getpid() == _process:
        return
    with _lock:
        if os.getpid() != _process:
            _begin()


def _begin() -> None:
    global _process
    for hook in _hooks:
        hook()
    _process = os.getpid()


def _forked() -> None:
    # Another thread of the parent may have held the lock.
    global _lock
    _lock = threading.Lock()
    _begin()


os.register_at_fork(after_in_child=_forked)
