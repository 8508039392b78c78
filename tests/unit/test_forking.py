"""What a process does anew when it is a forked child, whether Python heard of the fork or not."""

import ctypes
import os
import random
import threading
from collections.abc import Callable

import pytest

from canary_mw import forking as forks
from canary_mw.middleware.identity import new_request_id

# Python 3.12 warns of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def past_python() -> int:
    """Fork as uWSGI does: no hook of `os` is called."""
    return int(ctypes.PyDLL(None).fork())


def told_by_a_child(fork: Callable[[], int], tell: Callable[[], bytes]) -> bytes:
    """What a function returns in a forked child."""
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        try:
            forks.ensure_forked_hooks()
            os.write(writer, tell())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as told:
        answer = told.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("fork", [os.fork, past_python])
def test_children_share_neither_ids_nor_chance(fork: Callable[[], int]) -> None:
    def tell() -> bytes:
        return new_request_id() + b" %d" % random.getrandbits(64)

    told = {told_by_a_child(fork, tell), told_by_a_child(fork, tell), tell()}
    assert len({each.partition(b" ")[0] for each in told}) == 3
    assert len({each.partition(b" ")[2] for each in told}) == 3


@pytest.mark.parametrize("fork", [os.fork, past_python])
def test_a_hook_is_called_once_in_a_child_whoever_asks(
    fork: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def tell() -> bytes:
        threads = [threading.Thread(target=forks.ensure_forked_hooks) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return b"%d" % len(calls)

    monkeypatch.setattr(forks, "_hooks", [lambda: calls.append(os.getpid())])
    assert told_by_a_child(fork, tell) == b"1"
    forks.ensure_forked_hooks()
    assert calls == []
