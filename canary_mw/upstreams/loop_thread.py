"""An event loop in a background thread, for a threaded (WSGI) server.

Look-ups of names, health checks and shadow copies are the same code as under ASGI; here they run in this loop. Its
thread starts at first use, in the process that uses it, and does not delay the exit of the process.
"""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from canary_mw.client.aio.name_lookup import look_up
from canary_mw.forking import JOIN_TIMEOUT, SystemThread, start_thread
from canary_mw.host import call_host
from canary_mw.locks import Latch, Mutex, original, threads_are_greenlets, wait_for

T = TypeVar("T")
OnEnd = Callable[[], Awaitable[None]]

# Loops of the parent in a forked child. They are never closed or freed: both would change the epoll of the parent.
_inherited_loops: list["BackgroundLoop"] = []


class LoopThread:
    """The loop and its thread; both start with the first call, and end when this object is collected.

    Attributes:
        on_end: called in the loop before it ends. It must not refer to this object.
    """

    def __init__(self) -> None:
        self.on_end: OnEnd | None = None
        self._lock = Mutex()
        self._loop: BackgroundLoop | None = None
        self._thread: SystemThread | None = None

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop soon, without waiting for it."""
        self._ensure_started().call(function, *args)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = math.inf) -> T:
        """Run a coroutine in the loop, and wait for its result; what it raises is raised here.

        Raises:
            TimeoutError: it took longer than `timeout` seconds, and was cancelled.
        """
        return _Call(coroutine).run(self._ensure_started(), None if timeout == math.inf else timeout)

    @property
    def started(self) -> bool:
        """Whether there is a loop to stop."""
        return self._loop is not None

    def stop(self) -> None:
        """Stop the loop, its tasks and its thread; a later call starts new ones."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call(loop.end)
            thread.join(JOIN_TIMEOUT)

    def reset_after_fork(self) -> None:
        """In a forked child: drop the loop of the parent; a later call starts a new one."""
        if self._loop is not None:
            _inherited_loops.append(self._loop)
        self._lock = Mutex()
        self._loop = self._thread = None

    def _ensure_started(self) -> "BackgroundLoop":
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._loop is None:
                self._loop, self._thread = _start_loop(self, self.on_end)
            return self._loop


class BackgroundLoop(asyncio.SelectorEventLoop):
    """An event loop without an executor, whose threads would delay the exit of the process.

    Where gevent has patched the selectors and the resolver, it uses those of the system. Its sockets are gevent's then;
    they are never waited for, so that they behave like others.

    Attributes:
        calls: those that somebody waits for.
    """

    def __init__(self) -> None:
        super().__init__(original("selectors", "DefaultSelector")())
        self.calls: set[_Call[Any]] = set()
        self._ends = False

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        """See asyncio; for TCP."""
        return await look_up(host, port)

    def call_exception_handler(self, context: Any) -> None:
        """See asyncio; handlers of log records are the host's."""
        call_host(super().call_exception_handler, context)

    def call(self, function: Callable[..., object], *args: object) -> bool:
        """Call a function in the loop soon, from any thread; False if the loop is closed."""
        try:
            self.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def end(self) -> None:
        """Let it end; the end of the process and the owner of its thread may both ask for that."""
        if not self._ends:
            self._ends = True
            self.stop()

    def run_until_stopped(self, on_end: OnEnd | None) -> None:
        """Run, cancel the tasks that are left, call `on_end`, and close."""
        try:
            self.run_forever()
            # What was called before the stop may become a task.
            self.run_until_complete(asyncio.sleep(0))
            while tasks := asyncio.all_tasks(self):
                # One that is cancelled before its first step drops the coroutine that it was given, with a warning.
                begun = [task for task in tasks if _has_begun(task)]
                for task in begun:
                    task.cancel()
                self.run_until_complete(_all_of(begun))
            if on_end is not None:
                self.run_until_complete(on_end())
            self.run_until_complete(self.shutdown_asyncgens())
        finally:
            self.close()
            # Those that came too late.
            for call in tuple(self.calls):
                call.done.set()


async def _all_of(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)


def _has_begun(task: asyncio.Task[Any]) -> bool:
    coroutine = task.get_coro()
    return not inspect.iscoroutine(coroutine) or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED


class _Call(Generic[T]):
    """A coroutine that runs in a loop, while a thread or a greenlet waits for it.

    A future of `concurrent.futures` has locks of `threading`, which gevent patches.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.done = Latch()
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None

    def run(self, loop: BackgroundLoop, timeout: float | None) -> T:
        """Run it; see `LoopThread.run`."""
        loop.calls.add(self)
        try:
            if not loop.call(self._start):
                self.done.set()
            in_time = wait_for(self.done, timeout)
        finally:
            loop.calls.discard(self)
            if not self.done.is_set():
                loop.call(self._cancel)
        if not in_time:
            raise TimeoutError("the background loop did not answer in time")
        return self._result()

    def _result(self) -> T:
        if self._task is None:
            self._coroutine.close()
            raise TimeoutError("the background loop was stopped")
        try:
            return self._task.result()
        except asyncio.CancelledError:
            raise TimeoutError("the background loop was stopped") from None

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            # Nobody may be left to retrieve it.
            task.exception()
        self.done.set()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _start_loop(owner: object, on_end: OnEnd | None) -> tuple[BackgroundLoop, SystemThread]:
    """Start a loop in a thread, where its sockets are made: gevent binds a socket to the thread that makes it."""
    made: list[BackgroundLoop | Exception] = []
    ready = Latch()

    def run() -> None:
        try:
            made.append(BackgroundLoop())
        except OSError as exc:
            made.append(exc)
        ready.set()
        if isinstance(made[0], BackgroundLoop):
            made[0].run_until_stopped(on_end)

    def stop() -> None:
        for loop in made:
            if isinstance(loop, BackgroundLoop):
                loop.call(loop.end)

    thread = start_thread(run, "canary-mw-background", stop=stop, owner=owner)
    wait_for(ready)
    if isinstance(made[0], Exception):
        raise made[0]
    return made[0], thread


async def run_in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function of the host in a daemon thread; those of an executor would delay the exit of the process.

    Where threads are greenlets, it runs in a greenlet of the host, to whose hub its sockets and locks belong.
    """
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

    if threads_are_greenlets():
        call_host(work)
    else:
        start_thread(work, "canary-mw-blocking")
    return await future
