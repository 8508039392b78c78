"""Long work in one thread of a process whose other threads answer requests meanwhile."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from canary_mw.forking import after_fork
from canary_mw.locks import new_lock

# Seconds after which a thread that waits for the interpreter gets it. With Python's 5 ms every step of a request
# (a read, a write, a turn of the loop) would wait as long, and p99 would be several times what it is otherwise.
_TURN = 0.00005


class _GCState:
    """How many threads are at such work, and what the process was set to before the first of them began."""

    def __init__(self) -> None:
        self.lock = new_lock()
        self.working = 0
        self.turn = 0.0
        self.collecting = False

    def begin(self) -> None:
        with self.lock:
            if not self.working:
                self.turn, self.collecting = sys.getswitchinterval(), gc.isenabled()
                sys.setswitchinterval(min(self.turn, _TURN))
                gc.disable()
            self.working += 1

    def end(self) -> None:
        with self.lock:
            if self.working == 1:
                self.restore()
            # In a child that was forked by this very thread nobody is at work any more.
            self.working = max(0, self.working - 1)

    def restore(self) -> None:
        sys.setswitchinterval(self.turn)
        if self.collecting:
            _age()
            gc.enable()


def _age() -> None:
    """Make all objects old ones: the collector would begin with all the new ones at once, and nobody could run.

    An application that froze its objects keeps them frozen, and these with them.
    """
    frozen = gc.get_freeze_count()
    gc.freeze()
    if not frozen:
        gc.unfreeze()


_manners = _GCState()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Make many objects that all stay, at little cost and without keeping other threads from their work.

    Meanwhile garbage is not collected, which would double the time, and threads take turns more often; both are
    settings of the process, and are restored by the last thread that leaves.
    """
    _manners.begin()
    try:
        yield
    finally:
        _manners.end()


def _after_fork() -> None:
    """The threads at work are gone in a forked child, and what they set would stay for ever."""
    working = _manners.working
    _manners.lock, _manners.working = new_lock(), 0
    if working:
        _manners.restore()


after_fork(_after_fork)
