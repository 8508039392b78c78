"""What threads of the package call of their host."""

import json
import logging
import threading
from pathlib import Path

import pytest
from gevent_script import under_gevent
from servers import mapping

from canary_mw.host import HostLogger, call_host


def test_a_function_of_the_host_is_called_at_once_in_the_thread_that_needs_it() -> None:
    called: list[object] = []
    call_host(lambda *args: called.append((args, threading.current_thread())), 1, 2)
    assert called == [((1, 2), threading.current_thread())]


def test_a_record_names_the_place_and_the_exception_of_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    logger = HostLogger(logging.getLogger("canary_mw.test"))
    logger.warning("%s is odd", "it")
    try:
        raise LookupError("of the caller")
    except LookupError:
        logger.exception("failed")
    logger.debug("not shown")
    first, second = caplog.records
    here = test_a_record_names_the_place_and_the_exception_of_its_caller.__name__
    assert (first.name, first.levelname, first.getMessage()) == ("canary_mw.test", "WARNING", "it is odd")
    assert (first.pathname, first.funcName) == (__file__, here)
    assert second.exc_info is not None
    assert isinstance(second.exc_info[1], LookupError)


SCRIPT = """
import gevent, json, logging, os, sys
from canary_mw.forking import start_thread
from canary_mw.host import HostLogger
from canary_mw.locks import Latch, system_ident, wait_for
"""


def test_a_record_of_a_thread_waits_for_no_lock_of_the_host() -> None:
    script = (
        SCRIPT
        + """
seen, logged, both = [], Latch(), Latch()
class Slow(logging.Handler):
    def emit(self, record):
        # With the lock of the handler: that of the host's greenlet, until the thread has logged.
        seen.append((record.getMessage(), system_ident() == main, record.exc_info and str(record.exc_info[1])))
        if record.name == "host":
            wait_for(logged, 20)
        if len(seen) == 2:
            both.set()
main = system_ident()
logging.getLogger().addHandler(Slow())
def work():
    wait_for(began, 20)
    try:
        raise LookupError("of the thread")
    except LookupError:
        HostLogger(logging.getLogger("canary_mw.test")).exception("from %s", "a thread")
    logged.set()
began = Latch()
thread = start_thread(work, "canary-mw-test")
gevent.spawn(logging.getLogger("host").warning, "from a greenlet")
gevent.spawn(began.set)
print(wait_for(both, 20), json.dumps(seen))
"""
    )
    happened, _, seen = under_gevent(script).partition(" ")
    assert happened == "True"
    assert json.loads(seen) == [["from a greenlet", True, None], ["from a thread", True, "of the thread"]]


def test_observers_of_a_reload_run_in_a_greenlet_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(mapping("a", "/a/", "one"))
    script = (
        SCRIPT
        + """
from canary_mw import CanaryWSGIMiddleware, Observer
class Watcher(Observer):
    def reloaded(self, record):
        # A lock of greenlets, which another one holds meanwhile.
        gevent.sleep(0)
        idents.append(system_ident())
        if record.generation == 2:
            seen.set()
idents, seen = [], Latch()
logging.getLogger("canary_mw").setLevel(logging.WARNING)
middleware = CanaryWSGIMiddleware(None, rules=sys.argv[1], observers=[Watcher()])
middleware.start()
with open(sys.argv[1] + "/new", "w") as file:
    file.write(open(sys.argv[1] + "/rules.yaml").read().replace("one", "two"))
os.rename(sys.argv[1] + "/new", sys.argv[1] + "/rules.yaml")
print(wait_for(seen, 20), {*idents} == {system_ident()})
"""
    )
    assert under_gevent(script, str(tmp_path)) == "True True\n"


def test_a_transport_of_the_host_runs_in_a_greenlet_of_the_host() -> None:
    script = (
        SCRIPT
        + """
from canary_mw.upstreams.loop_thread import LoopThread, run_in_thread
def transport():
    gevent.sleep(0)
    return system_ident()
def broken():
    raise LookupError("of the transport")
background = LoopThread()
print(background.run(run_in_thread(transport)) == system_ident())
try:
    background.run(run_in_thread(broken), 20)
except LookupError as exc:
    print(exc)
async def ident():
    return system_ident()
print(background.run(ident()) == system_ident())
background.stop()
"""
    )
    assert under_gevent(script) == "True\nof the transport\nFalse\n"
