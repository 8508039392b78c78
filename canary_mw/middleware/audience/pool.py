"""The threads in which functions of the app run that may be left behind."""

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from canary_mw.forking import after_fork, start_thread
from canary_mw.locks import Latch, new_lock, original

_SIZE = 16
# So many more calls wait for a thread; where all threads hang, others are not kept for ever.
_MOST_WAITING = 64


def ended_by(error: BaseException) -> RuntimeError:
    """What is told of an error that is none of a request, as `SystemExit`."""
    return RuntimeError(f"it has raised {type(error).__name__}")


class Job:
    """A call in a thread.

    Args:
        on_done: called in the thread at the end.

    Attributes:
        left: nobody waits for it any more, so that it need not begin.
    """

    def __init__(self, function: Callable[[], object], on_done: Callable[[], object] = bool) -> None:
        self.done = Latch()
        self.left = False
        self.value: object = None
        self.error: BaseException | None = None
        self._function = function
        self._on_done = on_done
        self._context = copy_context()

    def run(self) -> None:
        """Call the function."""
        if not self.left:
            try:
                self.value = self._context.run(self._function)
            except BaseException as exc:  # noqa: BLE001 - it is the code of the app, and told where it is waited for
                # An error that ends a process or a task would end a thread of ours.
                self.error = exc if isinstance(exc, Exception) else ended_by(exc)
        self.done.set()
        self._on_done()


class Pool:
    """Threads that start when they are needed."""

    def __init__(self) -> None:
        self._queue: Any = original("_queue", "SimpleQueue")()
        self._lock = new_lock()
        self._unfinished = self._threads = 0

    def submit(self, job: Job) -> None:
        """Run a job soon.

        Raises:
            RuntimeError: all threads are busy, and many jobs wait.
        """
        with self._lock:
            if self._unfinished >= _SIZE + _MOST_WAITING:
                raise RuntimeError("all threads for predicates are busy")
            self._unfinished += 1
            starts = self._unfinished > self._threads < _SIZE
            self._threads += starts
        self._queue.put(job)
        if starts:
            start_thread(self._work, "canary-mw-predicates", stop=self._stop_one)

    def _stop_one(self) -> None:
        self._queue.put(None)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job.run()
            # Else it would stay until the next one comes.
            del job
            with self._lock:
                self._unfinished -= 1


_pools = [Pool()]


def pool() -> Pool:
    """The pool of this process."""
    return _pools[0]


@after_fork
def _reset() -> None:
    # The threads are the parent's.
    _pools[0] = Pool()
