"""Hooks in a forked child, whether it was forked by Python or in C."""

import ctypes
import os
import random
import threading
from collections.abc import Callable

import pytest

from canary_mw import forking
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
