"""An app on a port, in the event loop of a thread: for commands, which block."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from servers import serving_app


@contextmanager
def served_in_thread(app: Any) -> Iterator[int]:
    """The port of the app."""
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        ended = asyncio.Event()
        try:
            async with serving_app(app, lifespan="off") as port:
                started.set_result((port, asyncio.get_running_loop(), ended))
                await ended.wait()
        except BaseException as exc:
            if not started.done():
                started.set_exception(exc)
            raise

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    port, loop, ended = started.result(20)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(20)
