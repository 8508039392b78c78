"""The end of the process, heard of before the server acts on it."""

import asyncio
import signal
import threading
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

# Seconds that may pass until the server hears of it too.
HEAD_START = 0.5


def on_sigterm(tell: Callable[[], Collection[asyncio.Task[Any]]]) -> Callable[[], None]:
    """Have `tell` called in the running loop at SIGTERM, and then what was to be called.

    Nothing happens where no server listens for the signal, or outside of the main thread.

    Args:
        tell: gives the tasks that are to end before the server acts, or to have had `HEAD_START` for it.

    Returns:
        What undoes it.
    """
    passed_on = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(passed_on):
        return _nothing
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(number: int, frame: FrameType | None) -> None:
        if ending := tell():
            await asyncio.wait(ending, timeout=HEAD_START)
        passed_on(number, frame)

    def begin(number: int, frame: FrameType | None) -> None:
        task = loop.create_task(pass_on(number, frame))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def hear(number: int, frame: FrameType | None) -> None:
        if loop.is_closed():
            passed_on(number, frame)
            return
        loop.call_soon_threadsafe(begin, number, frame)

    def undo() -> None:
        # Whoever listens in our place passes the signal on to us, as we do.
        if signal.getsignal(signal.SIGTERM) is hear:
            signal.signal(signal.SIGTERM, passed_on)

    signal.signal(signal.SIGTERM, hear)
    return undo


def _nothing() -> None:
    pass
