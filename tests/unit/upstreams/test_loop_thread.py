"""The background event loop of a WSGI server."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from canary_mw.forking import running_threads
from canary_mw.upstreams.loop_thread import LoopThread, run_in_thread


@pytest.fixture
def background() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.stop()


async def fail() -> None:
    raise LookupError("of the coroutine")


async def too_slow() -> None:
    raise TimeoutError("of the coroutine")


def test_a_thread_starts_with_the_first_call_and_ends_with_the_loop(background: LoopThread) -> None:
    for _ in range(2):
        assert background.run(asyncio.sleep(0, "done")) == "done"
        assert background.started
        background.stop()
        background.stop()
        assert not any(thread.name == "canary-mw-background" for thread in threading.enumerate())


def test_what_a_coroutine_raises_is_raised_here(background: LoopThread) -> None:
    with pytest.raises(LookupError, match="of the coroutine"):
        background.run(fail())
    with pytest.raises(TimeoutError, match="of the coroutine"):
        background.run(too_slow())


def test_a_coroutine_that_takes_too_long_is_cancelled(background: LoopThread) -> None:
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError, match="did not answer in time"):
        background.run(wait(), 0.01)
    assert cancelled.wait(10)


def test_a_task_that_has_not_begun_begins_before_it_is_ended(background: LoopThread) -> None:
    """Else what it was to await is dropped, and Python warns of that."""
    made: list[asyncio.Task[None]] = []
    enough = threading.Event()

    async def work() -> None:
        await asyncio.Event().wait()

    async def around(inner: Coroutine[Any, Any, None]) -> None:
        await inner

    async def make_more() -> None:
        while True:
            made.append(asyncio.get_running_loop().create_task(around(work())))
            if len(made) > 5:
                enough.set()
            await asyncio.sleep(0)

    background.call(lambda: made.append(asyncio.get_running_loop().create_task(make_more())))
    assert enough.wait(10)
    background.stop()
    assert all(task.cancelled() for task in made)


def test_a_caller_that_waits_for_a_loop_that_is_stopped_gets_an_error(background: LoopThread) -> None:
    waiting = threading.Event()
    errors: list[str] = []

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    def ask() -> None:
        try:
            background.run(wait())
        except TimeoutError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=ask)
    thread.start()
    assert waiting.wait(10)
    background.stop()
    thread.join(10)
    assert errors == ["the background loop was stopped"]


def test_many_threads_that_begin_at_once_share_one_loop(background: LoopThread) -> None:
    loops: set[asyncio.AbstractEventLoop] = set()

    async def note() -> None:
        loops.add(asyncio.get_running_loop())

    threads = [threading.Thread(target=lambda: background.run(note())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 1


def test_a_function_that_blocks_runs_in_a_thread_that_nobody_waits_for(background: LoopThread) -> None:
    def name() -> str:
        assert threading.current_thread().daemon
        return threading.current_thread().name

    def broken() -> str:
        raise LookupError("of the function")

    assert background.run(run_in_thread(name)) == "canary-mw-blocking"
    with pytest.raises(LookupError, match="of the function"):
        background.run(run_in_thread(broken))


def test_a_result_after_the_end_of_the_loop_is_dropped(background: LoopThread) -> None:
    release, ended = threading.Event(), threading.Event()
    started = threading.Event()

    def block() -> None:
        started.set()
        release.wait(10)
        ended.set()

    with pytest.raises(TimeoutError):
        background.run(run_in_thread(block), 0.01)
    assert started.wait(10)
    background.stop()
    release.set()
    assert ended.wait(10)


HANGING = """
import asyncio, threading, time
from canary_mw.forking import running_threads
from canary_mw.upstreams.loop_thread import LoopThread, run_in_thread
background = LoopThread()
background.call(lambda: asyncio.ensure_future(run_in_thread(lambda: time.sleep(60))))
background.run(asyncio.sleep(0.01))
"""


def test_nothing_of_it_delays_the_exit_of_a_process() -> None:
    done = subprocess.run([sys.executable, "-X", "dev", "-c", HANGING], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_loop_does_last_is_done_also_where_it_is_asked_twice_to_end() -> None:
    """By its owner, and by the end of the process."""
    background, begun, gate, done = LoopThread(), threading.Event(), threading.Event(), threading.Event()

    async def last() -> None:
        begun.set()
        while not gate.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.001)
        done.set()

    background.on_end = last
    background.run(asyncio.sleep(0))
    (thread,) = [each for each in running_threads() if each.name == "canary-mw-background"]
    assert thread.stop is not None
    thread.stop()
    assert begun.wait(10)
    thread.stop()
    gate.set()
    background.stop()
    assert done.is_set()
