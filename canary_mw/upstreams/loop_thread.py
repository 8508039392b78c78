"""An event loop in a thread of its own, for what goes on beside the requests of a WSGI server.

Look-ups of names, health checks and copies for shadows are the same code as under ASGI; here is where they run. The
thread starts when somebody needs it, in the process that needs it, and holds up nobody's exit.
"""

import asyncio
import atexit
import math
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, TypeVar

from canary_mw.upstreams.dns import addresses

T = TypeVar("T")

# Loops of the parent, in a forked child: closing one would reach into the parent's epoll, and so would its end.
_parents: list[asyncio.AbstractEventLoop] = []
# Seconds that closing may take; at the exit of the process nobody waits longer.
_PATIENCE = 2.0


class LoopThread:
    """The loop; it costs nothing before the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop, soon."""
        self._running().call_soon_threadsafe(function, *args)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = math.inf) -> T:
        """Run a coroutine in the loop, and wait for it; what it raises is raised here.

        Raises:
            TimeoutError: it took longer than `timeout` seconds, and was cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
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
        """Whether there is a loop that needs an end."""
        return self._loop is not None

    def stop(self) -> None:
        """End the loop, its tasks and its thread; a later call starts another."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        atexit.unregister(self.stop)
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_PATIENCE)

    def forked(self) -> None:
        """In a forked child: what was running is the parent's, a later call starts another."""
        atexit.unregister(self.stop)
        if self._loop is not None:
            _parents.append(self._loop)
        self._lock = threading.Lock()
        self._loop = self._thread = None

    def _running(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_turn, args=(loop,), name="canary-mw-background", daemon=True)
                self._thread.start()
                atexit.register(self.stop)
                self._loop = loop
            return self._loop


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def run_in_thread(function: Callable[[], T]) -> T:
    """The value of a function that blocks, from a daemon thread: those of an executor are waited for at exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(use: Callable[[Any], None], value: object) -> None:
        if not future.done():
            use(value)

    def tell(use: Callable[[Any], None], value: object) -> None:
        # Nobody waits any more when the loop is closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, use, value)

    def work() -> None:
        try:
            value = function()
        except Exception as exc:  # noqa: BLE001 - raised where it is awaited
            tell(future.set_exception, exc)
        else:
            tell(future.set_result, value)

    threading.Thread(target=work, name="canary-mw-blocking", daemon=True).start()
    return await future


def resolve_in_thread(host: str, port: int) -> Awaitable[list[str]]:
    """As `resolvers.resolve`."""
    return run_in_thread(lambda: addresses(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
