"""An event loop in a background thread, for a threaded (WSGI) server.

Look-ups of names, health checks and shadow copies are the same code as under ASGI; here they run in this loop. Its
thread starts at first use, in the process that uses it, and does not delay the exit of the process.
"""

import asyncio
import atexit
import math
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

# Loops of the parent in a forked child. They are never closed or freed: both would change the epoll of the parent.
_inherited_loops: list[asyncio.AbstractEventLoop] = []
# Seconds to wait for the thread to end; the exit of the process is not delayed further.
_JOIN_TIMEOUT = 2.0


class LoopThread:
    """The loop and its thread; both start with the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop soon, without waiting for it."""
        self._ensure_started().call_soon_threadsafe(function, *args)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = math.inf) -> T:
        """Run a coroutine in the loop, and wait for its result; what it raises is raised here.

        Raises:
            TimeoutError: it took longer than `timeout` seconds, and was cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._ensure_started())
        try:
            return future.result(None if timeout == math.inf else timeout)
        except FutureTimeout:
            if future.done():
                raise
            future.cancel()
            raise TimeoutError("the background loop did not answer in time") from None
        except CancelledError:
            raise TimeoutError("the background loop was stopped") from None

    @property
    def started(self) -> bool:
        """Whether there is a loop to stop."""
        return self._loop is not None

    def stop(self) -> None:
        """Stop the loop, its tasks and its thread; a later call starts new ones."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        atexit.unregister(self.stop)
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_JOIN_TIMEOUT)

    def reset_after_fork(self) -> None:
        """In a forked child: drop the loop of the parent; a later call starts a new one."""
        atexit.unregister(self.stop)
        if self._loop is not None:
            _inherited_loops.append(self._loop)
        self._lock = threading.Lock()
        self._loop = self._thread = None

    def _ensure_started(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_loop, args=(loop,), name="canary-mw-background", daemon=True
                )
                self._thread.start()
                atexit.register(self.stop)
                self._loop = loop
            return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def run_in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a daemon thread; the threads of an executor would delay the exit of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: object) -> None:
        if not future.done():
            setter(value)

    def post(setter: Callable[[Any], None], value: object) -> None:
        # The loop may be closed by now; then nothing waits for the value.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, setter, value)

    def work() -> None:
        try:
            value = function()
        except Exception as exc:  # noqa: BLE001 - raised where it is awaited
            post(future.set_exception, exc)
        else:
            post(future.set_result, value)

    threading.Thread(target=work, name="canary-mw-blocking", daemon=True).start()
    return await future
