"""What a process does about releases: raise by compare-and-set alone, lower at once, and miss nothing."""

import fcntl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plans import MANUAL, RULES, Clock, Evidence

from canary_mw.control.rollouts import sqlite as sqlite_module
from canary_mw.control.rollouts.controller import Controller
from canary_mw.control.rollouts.latch import Latches
from canary_mw.control.rollouts.place import Place
from canary_mw.control.rollouts.settings import Surroundings, surroundings
from canary_mw.control.rollouts.sqlite import SQLiteStore
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import StoreAway
from canary_mw.rollout.commands import Command, Who, command
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import FORMAT, ReleaseState
from canary_mw.run_folder.folder import Folder


class Process:
    """A process with its rules, its clock and its controller."""

    def __init__(
        self, path: Path | None, *, text: str = RULES, where: Surroundings | None = None, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.evidence = Evidence()
        self.rules = RuleStore(StaticSource(text))
        self.rules.reload()
        assert self.rules.error is None, self.rules.error
        place = Place(str(path) if path is not None else None, lambda: None)
        self.controller = Controller(
            self.rules, place, self.evidence, where or Surroundings(), clock=self.clock, wall=lambda: 0.0
        )
        self.said: list[Message] = []
        self.controller.observers.append(lambda message, _: self.said.append(message))

    def run(self, seconds: float, *, step: float = 1.0) -> "Process":
        """Look once, and then each second for a time."""
        self.controller.step()
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(self.clock.now + step, end)
            self.controller.step()
        return self

    def order(self, name: Any, **more: Any) -> None:
        """Give a command as `Rollouts.command` does."""
        known = self.controller.states.known["svc-r"]
        outcome = command(self.controller.documents[0], known.state, Command(name=name, **more), Who("me"))
        assert outcome.state is not None
        if outcome.state.latched:
            self.controller.lower("svc-r", outcome.state, outcome.messages)
        else:
            assert self.controller.write("svc-r", outcome.state, outcome.messages)

    @property
    def state(self) -> ReleaseState:
        return self.controller.states.known["svc-r"].state

    @property
    def weight(self) -> float:
        """The percent of users that gets gray."""
        return self.rules.table.releases["svc-r"].effective_shares()["svc-gray"]

    def end(self) -> None:
        self.controller.end()


def test_a_release_goes_from_step_to_step_by_its_time(tmp_path: Path) -> None:
    process = Process(tmp_path / "state")
    assert process.weight == 0
    process.run(2)
    assert (process.state.phase, process.weight) == ("Progressing", 5)
    process.run(31)
    assert (process.state.phase, process.weight) == ("Progressing", 50)
    process.run(31)
    assert (process.state.phase, process.weight) == ("Baking", 100)
    process.run(31)
    assert process.state.phase == "Completed"
    assert [message.after for message in process.said][-3:] == ["Progressing", "Baking", "Completed"]


def test_a_release_with_steps_is_at_weight_0_until_the_store_has_answered(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    process = Process(tmp_path / "state").run(100)
    assert process.weight == 0
    override = process.rules.table.releases["svc-r"].override
    assert override is not None
    assert override.off
    (tmp_path / "state").chmod(0o700)
    process.run(2)
    assert process.weight == 5


def test_only_one_of_two_processes_controls_and_the_other_one_follows(tmp_path: Path) -> None:
    clock = Clock()
    one, other = (Process(tmp_path / "state", clock=clock) for _ in range(2))
    one.run(2)
    for _ in range(40):
        one.run(1)
        other.controller.step()
    assert one.controller.leads
    assert not other.controller.leads
    assert (one.weight, other.weight) == (50, 50)
    assert other.said == []
    one.end()
    other.run(1)
    assert other.controller.leads


def test_the_one_that_takes_over_goes_on_with_the_seconds_that_were_counted(tmp_path: Path) -> None:
    one = Process(tmp_path / "state").run(22)
    elapsed = one.state.elapsed
    assert elapsed > 15
    one.end()
    other = Process(tmp_path / "state").run(0)
    assert other.state.elapsed == elapsed
    assert other.evidence.restored == [b"evidence of 1"]
    other.run(30 - elapsed - 1)
    assert other.weight == 5
    other.run(3)
    assert other.weight == 50


def test_seconds_are_counted_by_the_clock_of_the_controller_and_not_those_in_which_it_was_stopped(
    tmp_path: Path,
) -> None:
    process = Process(tmp_path / "state").run(3)
    before = process.state.elapsed
    process.clock.now += 3600
    process.controller.step()
    assert process.state.elapsed <= before + 5
    assert process.weight == 5


def test_versions_move_with_what_happens_and_not_with_the_time(tmp_path: Path) -> None:
    process = Process(tmp_path / "state").run(2)
    version = process.controller.states.known["svc-r"].version
    process.run(20)
    assert process.controller.states.known["svc-r"].version == version


def test_of_two_that_both_control_none_raises_past_the_state(tmp_path: Path) -> None:
    clock = Clock()
    one, other = (Process(tmp_path / "state", clock=clock) for _ in range(2))
    written = []
    for process in (one, other):
        process.controller._lock.acquire = lambda: True  # type: ignore[method-assign]
        process.controller._may_lead = lambda: True  # type: ignore[method-assign]
    for _ in range(120):
        clock.now += 1
        for process in (one, other):
            process.controller.step()
            stored = process.controller.opened.store.load().states["svc-r"]  # type: ignore[union-attr]
            written.append((stored.version, stored.state.weight))
            assert process.weight <= stored.state.weight
    assert written == sorted(written)
    assert one.controller.leads
    assert other.controller.leads
    assert one.state.phase == "Completed"
    messages = [(message.before, message.after, message.step) for message in (*one.said, *other.said)]
    assert len(messages) == len(set(messages))


def test_who_cannot_write_does_not_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(tmp_path / "state").run(2)
    monkeypatch.setattr(sqlite_module.SQLiteStore, "compare_and_set", away)
    monkeypatch.setattr(sqlite_module.SQLiteStore, "checkpoint", away)
    process.run(100)
    assert process.weight == 5
    assert "written" in process.controller.troubles
    monkeypatch.undo()
    process.run(2)
    assert process.weight == 50
    assert process.controller.troubles == {}


def test_who_cannot_write_lowers_all_the_same_and_writes_it_later_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    process, follower = (Process(tmp_path / "state", clock=clock).run(2) for _ in range(2))
    assert follower.weight == 5
    said = len(process.said)
    monkeypatch.setattr(sqlite_module.SQLiteStore, "compare_and_set", away)
    process.order("abort")
    assert process.weight == 0
    # The other one has not looked yet: its requests see the latch.
    assert follower.rules.table.releases["svc-r"].variant_of("x") == "stable" or follower.weight == 5
    follower.controller.step()
    assert follower.weight == 0
    process.run(5)
    assert process.weight == 0
    assert len(process.said) == said
    monkeypatch.undo()
    process.run(1)
    assert [message.after for message in process.said[said:]] == ["Aborted"]
    assert Process(tmp_path / "state").run(0).state.phase == "Aborted"


def test_what_is_lowered_while_somebody_else_writes_is_stored_when_the_command_is_answered(tmp_path: Path) -> None:
    """Its version is what the next command names."""
    one, other = Process(tmp_path / "state").run(2), Process(tmp_path / "state").run(0)
    one.order("pause")
    other.order("abort")
    state, version = other.controller.states.known["svc-r"]
    stored = SQLiteStore(Folder(str(tmp_path / "state"))).load().states["svc-r"]
    assert (stored.state.phase, stored.version) == ("Aborted", version)
    assert state == stored.state
    assert [message.after for message in other.said] == ["Aborted"]


def test_a_command_that_could_not_be_stored_is_no_trouble_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that does not control may never write again."""
    clock = Clock()
    one, other = (Process(tmp_path / "state", clock=clock).run(2) for _ in range(2))
    with monkeypatch.context() as patched:
        patched.setattr(SQLiteStore, "compare_and_set", away)
        with pytest.raises(StoreAway):
            other.order("pause")
    other.controller.step()
    assert other.controller.troubles
    one.run(20)
    other.controller.step()
    assert not other.controller.troubles
    assert other.state.phase == "Progressing"


def away(*_: object) -> Any:
    raise StoreAway("it is away")


@pytest.mark.parametrize("harm", ["removed", "unreadable"])
def test_what_was_rolled_back_stays_so_after_a_restart(tmp_path: Path, harm: str) -> None:
    process = Process(tmp_path / "state").run(2)
    process.order("abort")
    process.end()
    assert Process(tmp_path / "state").run(10).weight == 0
    if harm == "unreadable":
        (tmp_path / "state" / "state.db").write_bytes(b"no database" * 1000)
        assert Process(tmp_path / "state").run(10).weight == 0


def test_a_file_that_is_lost_is_written_again_from_what_is_known(tmp_path: Path) -> None:
    process = Process(tmp_path / "state").run(33)
    assert process.weight == 50
    for path in (tmp_path / "state").iterdir():
        if path.name.startswith("state.db"):
            path.unlink()
    process.run(2)
    assert process.weight == 50
    process.order("abort")
    assert Process(tmp_path / "state").run(0).state.phase == "Aborted"


@pytest.mark.parametrize("restarted", [False, True])
def test_an_older_state_that_is_put_back_does_not_undo_what_was_taken_back(tmp_path: Path, restarted: bool) -> None:
    """As from a backup. Who has only read that gray was taken back stores it again."""
    process = Process(tmp_path / "state").run(33)
    before = process.state
    assert process.weight == 50
    # Somebody else, who has other latches, as another pod has.
    put(tmp_path / "state", replace(before, phase="Aborted", weights=dict.fromkeys(before.weights, 0.0)))
    process.run(1)
    assert process.weight == 0
    if restarted:
        process.end()
    put(tmp_path / "state", before)
    if restarted:
        process = Process(tmp_path / "state")
    process.run(1)
    assert process.weight == 0
    process.run(5)
    assert process.state.latched
    assert process.state.phase == ("RolledBack" if restarted else "Aborted")
    process.end()
    assert Process(tmp_path / "state").run(0).state.latched


def put(folder: Path, state: ReleaseState) -> None:
    """Write a state over whatever there is."""
    store = SQLiteStore(Folder(str(folder)))
    assert store.compare_and_set("svc-r", state, store.load().states["svc-r"].version)
    store.close()


def test_a_latch_of_a_process_that_was_killed_before_it_stored_why_becomes_the_state(tmp_path: Path) -> None:
    process = Process(tmp_path / "state").run(33)
    assert process.weight == 50
    Latches(Folder(str(tmp_path / "state"))).set("svc-r", 1)
    process.run(1)
    assert (process.weight, process.state.phase) == (0, "Progressing")
    process.run(5)
    assert process.state.phase == "RolledBack"
    assert process.state.history[-1].reason == "a process took it back, and ended before it could store why"
    assert [message.after for message in process.said][-1] == "RolledBack"
    process.end()
    (tmp_path / "state" / "latches").unlink()
    again = Process(tmp_path / "state").run(2)
    assert again.weight == 0
    again.order("retry")
    again.run(2)
    assert (again.state.attempt, again.weight) == (2, 5)


def test_another_revision_begins_anew_at_weight_0_before_anybody_has_looked(tmp_path: Path) -> None:
    process = Process(tmp_path / "state").run(33)
    assert process.weight == 50
    process.rules.source = StaticSource(RULES.replace('revision: "1"', 'revision: "2"'))
    process.rules.reload()
    assert process.weight == 0
    process.run(2)
    assert (process.state.attempt, process.weight) == (2, 5)


def test_the_stop_puts_everybody_on_stable_and_its_end_goes_on(tmp_path: Path) -> None:
    process = Process(tmp_path / "state").run(2)
    (tmp_path / "state" / "stop").touch()
    process.controller.step()
    assert process.weight == 0
    assert not process.rules.table.releases["svc-r"].document.enabled
    (tmp_path / "state" / "stop").unlink()
    process.controller.step()
    assert process.weight == 5


def test_the_stop_counts_for_releases_without_steps_too(tmp_path: Path) -> None:
    process = Process(tmp_path / "state", text=MANUAL).run(1)
    assert process.weight == 20
    (tmp_path / "state" / "stop").touch()
    assert process.run(1).weight == 0


def test_the_environment_of_a_proxy_stops_all_releases(tmp_path: Path) -> None:
    process = Process(tmp_path / "state", where=surroundings({}, stopped=True)).run(2)
    assert process.weight == 0


def test_a_release_without_steps_costs_no_file_and_may_be_aborted(tmp_path: Path) -> None:
    process = Process(tmp_path / "state", text=MANUAL).run(2)
    assert process.weight == 20
    document = process.controller.documents[0]
    outcome = command(document, None, Command(name="abort"), Who("me"))
    assert outcome.state is not None
    process.controller.lower("svc-r", outcome.state, outcome.messages)
    assert process.weight == 0
    again = Process(tmp_path / "state", text=MANUAL).run(2)
    assert again.weight == 0
    again.order("retry")
    assert again.weight == 20


def test_in_a_cluster_without_a_shared_store_a_release_is_held_at_0(tmp_path: Path) -> None:
    process = Process(tmp_path / "state", where=surroundings({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})).run(100)
    assert process.weight == 0
    assert process.controller.outcomes["svc-r"].state.phase == "Held"  # type: ignore[union-attr]
    assert process.controller.opened.store.load().states == {}  # type: ignore[union-attr]


def test_in_a_cluster_a_state_of_a_single_pod_gives_nothing_where_it_is_not_said_any_more(tmp_path: Path) -> None:
    Process(tmp_path / "state").run(33).end()
    process = Process(tmp_path / "state", where=surroundings({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})).run(2)
    assert process.weight == 0


def test_in_a_cluster_a_new_store_that_knows_nothing_waits_60_seconds(tmp_path: Path) -> None:
    single = surroundings({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "CANARY_MW_SINGLE": "1"})
    process = Process(tmp_path / "state", where=single).run(59)
    assert process.weight == 0
    assert process.controller.is_young()
    process.run(3)
    assert process.weight == 5
    process.end()
    assert Process(tmp_path / "state", where=single).run(1).weight == 5


def test_elsewhere_nothing_waits_for_the_store_to_grow_old(tmp_path: Path) -> None:
    assert Process(tmp_path / "state").run(2).weight == 5


@pytest.mark.parametrize("known_before", [True, False])
def test_a_newer_version_of_the_state_holds_and_raises_nothing(tmp_path: Path, *, known_before: bool) -> None:
    process = Process(tmp_path / "state").run(3)
    newer = Process(tmp_path / "state").run(0)
    opened = newer.controller.opened
    assert opened is not None
    store = opened.store
    assert isinstance(store, sqlite_module.SQLiteStore)
    with store._opened() as connection:
        connection.execute(f"update states set version = 9, state = json_set(state, '$.format', {FORMAT + 1})")
    if not known_before:
        process.end()
        process = Process(tmp_path / "state")
    process.run(100)
    assert process.weight == (5 if known_before else 0)
    assert store.load().newer == {"svc-r"}


def test_somebody_who_hears_no_controller_rolls_back_by_himself_and_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    one, other = (Process(tmp_path / "state", clock=clock).run(2) for _ in range(2))
    assert one.controller.leads
    looks = other.evidence.looks
    silence = [9.0]
    monkeypatch.setattr(Latches, "silence", lambda _: silence[0])
    other.run(60)
    assert other.evidence.looks == looks
    silence[0] = 11.0
    other.run(60)
    assert other.evidence.looks > looks
    assert not other.controller.leads
    assert other.weight == 5
    rolled_back = replace(other.state, phase="RolledBack", weights={"svc-gray": 0.0})
    other.controller.lower("svc-r", rolled_back, ())
    one.controller.step()
    assert (one.weight, one.state.phase) == (0, "RolledBack")


def test_a_key_that_fails_is_looked_at_soon_and_not_too_often(tmp_path: Path) -> None:
    process = Process(tmp_path / "state").run(3)
    latches = process.controller.opened.latches  # type: ignore[union-attr]
    process.clock.now += 0.1
    process.controller.step()
    looks = process.evidence.looks
    latches.ask_to_look()
    process.controller.step()
    assert process.evidence.looks == looks + 1
    latches.ask_to_look()
    process.controller.step()
    assert process.evidence.looks == looks + 1
    process.clock.now += 0.06
    process.controller.step()
    assert process.evidence.looks == looks + 2


def test_in_the_memory_of_a_process_a_release_goes_on_as_well() -> None:
    process = Process(None).run(33)
    assert process.weight == 50
    process.order("abort")
    assert process.weight == 0


def test_an_observer_that_fails_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = Process(tmp_path / "state")
    process.controller.observers.insert(0, lambda *_: 1 / 0)
    process.run(2)
    assert process.weight == 5
    assert process.said
    assert "failed on a change of release svc-r" in caplog.text


def test_a_folder_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Over NFS one process takes a lock twice.
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(OSError, match="a folder on a disk of this host"):
        Place(str(tmp_path / "state"), lambda: None).open()


@pytest.mark.parametrize("harm", [lambda path: path.mkdir(mode=0o755), lambda path: path.touch()])
def test_a_folder_that_others_may_use_or_that_is_none_is_refused(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    harm(tmp_path / "state")
    with pytest.raises(OSError, match=r"others may use it|Not a directory"):
        Place(str(tmp_path / "state"), lambda: None).open()


def test_a_run_folder_that_is_made_anew_gets_what_is_known(tmp_path: Path) -> None:
    folders = [Folder(str(tmp_path / "one"))]
    process = Process(None)
    process.controller._place = Place(None, lambda: folders[0])
    process.run(33)
    assert process.weight == 50
    folders[0] = Folder(str(tmp_path / "two"))
    process.run(2)
    assert process.weight == 50
    process.order("abort")
    other = Process(None)
    other.controller._place = Place(None, lambda: Folder(str(tmp_path / "two")))
    assert other.run(0).state.phase == "Aborted"
