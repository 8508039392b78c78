"""Hooks in a forked child, whether it was forked by Python or in C, and the threads of the package."""

import ctypes
import gc
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from gevent_script import under_gevent

from canary_mw import forking
from canary_mw.locks import Latch
from canary_mw.middleware.identity import new_request_id

# Python 3.12 warns of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def fork_in_c() -> int:
    """Fork as uWSGI does: no hook of `os` is called."""
    return int(ctypes.PyDLL(None).fork())


def result_in_child(fork: Callable[[], int], function: Callable[[], bytes]) -> bytes:
    """What a function returns in a forked child."""
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        try:
            forking.ensure_forked_hooks()
            os.write(writer, function())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return result


LOADED_BEFORE_A_FORK = """
import os
from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware, Metrics
apps = [
    CanaryMiddleware(print, rules="rules", local="shop", observers=[Metrics()]),
    CanaryWSGIMiddleware(print, rules="rules", local="shop", observers=[Metrics()]),
]
print(len(os.listdir("/proc/self/task")))
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_middleware_that_serves_nothing_yet_has_no_thread_of_any_kind_and_its_server_may_fork(tmp_path: Path) -> None:
    # As gunicorn --preload does: Python 3.12 warns of a fork beside a thread, also one of native code.
    command = [sys.executable, "-W", "error", "-c", LOADED_BEFORE_A_FORK]
    (tmp_path / "rules").mkdir()
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (outcome.stdout, outcome.stderr) == ("1\n", "")


@pytest.mark.parametrize("fork", [os.fork, fork_in_c])
def test_children_share_neither_request_ids_nor_random_numbers(fork: Callable[[], int]) -> None:
    def function() -> bytes:
        return new_request_id() + b" %d" % random.getrandbits(64)

    results = {result_in_child(fork, function), result_in_child(fork, function), function()}
    assert len({each.partition(b" ")[0] for each in results}) == 3
    assert len({each.partition(b" ")[2] for each in results}) == 3


@pytest.mark.parametrize("fork", [os.fork, fork_in_c])
def test_a_hook_is_called_once_in_a_child_whoever_asks(
    fork: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def function() -> bytes:
        threads = [threading.Thread(target=forking.ensure_forked_hooks) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return b"%d" % len(calls)

    monkeypatch.setattr(forking, "_hooks", [lambda: calls.append(os.getpid())])
    assert result_in_child(fork, function) == b"1"
    forking.ensure_forked_hooks()
    assert calls == []


DEADLINE = 20.0


class Owner:
    """Anything that can be collected."""


def test_a_thread_is_a_daemon_with_a_name_and_gone_after_its_end() -> None:
    seen: list[threading.Thread] = []
    stop = Latch()

    def work() -> None:
        seen.append(threading.current_thread())
        stop.wait()

    thread = forking.start_thread(work, "canary-mw-test", stop=stop.set)
    assert thread in forking.running_threads()
    assert (thread.is_alive(), thread.is_current(), thread.join(0)) == (True, False, False)
    stop.set()
    assert thread.join(DEADLINE)
    assert (seen[0].name, seen[0].daemon, seen[0].is_alive()) == ("canary-mw-test", True, False)
    assert not thread.is_alive()
    assert thread not in forking.running_threads()


def test_a_thread_whose_owner_is_collected_is_asked_to_end() -> None:
    stop = Latch()
    owner = Owner()
    thread = forking.start_thread(stop.wait, "canary-mw-test", stop=stop.set, owner=owner)
    gc.collect()
    assert not stop.is_set()
    del owner
    gc.collect()
    assert thread.join(DEADLINE)


def test_a_thread_that_ended_before_its_owner_leaves_nothing_with_it() -> None:
    asked: list[bool] = []
    owner = Owner()
    thread = forking.start_thread(lambda: None, "canary-mw-test", stop=lambda: asked.append(True), owner=owner)
    assert thread.join(DEADLINE)
    del owner
    gc.collect()
    assert asked == []


def test_a_thread_that_cannot_be_started_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = forking.running_threads()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        forking.start_thread(lambda: None, "canary-mw-test")
    assert forking.running_threads() == before


@pytest.mark.parametrize("fork", [os.fork, fork_in_c])
def test_a_child_has_none_of_its_parents_threads(fork: Callable[[], int]) -> None:
    stop = Latch()
    thread = forking.start_thread(stop.wait, "canary-mw-test", stop=stop.set)
    try:
        assert result_in_child(fork, lambda: b"%d" % len(forking.running_threads())) == b"0"
    finally:
        stop.set()
        thread.join(DEADLINE)


AT_EXIT = """
import threading
from canary_mw.forking import start_thread
from canary_mw.locks import Latch
stop, ended = Latch(), []
def work():
    stop.wait()
    ended.append(True)
start_thread(work, "asked", stop=stop.set)
start_thread(lambda: Latch().wait(), "deaf", stop=lambda: None)
start_thread(lambda: Latch().wait(), "not asked")
import atexit
atexit._run_exitfuncs()
print(ended)
"""


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()\n"])
def test_the_end_of_a_process_asks_threads_to_end_and_waits_for_none_that_does_not(patch: str) -> None:
    script = [sys.executable, "-c", patch + AT_EXIT]
    done = subprocess.run(script, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[True]\n", "")


def test_a_thread_is_one_of_the_system_where_threads_are_greenlets_and_may_wait_in_native_code() -> None:
    script = """
import gevent, os, threading, time
from canary_mw.forking import running_threads, start_thread
from canary_mw.locks import Latch
stop, began = Latch(), Latch()
gevent.sleep(0)
def work():
    # A patched function makes a hub for the thread, which ends with it.
    time.sleep(0.001)
    began.set()
    stop.wait()
thread = start_thread(work, "canary-mw-test", stop=stop.set)
began.wait()
files = len(os.listdir("/proc/self/fd"))
print(thread.native_id not in (None, threading.get_native_id()), thread in running_threads())
print(thread.join(0.01), gevent.spawn(lambda: "another greenlet runs").get(timeout=20))
stop.set()
print(thread.join(20), running_threads(), len(os.listdir("/proc/self/fd")) < files)
"""
    assert under_gevent(script) == "True True\nFalse another greenlet runs\nTrue [] True\n"
