"""Stores of states: what one process writes the others read, and of two that write at once one wins."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from canary_mw.control.rollouts.memory import MemoryStore
from canary_mw.control.rollouts.sqlite import SQLiteStore
from canary_mw.control.rollouts.store import StateStore
from canary_mw.exceptions import StoreAway
from canary_mw.rollout.state import FORMAT, ReleaseState
from canary_mw.run_folder.folder import Folder

STATE = ReleaseState(name="svc-r", phase="Progressing", weights={"gray": 5.0})
WRITER = """
import sys
from canary_mw.control.rollouts.sqlite import SQLiteStore
from canary_mw.rollout.state import ReleaseState
from canary_mw.run_folder.folder import Folder
store = SQLiteStore(Folder(sys.argv[1]))
won = 0
print("ready", flush=True)
sys.stdin.readline()
while won < int(sys.argv[2]):
    row = store.load().states["svc-r"]
    won += store.compare_and_set("svc-r", ReleaseState(name="svc-r", attempt=row.version + 1), row.version) is not None
print(won)
"""


def in_folder(path: Path) -> SQLiteStore:
    return SQLiteStore(Folder(str(path)))


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStore:
    return in_folder(tmp_path / "state") if request.param == "sqlite" else MemoryStore()


def test_a_state_is_written_once_for_each_version(store: StateStore) -> None:
    assert store.load().states == {}
    assert store.compare_and_set("svc-r", STATE, None) == 1
    assert store.compare_and_set("svc-r", STATE, None) is None
    assert store.compare_and_set("svc-r", replace(STATE, step=1), 1) == 2
    assert store.compare_and_set("svc-r", replace(STATE, step=7), 1) is None
    assert store.load().states["svc-r"] == (replace(STATE, step=1), 2)


def test_a_checkpoint_changes_no_version(store: StateStore) -> None:
    store.compare_and_set("svc-r", STATE, None)
    store.checkpoint("svc-r", b"one")
    store.checkpoint("svc-r", b"two")
    assert store.checkpoints() == {"svc-r": b"two"}
    assert store.load().states["svc-r"].version == 1


def test_what_another_process_writes_is_noticed(tmp_path: Path) -> None:
    one, other = in_folder(tmp_path / "state"), in_folder(tmp_path / "state")
    one.load()
    other.load()
    assert not one.has_changed()
    other.compare_and_set("svc-r", STATE, None)
    assert one.has_changed()
    assert one.load().states["svc-r"].state == STATE
    assert not one.has_changed()


def test_the_stop_is_noticed_and_so_is_its_end(tmp_path: Path) -> None:
    store = in_folder(tmp_path / "state")
    assert not store.load().stopped
    (tmp_path / "state" / "stop").touch()
    assert store.has_changed()
    assert store.load().stopped
    (tmp_path / "state" / "stop").unlink()
    assert store.has_changed()


def test_of_processes_that_race_one_wins_each_version(tmp_path: Path) -> None:
    store = in_folder(tmp_path / "state")
    store.compare_and_set("svc-r", STATE, None)
    command = [sys.executable, "-c", WRITER, str(tmp_path / "state"), "20"]
    racing = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(3)
    ]
    for each in racing:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    assert [each.communicate("\n", timeout=60)[0].strip() for each in racing] == ["20"] * 3
    assert store.load().states["svc-r"].version == 61


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_state(tmp_path: Path) -> None:
    store = in_folder(tmp_path / "state")
    store.compare_and_set("svc-r", STATE, None)
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "state"), "1000000"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdout.readline()
            before = store.load().states["svc-r"].version
            print(file=writer.stdin, flush=True)
            while store.load().states["svc-r"].version < before + 5:
                pass
            writer.send_signal(signal.SIGKILL)
        row = store.load().states["svc-r"]
        assert row.state.attempt == row.version
        assert store.compare_and_set("svc-r", replace(STATE, attempt=row.version + 1), row.version) is not None


def test_a_file_that_was_removed_is_made_anew_and_is_another_store(tmp_path: Path) -> None:
    store = in_folder(tmp_path / "state")
    store.compare_and_set("svc-r", STATE, None)
    identity = store.load().identity
    for name in os.listdir(tmp_path / "state"):
        (tmp_path / "state" / name).unlink()
    assert store.has_changed()
    assert store.load().states == {}
    assert store.load().identity != identity
    assert store.compare_and_set("svc-r", STATE, None) == 1


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"no database" * 1000), lambda path: path.mkdir()])
def test_a_file_that_is_no_store_is_away(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    folder = Folder(str(tmp_path / "state"))
    harm(tmp_path / "state" / "state.db")
    store = SQLiteStore(folder)
    with pytest.raises(StoreAway, match=r"state\.db"):
        store.load()
    with pytest.raises(StoreAway):
        store.compare_and_set("svc-r", STATE, None)


def change(path: Path, *commands: str) -> None:
    with sqlite3.connect(path / "state.db") as connection:
        for command in commands:
            connection.execute(command)
    connection.close()


def test_a_state_of_a_newer_version_is_named_and_not_taken(tmp_path: Path) -> None:
    store = in_folder(tmp_path / "state")
    store.compare_and_set("svc-r", STATE, None)
    store.compare_and_set("other", replace(STATE, name="other"), None)
    newer = f"update states set state = json_set(state, '$.format', {FORMAT + 1}) where name = 'svc-r'"
    change(tmp_path / "state", newer)
    stored = store.load()
    assert stored.newer == {"svc-r"}
    assert set(stored.states) == {"other"}


def test_the_tables_of_a_newer_version_are_not_written(tmp_path: Path) -> None:
    store = in_folder(tmp_path / "state")
    store.compare_and_set("svc-r", STATE, None)
    change(tmp_path / "state", "pragma user_version = 99")
    assert store.load().newer == {"svc-r"}
    with pytest.raises(StoreAway, match="newer version"):
        store.compare_and_set("svc-r", STATE, 1)
    with pytest.raises(StoreAway, match="newer version"):
        store.checkpoint("svc-r", b"")


def test_a_state_of_the_format_before_is_read(tmp_path: Path) -> None:
    store = in_folder(tmp_path / "state")
    store.compare_and_set("svc-r", STATE, None)
    older = f"update states set state = json_set(json_remove(state, '$.visit'), '$.format', {FORMAT - 1})"
    change(tmp_path / "state", older)
    assert store.load().states["svc-r"].state == STATE


def test_a_state_that_cannot_be_read_harms_no_other(tmp_path: Path) -> None:
    store = in_folder(tmp_path / "state")
    store.compare_and_set("svc-r", STATE, None)
    store.compare_and_set("other", replace(STATE, name="other"), None)
    change(tmp_path / "state", "update states set state = '{}' where name = 'svc-r'")
    stored = store.load()
    assert list(stored.unreadable) == ["svc-r"]
    assert set(stored.states) == {"other"}


def test_files_are_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        in_folder(tmp_path / "state").compare_and_set("svc-r", STATE, None)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert set(modes.values()) == {0o600}
