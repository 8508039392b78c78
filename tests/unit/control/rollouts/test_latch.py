"""Latches: memory that the processes of a host share."""

import os
import subprocess
import sys
from pathlib import Path

from canary_mw.control.rollouts.latch import Latches
from canary_mw.run_folder.folder import Folder

SETTER = """
import sys
from canary_mw.control.rollouts.latch import Latches
from canary_mw.run_folder.folder import Folder
latches = Latches(Folder(sys.argv[1]))
latches.set("svc-r", 3)
latches.beat()
latches.ask_to_look()
"""


def test_a_latch_is_seen_by_another_process_at_once(tmp_path: Path) -> None:
    latches = Latches(Folder(str(tmp_path / "state")))
    cell, looks = latches.cell("svc-r"), latches.looks
    assert cell is latches.cell("svc-r")
    assert not latches.is_set("svc-r", 1)
    assert latches.silence() is None
    subprocess.run([sys.executable, "-c", SETTER, str(tmp_path / "state")], check=True, timeout=60)
    assert cell.cells[0] == 3
    assert latches.is_set("svc-r", 3)
    assert not latches.is_set("svc-r", 4)
    assert latches.looks != looks
    assert latches.controller not in (0, os.getpid())
    silence = latches.silence()
    assert silence is not None
    assert silence >= 0


def test_an_older_attempt_does_not_undo_a_latch(tmp_path: Path) -> None:
    latches = Latches(Folder(str(tmp_path / "state")))
    latches.set("svc-r", 3)
    latches.set("svc-r", 2)
    assert latches.is_set("svc-r", 3)


def test_each_release_has_its_own_latch_also_when_there_are_too_many(tmp_path: Path) -> None:
    latches = Latches(Folder(str(tmp_path / "state")))
    names = [f"release-{number}" for number in range(1100)]
    for number, name in enumerate(names, 1):
        latches.set(name, number)
    assert [latches.cell(name).cells[0] for name in names] == list(range(1, 1101))


def test_latches_outlive_their_process(tmp_path: Path) -> None:
    Latches(Folder(str(tmp_path / "state"))).set("svc-r", 1)
    assert Latches(Folder(str(tmp_path / "state"))).is_set("svc-r", 1)


def test_without_a_folder_they_are_those_of_the_process() -> None:
    latches = Latches(None)
    latches.set("svc-r", 1)
    assert latches.is_set("svc-r", 1)
    assert latches.error is None


def test_a_file_that_cannot_be_used_is_replaced_by_memory_and_said(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "state"))
    (tmp_path / "state" / "latches").mkdir()
    latches = Latches(folder)
    assert isinstance(latches.error, OSError)
    latches.set("svc-r", 1)
    assert latches.is_set("svc-r", 1)


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "state"))
    (tmp_path / "state" / "latches").write_bytes(b"another1" * 10)
    latches = Latches(folder)
    assert "another version" in str(latches.error)
    assert (tmp_path / "state" / "latches").read_bytes().startswith(b"another1")
