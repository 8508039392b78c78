"""Locks and events between threads of the system and, where gevent has patched `threading`, greenlets."""

import sys
import threading
from types import ModuleType

import pytest
from gevent_script import under_gevent

from canary_mw.exceptions import ConfigError
from canary_mw.locks import Latch, Mutex, check_threads, new_lock, new_rlock, wait_for
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware

DEADLINE = 20.0


def threads(count: int, target: object) -> list[threading.Thread]:
    """So many threads that are started."""
    made = [threading.Thread(target=target) for _ in range(count)]  # type: ignore[arg-type]
    for thread in made:
        thread.start()
    return made


def test_a_latch_lets_everybody_through_once_it_has_happened() -> None:
    latch = Latch()
    through: list[bool] = []
    waiting = threads(5, lambda: through.append(latch.wait(DEADLINE)))
    assert not latch.is_set()
    latch.set()
    latch.set()
    for thread in waiting:
        thread.join(DEADLINE)
    assert through == [True] * 5
    assert latch.is_set()
    assert latch.wait()
    assert wait_for(latch)


@pytest.mark.parametrize("timeout", [0.01, 0, -1])
def test_a_latch_that_does_not_happen_is_waited_for_no_longer_than_its_timeout(timeout: float) -> None:
    assert not Latch().wait(timeout)
    assert not wait_for(Latch(), timeout)


def test_a_mutex_may_be_taken_again_by_its_holder_only() -> None:
    mutex = Mutex()
    order: list[str] = []

    def work() -> None:
        with mutex:
            order.append("other")

    with mutex:
        (other,) = threads(1, work)
        with mutex:
            order.append("holder")
        order.append("holder")
    other.join(DEADLINE)
    assert order == ["holder", "holder", "other"]


def test_locks_are_those_of_the_system() -> None:
    assert type(new_lock()) is type(threading.Lock())
    assert type(new_rlock()) is type(threading.RLock())


PRELUDE = """
from gevent import monkey
system_lock = monkey.get_original("_thread", "allocate_lock")
system_start = monkey.get_original("_thread", "start_new_thread")
LATE = False
if not LATE:
    monkey.patch_all()
import gevent, threading, time
from canary_mw.locks import Latch, Mutex, new_lock, new_rlock, wait_for
latch, mutex, lock, rlock = Latch(), Mutex(), new_lock(), new_rlock()
if LATE:
    monkey.patch_all()
"""


def in_greenlets(script: str, *, late: bool) -> str:
    """What a script prints where `threading` is patched, before or after the import of the package."""
    return under_gevent(script, prelude=PRELUDE.replace("LATE = False", f"LATE = {late}"))


@pytest.mark.parametrize("late", [False, True])
def test_a_greenlet_that_waits_for_a_thread_lets_the_others_go_on(late: bool) -> None:
    script = """
go = system_lock()
go.acquire()
def thread():
    go.acquire()
    latch.set()
system_start(thread, ())
waiting = [gevent.spawn(wait_for, latch) for _ in range(3)]
# The thread goes on only because another greenlet lets it, which runs while these wait.
gevent.spawn(go.release)
gevent.joinall(waiting, raise_error=True)
print([each.value for each in waiting], wait_for(Latch(), 0.01), latch._callbacks)
"""
    assert in_greenlets(script, late=late) == "[True, True, True] False []\n"


@pytest.mark.parametrize("late", [False, True])
def test_a_greenlet_that_waits_for_the_holder_of_a_mutex_lets_the_others_go_on(late: bool) -> None:
    script = """
order = []
go, held = system_lock(), Latch()
go.acquire()
def thread():
    with mutex:
        held.set()
        go.acquire()
        order.append("thread")
def greenlet(name):
    with mutex:
        with mutex:
            # Another greenlet of this thread does not get it meanwhile.
            gevent.sleep(0)
            order.append(name)
            gevent.sleep(0)
            order.append(name)
system_start(thread, ())
wait_for(held)
waiting = [gevent.spawn(greenlet, name) for name in "ab"]
gevent.spawn(go.release)
gevent.joinall(waiting, raise_error=True)
print(*order)
"""
    assert in_greenlets(script, late=late) in ("thread a a b b\n", "thread b b a a\n")


@pytest.mark.parametrize("late", [False, True])
def test_locks_are_those_of_the_system_also_where_they_are_patched(late: bool) -> None:
    script = "print(type(new_lock()) is type(system_lock()), type(new_rlock()).__module__)"
    assert in_greenlets(script, late=late) == "True _thread\n"


@pytest.mark.parametrize("patched", ["thread", "select"])
def test_eventlet_is_refused_with_the_servers_that_work(patched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    eventlet = ModuleType("eventlet.patcher")
    vars(eventlet)["is_monkey_patched"] = lambda name: name == patched
    middleware = CanaryWSGIMiddleware(lambda _environ, _start: [], rules="/nowhere")
    monkeypatch.setitem(sys.modules, "eventlet.patcher", eventlet)
    wanted = r"eventlet has patched .* \(.*gunicorn's gthread or gevent workers.*\)"
    with pytest.raises(ConfigError, match=wanted):
        check_threads()
    with pytest.raises(ConfigError, match=wanted):
        CanaryWSGIMiddleware(lambda _environ, _start: [], rules="/nowhere")
    with pytest.raises(ConfigError, match=wanted):
        CanaryMiddleware(lambda *_: None, rules="/nowhere")  # type: ignore[arg-type]
    # Patched after it was made, as in a worker of a server that loads the app first.
    with pytest.raises(ConfigError, match=wanted):
        middleware.start()
    assert middleware.store.generation == 0


def test_eventlet_that_patched_nothing_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    eventlet = ModuleType("eventlet.patcher")
    vars(eventlet)["is_monkey_patched"] = lambda _name: False
    monkeypatch.setitem(sys.modules, "eventlet.patcher", eventlet)
    check_threads()
