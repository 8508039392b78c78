"""SIGTERM, handled before the server handles it."""

import asyncio
import signal
import threading
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

# Seconds at most that the signal is kept from the server.
MAX_DELAY = 0.5


def on_sigterm(callback: Callable[[], Collection[asyncio.Task[Any]]]) -> Callable[[], None]:
    """Call `callback` in the running loop at SIGTERM, and then the handler that was installed before.

    Does nothing when no handler is installed, or outside of the main thread.

    Args:
        callback: starts what is to end before the server shuts down, and returns its tasks. The previous handler is
            called when they are done, or after `MAX_DELAY`.

    Returns:
        A function that removes the handler.
    """
    previous = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        return _nothing
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def call_previous(number: int, frame: FrameType | None) -> None:
        if closing := callback():
            await asyncio.wait(closing, timeout=MAX_DELAY)
        previous(number, frame)

    def start(number: int, frame: FrameType | None) -> None:
        task = loop.create_task(call_previous(number, frame))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def handle(number: int, frame: FrameType | None) -> None:
        if loop.is_closed():
            previous(number, frame)
            return
        loop.call_soon_threadsafe(start, number, frame)

    def remove() -> None:
        # A handler that was installed after ours calls ours, as ours calls the previous one.
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, previous)

    signal.signal(signal.SIGTERM, handle)
    return remove


def _nothing() -> None:
    pass
