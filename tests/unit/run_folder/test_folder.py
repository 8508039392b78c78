"""The run folder: what is refused, what is written as a whole, and what one process does for all."""

import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from canary_mw.forking import ensure_forked_hooks
from canary_mw.run_folder import opened, place
from canary_mw.run_folder.folder import Folder, remove_folder
from canary_mw.run_folder.lock import FolderLock
from canary_mw.run_folder.opened import give_up, make_run_folder, run_folder

# Python 3.12 warns of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    opened._after_fork()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_and_its_files_are_for_this_user_alone(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    os.close(folder.create("a"))
    folder.replace("b", b"text")
    assert mode(tmp_path / "run") == 0o700
    assert {mode(tmp_path / "run" / name) for name in folder.names()} == {0o600}


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o770, 0o777, 0o701, 0o1777])
def test_a_folder_that_others_may_use_is_refused(tmp_path: Path, bits: int) -> None:
    tmp_path.joinpath("run").mkdir()
    tmp_path.joinpath("run").chmod(bits)
    with pytest.raises(PermissionError, match="others may use it"):
        Folder(str(tmp_path / "run"))


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("run").mkdir(mode=0o700)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(PermissionError, match="belongs to user"):
        Folder(str(tmp_path / "run"))


def test_a_link_or_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("real").mkdir(mode=0o700)
    tmp_path.joinpath("link").symlink_to("real")
    tmp_path.joinpath("file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(OSError, match=name):
            Folder(str(tmp_path / name))


def test_no_link_is_followed_to_a_file_and_none_is_overwritten(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    target = tmp_path / "target"
    target.write_text("kept")
    for name in ("a", f".b.{os.getpid()}"):
        tmp_path.joinpath("run", name).symlink_to(target)
    with pytest.raises(FileExistsError):
        folder.create("a")
    with pytest.raises(OSError, match="a"):
        folder.open("a")
    folder.replace("a", b"new")
    folder.replace("b", b"new")
    assert (folder.read("a"), folder.read("b"), target.read_text()) == (b"new", b"new", "kept")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    folder.replace("a", b"12345")
    assert folder.read("a", 5) == b"12345"
    with pytest.raises(OSError, match="too large"):
        folder.read("a", 4)


def test_an_error_leaves_no_half_file(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    tmp_path.joinpath("run", "a").mkdir()
    with pytest.raises(IsADirectoryError):
        folder.replace("a", b"text")
    assert folder.names() == ["a"]


def test_a_removed_folder_is_made_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    first = run_folder(path)
    assert first is not None
    assert run_folder(path) is first
    remove_folder(path)
    second = run_folder(path)
    assert second is not None
    second.replace("a", b"")
    assert os.listdir(path) == ["a"]


def test_a_folder_that_cannot_be_used_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "missing" / "run")
    assert [run_folder(path) for _ in range(3)] == [None, None, None]
    (record,) = caplog.records
    assert f"the run folder {path} is not used: No such file" in record.getMessage()


def test_a_folder_that_fails_later_is_given_up_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "run")
    folder = run_folder(path)
    assert folder is not None
    for _ in range(2):
        give_up(folder, OSError(28, "No space left on device"))
        assert run_folder(path) is None
    (record,) = caplog.records
    assert "No space left" in record.getMessage()


def test_no_folder_is_guessed_for_a_process_that_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "modules", {**sys.modules, "multiprocessing.process": None})
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    assert run_folder(None) is None


def test_workers_of_gunicorn_share_the_folder_of_their_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "parents", lambda: [str(tmp_path)])
    monkeypatch.setattr(place, "_command", lambda _: b"gunicorn\0app:app\0")
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/23.0.0")
    folder = run_folder(None)
    assert folder is not None
    owner, namespace, parent, start = folder.path.rpartition("/canary-mw-")[2].split("-")
    assert (int(owner), int(parent)) == (os.geteuid(), os.getppid())
    assert int(namespace) == os.stat("/proc/self/ns/pid").st_ino
    assert int(start) > 0


@pytest.mark.parametrize(
    ("own", "parent", "works"),
    [
        (b"gunicorn\0app:app\0", b"gunicorn\0app:app\0", True),
        (b"gunicorn: worker [app]", b"gunicorn: master [app]", True),
        (b"gunicorn: master [app]", b"sh\0", False),
        (b"python\0-m\0tool\0", b"gunicorn\0app:app\0", False),
        (b"", b"", False),
    ],
)
def test_a_worker_of_gunicorn_is_told_from_its_master_and_from_what_it_starts(
    own: bytes, parent: bytes, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_command", lambda pid: own if pid == os.getpid() else parent)
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    assert not place.is_forked_worker()
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/23.0.0")
    assert place.is_forked_worker() is works


def test_the_next_parent_is_used_where_one_is_taken_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = [tmp_path / "a", tmp_path / "b"]
    for each in found:
        each.mkdir()
    name = place.name_of(os.getpid())
    assert name is not None
    found[0].joinpath(name).mkdir()
    found[0].joinpath(name).chmod(0o777)
    monkeypatch.setattr(opened, "parents", lambda: list(map(str, found)))
    assert make_run_folder() == str(found[1] / name)
    assert caplog.records == []


def test_folders_of_servers_that_have_ended_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "parents", lambda: [str(tmp_path)])
    own = make_run_folder()
    assert own is not None
    prefix, _, start = os.path.basename(own).rpartition("-")
    stale = Folder(str(tmp_path / f"{prefix}-{int(start) + 1}"))
    stale.replace("a", b"text")
    others = ["canary-mw-7-8-9-10", f"{os.path.basename(own)}-more", "else"]
    for each in others:
        tmp_path.joinpath(each).mkdir(mode=0o700)
    assert make_run_folder() == own
    assert sorted(os.listdir(tmp_path)) == sorted([os.path.basename(own), *others])


def lock_of(path: Path, name: str = "a.lock") -> FolderLock:
    return FolderLock(lambda: run_folder(str(path)), name)


def test_one_lock_is_held_and_the_next_one_takes_over(tmp_path: Path) -> None:
    first, second = lock_of(tmp_path / "run"), lock_of(tmp_path / "run")
    assert (first.acquire(), second.acquire(), first.acquire()) == (True, False, True)
    first.release()
    assert (second.acquire(), first.acquire()) == (True, False)
    assert lock_of(tmp_path / "run", "b.lock").acquire()


def test_the_lock_of_a_killed_process_is_free_though_its_child_lives(tmp_path: Path) -> None:
    lock, ready, go = lock_of(tmp_path / "run"), os.pipe(), os.pipe()
    holder = os.fork()
    if not holder:
        lock.acquire()
        if not os.fork():
            # It has the descriptors of its parent, until the hooks run.
            ensure_forked_hooks()
            os.write(ready[1], b"1")
            os.close(go[1])
            os.read(go[0], 1)
            os._exit(0)
        signal.pause()
    try:
        os.read(ready[0], 1)
        assert not lock.acquire()
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        assert lock.acquire()
    finally:
        for each in (*ready, *go):
            os.close(each)


def test_a_fork_leaves_the_lock_with_the_parent(tmp_path: Path) -> None:
    lock = lock_of(tmp_path / "run")
    assert lock.acquire()
    child = os.fork()
    if not child:
        os._exit(int(lock.acquire()))
    assert os.waitpid(child, 0)[1] == 0
    assert lock.acquire()
    assert not lock_of(tmp_path / "run").acquire()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_lock_whose_file_was_removed_is_lost_to_who_was_faster(tmp_path: Path, what: str) -> None:
    first, second = lock_of(tmp_path / "run"), lock_of(tmp_path / "run")
    assert first.acquire()
    if what == "file":
        tmp_path.joinpath("run", "a.lock").unlink()
    else:
        remove_folder(str(tmp_path / "run"))
    assert second.acquire()
    assert not first.acquire()
    second.release()
    assert first.acquire()


def test_without_a_folder_each_process_acts_for_itself(tmp_path: Path) -> None:
    first, second = lock_of(tmp_path / "missing" / "run"), lock_of(tmp_path / "missing" / "run")
    assert (first.acquire(), second.acquire()) == (True, True)
    assert first.folder is None


def test_where_a_lock_fails_each_process_acts_for_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = lock_of(tmp_path / "run")
    tmp_path.joinpath("run", "a.lock").mkdir(parents=True)
    tmp_path.joinpath("run").chmod(0o700)
    assert (lock.acquire(), lock.acquire(), lock.folder) == (True, True, None)
    assert len(caplog.records) == 1
