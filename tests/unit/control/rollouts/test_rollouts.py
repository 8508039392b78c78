"""What drives the releases of a store: a thread where one is needed, commands, and whether a process is ready."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plans import MANUAL, RULES, Evidence

from canary_mw.control.rollouts import rollouts as rollouts_module
from canary_mw.control.rollouts import sqlite as sqlite_module
from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.rollouts.settings import Surroundings
from canary_mw.control.rollouts_by_store import rollouts_of
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import CommandRefused, StoreAway, VersionMoved
from canary_mw.forking import running_threads
from canary_mw.rollout.commands import Command, Who

WHO = Who("me", "127.0.0.1", 0.0)
DEADLINE = 20.0
Start = Callable[..., Rollouts]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Begins to drive the releases of some rules; all of them share a folder."""
    started: list[tuple[RuleStore, Rollouts]] = []

    def begin(text: str = RULES) -> Rollouts:
        rules = RuleStore(StaticSource(text))
        found = Rollouts(rules, str(tmp_path / "state"), lambda: None, Evidence, Surroundings())
        started.append((rules, found))
        found.watch()
        rules.start()
        found.start()
        return found

    yield begin
    for rules, each in started:
        rules.stop()
        each.stop()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def weight(rollouts: Rollouts) -> float:
    return rollouts._rules.table.releases["svc-r"].effective_shares()["svc-gray"]


def threads() -> int:
    return sum(each.name == "canary-mw-rollouts" for each in running_threads())


def test_a_release_with_steps_starts_one_thread_and_stop_ends_it(start: Start) -> None:
    rollouts = start()
    until(lambda: weight(rollouts) == 5)
    assert threads() == 1
    rollouts.stop()
    assert threads() == 0


def test_rules_without_steps_start_no_thread_and_make_no_file(start: Start, tmp_path: Path) -> None:
    rollouts = start(MANUAL)
    assert threads() == 0
    assert rollouts.ready
    assert not (tmp_path / "state").exists()
    # A second time, from the thread of the rules.
    assert rollouts.look_for_states() > 0
    assert threads() == 0
    assert not (tmp_path / "state").exists()


def test_what_drives_releases_is_loaded_where_there_is_one() -> None:
    code = (
        "import sys\n"
        "from canary_mw.control.sources.static import StaticSource\n"
        "from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware\n"
        f"made = CanaryWSGIMiddleware(lambda *_: [], rules=StaticSource({MANUAL!r}))\n"
        "made.start()\n"
        "print(*(each for each in sys.modules if each.startswith('canary_mw.control.rollouts.')))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"canary_mw.control.rollouts.controller", "canary_mw.control.rollouts.sqlite"} & {*found.stdout.split()}


def test_the_abort_of_a_release_without_steps_is_heard_in_other_processes(start: Start) -> None:
    one, other = start(MANUAL), start(MANUAL)
    standing = one.command("svc-r", Command(name="abort"), None, WHO)
    assert standing.off
    assert weight(one) == 0
    until(lambda: weight(other) == 0)
    one.command("svc-r", Command(name="retry"), None, WHO)
    until(lambda: weight(one) == weight(other) == 20)


def test_a_command_in_one_process_is_in_force_in_all(start: Start) -> None:
    one, other = start(), start()
    until(lambda: weight(one) == weight(other) == 5)
    standing = other.command("svc-r", Command(name="set-weight", weight=40.0), None, WHO)
    assert standing.state is not None
    assert (standing.state.phase, standing.state.history[-1].who) == ("Paused", "me")
    until(lambda: weight(one) == weight(other) == 40)
    assert sum(each.is_controller for each in (*one.standings(), *other.standings())) == 1


def test_a_release_that_is_not_enabled_says_so(start: Start) -> None:
    """Its state keeps the weight, which nobody gets."""
    off = "enabled is false: everybody gets stable, and nothing goes on until it is true"

    def findings(rollouts: Rollouts) -> tuple[str, ...]:
        standing = rollouts.standing("svc-r")
        assert standing is not None
        return standing.findings if standing.version else ("not begun",)

    enabled, disabled = start(), start(RULES + "enabled: false\n")
    until(lambda: findings(enabled) == ())
    until(lambda: findings(disabled) == (off,))


def test_a_command_for_another_version_than_the_present_one_is_refused(start: Start) -> None:
    rollouts = start()
    until(lambda: weight(rollouts) == 5)
    standing = rollouts.standing("svc-r")
    assert standing is not None
    with pytest.raises(VersionMoved):
        rollouts.command("svc-r", Command(name="pause"), standing.version + 1, WHO)
    rollouts.command("svc-r", Command(name="pause"), standing.version, WHO)
    with pytest.raises(VersionMoved):
        rollouts.command("svc-r", Command(name="resume"), standing.version, WHO)


def test_a_command_that_does_not_fit_leaves_nothing(start: Start) -> None:
    rollouts = start()
    until(lambda: weight(rollouts) == 5)
    before = rollouts.standing("svc-r")
    with pytest.raises(CommandRefused):
        rollouts.command("svc-r", Command(name="retry"), None, WHO)
    with pytest.raises(CommandRefused, match="no release other"):
        rollouts.command("other", Command(name="abort"), None, WHO)
    after = rollouts.standing("svc-r")
    assert before is not None
    assert after is not None
    assert before.version == after.version
    assert rollouts.standing("other") is None


def test_without_a_store_abort_works_and_what_raises_does_not(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise StoreAway("it is away")

    rollouts = start()
    until(lambda: weight(rollouts) == 5)
    monkeypatch.setattr(sqlite_module.SQLiteStore, "compare_and_set", away)
    with pytest.raises(StoreAway):
        rollouts.command("svc-r", Command(name="promote"), None, WHO)
    assert weight(rollouts) == 5
    standing = rollouts.command("svc-r", Command(name="abort"), None, WHO)
    assert standing.off
    assert weight(rollouts) == 0
    assert any("it is away" in each for each in standing.findings)


def test_a_process_is_ready_when_the_store_has_answered_or_was_waited_for(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    rollouts = start()
    monkeypatch.setattr(rollouts_module, "_PATIENCE", 3600.0)
    found = [rollouts.ready]
    monkeypatch.setattr(rollouts_module, "_PATIENCE", 0.0)
    found.append(rollouts.ready)
    assert found == [False, True]
    monkeypatch.setattr(rollouts_module, "_PATIENCE", 3600.0)
    (tmp_path / "state").chmod(0o700)
    until(lambda: rollouts.ready)


def test_what_was_stored_is_in_force_when_start_returns(start: Start) -> None:
    rollouts = start()
    until(lambda: weight(rollouts) == 5)
    assert weight(start()) == 5


def test_middlewares_that_share_a_store_share_what_drives_it(tmp_path: Path) -> None:
    rules = RuleStore(StaticSource(RULES))
    made = [
        rollouts_of(rules, lambda: Rollouts(rules, str(tmp_path / "state"), lambda: None, Evidence)) for _ in range(2)
    ]
    assert made[0] is made[1]


NO_PLACES = [
    "redis://localhost/1",
    "rediss://localhost",
    "k8s://*",
    "k8s://shop,cart",
    "k8s://Shop",
    "k8s://?selector=a=b",
    "k8s://shop?kinds=services",
    "k8s://shop?kubeconfig=env&exec=allow",
    "k8s://?lease=Web",
    "k8s://?lease=",
    "k8s://?lease=a&lease=b",
]


@pytest.mark.parametrize("name", NO_PLACES)
def test_a_place_that_there_is_not_is_refused_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from canary_mw.exceptions import ConfigError
    from canary_mw.middleware.settings import MiddlewareSettings

    monkeypatch.setenv("CANARY_MW_STATE", name)
    with pytest.raises(ConfigError, match=f"CANARY_MW_STATE: '?{re.escape(name)}'?"):
        MiddlewareSettings.from_environ()


def test_in_a_cluster_the_log_says_why_nobody_gets_gray(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = RuleStore(StaticSource(RULES))
    rules.start()
    found = Rollouts(rules, str(tmp_path / "state"), lambda: None, Evidence, Surroundings(unshared=True))
    found.start()
    try:
        until(lambda: "set CANARY_MW_SINGLE=1 where there is one pod only" in caplog.text)
        assert weight(found) == 0
    finally:
        rules.stop()
        found.stop()
