import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import canary_mw
from canary_mw.control.gc_pause import _after_fork, gc_paused

USUAL = 0.004


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """Settings of the process that the work must leave behind, and afterwards those of the test run."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL)
    yield
    sys.setswitchinterval(before)
    gc.enable()


def settings() -> tuple[bool, bool]:
    """Whether the collector runs, and whether threads take turns as usual."""
    return gc.isenabled(), sys.getswitchinterval() == pytest.approx(USUAL, rel=0.02)


def test_the_settings_of_the_process_are_restored_also_after_a_failure() -> None:
    inside = []

    def fail() -> None:
        with gc_paused():
            inside.append(settings())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [(False, False)]
    assert settings() == (True, True)


def test_a_collector_that_was_off_stays_off_and_turns_that_were_short_are_not_made_longer() -> None:
    gc.disable()
    sys.setswitchinterval(0.00001)
    with gc_paused():
        assert sys.getswitchinterval() == pytest.approx(0.00001, rel=0.2)
    assert not gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(0.00001, rel=0.2)


def test_the_last_thread_that_leaves_restores_them() -> None:
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with gc_paused():
            inside.set()
            leave.wait()

    with gc_paused():
        other = threading.Thread(target=work)
        other.start()
        inside.wait()
    assert settings() == (False, False)
    leave.set()
    other.join()
    assert settings() == (True, True)


def test_new_objects_are_old_ones_afterwards_and_can_still_be_collected() -> None:
    gc.collect()
    with gc_paused():
        made = [[number] for number in range(5_000)]
    young = {id(each) for each in gc.get_objects(generation=0)}
    assert not young & {id(each) for each in made}
    assert gc.get_freeze_count() == 0


def test_what_an_application_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with gc_paused():
            pass
        assert gc.get_freeze_count() >= frozen > 0
    finally:
        gc.unfreeze()


def test_a_child_that_is_forked_out_of_the_work_itself_has_left_it() -> None:
    with gc_paused():
        _after_fork()
        assert settings() == (True, True)
    assert settings() == (True, True)
    with gc_paused():
        assert settings() == (False, False)
    assert settings() == (True, True)
    _after_fork()
    assert settings() == (True, True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_meanwhile_has_the_settings_of_before() -> None:
    script = """
import gc, os, sys
from canary_mw.control.gc_pause import gc_paused
usual = sys.getswitchinterval()
with gc_paused():
    child = os.fork()
    if child == 0:
        restored = gc.isenabled() and sys.getswitchinterval() == usual
        with gc_paused():
            again = not gc.isenabled()
        os._exit(0 if restored and again and gc.isenabled() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    root = Path(canary_mw.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
