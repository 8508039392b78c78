"""Figures of several workers: files in a folder, read by anybody."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from canary_mw.observability.figures import layout
from canary_mw.observability.figures.layout import Header
from canary_mw.observability.figures.reader import read, read_private
from canary_mw.observability.figures.storage import Storage
from canary_mw.observability.figures.ticks import Ticks
from canary_mw.observability.figures.values import OTHER, RowKey, SeriesKey, Snapshot, counters_in, window_of
from canary_mw.observability.figures.writer import FiguresWriter

KEY = RowKey("release", "gray", "svc", "gray", drawn=True)
ALL = SeriesKey()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Opened(NamedTuple):
    descriptor: int


class Counting:
    """A worker that counts in a folder."""

    def __init__(self, folder: int, clock: Clock, start: float | None = None) -> None:
        self.writer = FiguresWriter(lambda: Opened(folder))
        self.ticks = Ticks(self.writer, clock)
        with self.writer.lock:
            self.writer.open()
        self.writer.header(Header.START, int((clock.now if start is None else start) * 1e6))

    def count(self, requests: int, key: RowKey = KEY) -> None:
        with self.writer.lock:
            row = self.writer.row(key)
            row[layout.CLASS_0 + 2] += requests
            row[layout.BUCKET_0 + 50] += requests

    def kill(self) -> None:
        """End as a process does that is killed: only its locks end."""
        assert self.writer.storage is not None
        self.writer.storage.close()


def requests(folder: int, now: float = 1e9) -> int:
    return sum(row.requests for row in read(folder, now).rows.values())


WORKER = """
import os, sys
from canary_mw.observability.figures.writer import FiguresWriter
from canary_mw.run_folder.folder import Folder
folder = Folder(sys.argv[1])
writer = FiguresWriter(lambda: folder)
writer.add("reloads", "ok")
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_it_is_known_how_a_worker_has_ended(tmp_path: Path, end: str) -> None:
    folder = tmp_path / "run"
    subprocess.run([sys.executable, "-c", WORKER, str(folder), end], check=end == "stopped")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    found = read(descriptor, 1e9)
    assert [worker.end for worker in found.ended] == [end]
    assert found.counters == {("reloads", "ok"): 1}
    os.close(descriptor)


def test_the_rows_of_all_workers_add_up(folder: int) -> None:
    clock = Clock(1000.0)
    first, second = Counting(folder, clock), Counting(folder, clock)
    first.count(3)
    second.count(4)
    second.count(1, KEY._replace(variant="stable"))
    second.writer.add("shadow", "sent", count=2)
    found = read(folder, 1001.0)
    assert {key: row.requests for key, row in found.rows.items()} == {KEY: 7, KEY._replace(variant="stable"): 1}
    assert found.counters == {("shadow", "sent"): 2}
    assert found.rows[KEY].buckets[50] == 7
    assert [worker.start for worker in found.workers] == [1000.0, 1000.0]
    assert found.shared


def test_a_worker_that_ended_keeps_its_counts_and_loses_its_gauges(folder: int, tmp_path: Path) -> None:
    clock = Clock(1000.0)
    first, second = Counting(folder, clock), Counting(folder, clock)
    first.count(3)
    second.count(4)
    first.writer.header(Header.IN_FLIGHT, 5)
    second.writer.header(Header.IN_FLIGHT, 1)
    first.kill()
    for _ in range(3):
        found = read(folder, 1001.0)
        assert found.rows[KEY].requests == 7
        assert found.gauges["in_flight"] == 1
    assert [(worker.end, worker.start) for worker in found.ended] == [("killed", 1000.0)]
    assert len(list(tmp_path.glob("figures-*"))) == 1
    second.writer.close()
    found = read(folder, 1001.0)
    assert found.rows[KEY].requests == 7
    assert [worker.end for worker in found.ended] == ["stopped", "killed"]


def test_a_file_that_is_added_up_but_not_removed_counts_once(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a process ends between the two."""
    worker = Counting(folder, Clock(1000.0))
    worker.count(3)
    worker.kill()
    with monkeypatch.context() as patched:
        patched.setattr("canary_mw.observability.figures.retire.remove", lambda folder, name: None)
        assert requests(folder) == 3
    assert len(list(tmp_path.glob("figures-*"))) == 1
    assert requests(folder) == 3
    assert not list(tmp_path.glob("figures-*"))
    assert requests(folder) == 3


def test_many_workers_that_end_leave_one_file(folder: int, tmp_path: Path) -> None:
    clock = Clock(1000.0)
    for number in range(40):
        worker = Counting(folder, clock)
        worker.count(1, KEY._replace(mapping=f"m{number}"))
        worker.kill()
        assert requests(folder) == number + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.lock", "figures.retired.2"]
    assert len(read(folder, 1000.0).ended) == 16


def test_files_of_another_version_are_named_and_left_alone(folder: int, tmp_path: Path) -> None:
    worker = Counting(folder, Clock(1000.0))
    worker.count(3)
    other = Counting(folder, Clock(1000.0))
    other.writer.header(Header.FORMAT, layout.FORMAT + 1)
    (tmp_path / "figures-short").write_bytes(b"x")
    found = read(folder, 1000.0)
    assert found.rows[KEY].requests == 3
    assert len(found.skipped) == 2
    other.kill()
    read(folder, 1000.0)
    assert len(list(tmp_path.glob("figures-*"))) == 3


@pytest.mark.parametrize("cut", [0, 5, 4096, 4100, 70_000])
def test_a_file_that_is_cut_is_read_as_far_as_it_goes(folder: int, tmp_path: Path, cut: int) -> None:
    worker = Counting(folder, Clock(1000.0))
    worker.count(3)
    (path,) = tmp_path.glob("figures-*")
    content = bytearray(path.read_bytes())
    content[8 * Header.ID] ^= 1
    (tmp_path / "figures-cut").write_bytes(content[:cut])
    assert requests(folder) in (3, 6)


def test_a_window_is_the_same_before_and_after_a_worker_ended(folder: int) -> None:
    clock = Clock(1000.0)
    first, second = Counting(folder, clock), Counting(folder, clock)
    for now in range(1005, 1105, 5):
        clock.now = now
        first.count(2)
        second.count(1)
        first.ticks.tick()
        second.ticks.tick()
    first.count(7)
    clock.now = 1101.5
    before = read(folder, clock.now).histories[SeriesKey("release", "gray")]
    first.kill()
    after = read(folder, clock.now).histories[SeriesKey("release", "gray")]
    for seconds in (10, 60, 300):
        assert window_of(after, clock.now, seconds) == window_of(before, clock.now, seconds)
    assert window_of(before, clock.now, 60).counts.requests == 3 * 12 + 7
    clock.now = 1200.0
    second.ticks.tick()
    later = read(folder, clock.now).histories[SeriesKey("release", "gray")]
    assert window_of(later, clock.now, 60).counts.requests == 0
    assert later.now.requests == 67


def test_a_worker_that_was_killed_before_its_first_slot_counts_from_its_start(folder: int) -> None:
    clock = Clock(1_000_000.0)
    killed, other = Counting(folder, clock, 999_990.0), Counting(folder, clock, 999_990.0)
    killed.count(40)
    other.count(60)
    killed.kill()
    for now in (1_000_001.0, 1_000_030.0, 1_000_200.0):
        clock.now = now
        other.ticks.tick()
        for series in (ALL, SeriesKey("release", "gray")):
            history = read(folder, now).histories[series]
            assert window_of(history, now, 300).counts.requests == 100


def test_a_release_that_began_just_before_its_worker_was_killed_counts_from_there(folder: int) -> None:
    clock = Clock(1_000_000.0)
    killed = Counting(folder, clock, 999_000.0)
    killed.count(5)
    for now in range(1_000_000, 1_000_400, 5):
        clock.now = float(now)
        killed.ticks.tick()
    killed.count(9, KEY._replace(release="new"))
    killed.kill()
    history = read(folder, 1_000_398.0).histories[SeriesKey("new", "gray")]
    assert window_of(history, 1_000_398.0, 60).counts.requests == 9


def test_a_worker_that_starts_later_counts_from_its_start(folder: int) -> None:
    clock = Clock(1000.0)
    first = Counting(folder, clock)
    first.count(5)
    for now in range(1005, 1105, 5):
        clock.now = now
        first.ticks.tick()
    second = Counting(folder, clock)
    second.count(3)
    # It has no slot yet.
    assert window_of(read(folder, 1101.0).histories[ALL], 1101.0, 60).counts.requests == 3
    clock.now = 1105.0
    second.ticks.tick()
    assert window_of(read(folder, 1106.0).histories[ALL], 1106.0, 60).counts.requests == 3


def test_a_release_that_comes_later_counts_from_its_first_request(folder: int) -> None:
    clock = Clock(1000.0)
    worker = Counting(folder, clock)
    worker.count(5)
    for now in (1005, 1010, 1015):
        clock.now = now
        worker.ticks.tick()
    new = KEY._replace(release="new")
    worker.count(9, new)
    clock.now = 1020.0
    worker.ticks.tick()
    history = read(folder, 1021.0).histories[SeriesKey("new", "gray")]
    assert window_of(history, 1021.0, 10).counts.requests == 9
    assert history.fine[1015] == Snapshot()


def test_counts_beyond_32_bits_have_right_windows(folder: int) -> None:
    clock = Clock(1000.0)
    worker = Counting(folder, clock)
    worker.count((1 << 32) - 10)
    clock.now = 1005.0
    worker.ticks.tick()
    worker.count(30)
    found = read(folder, 1006.0)
    assert window_of(found.histories[ALL], 1006.0, 1).counts.requests == 30
    assert counters_in(found, 1)[1] == {KEY: 30}


def test_minutes_are_kept_for_an_hour(folder: int) -> None:
    clock = Clock(6000.0)
    worker = Counting(folder, clock)
    for now in range(6005, 10000, 5):
        clock.now = now
        worker.count(1)
        worker.ticks.tick()
    history = read(folder, 9996.0).histories[ALL]
    assert (len(history.fine), len(history.coarse)) == (61, 61)
    assert window_of(history, 9996.0, 3600).counts.requests == (9995 - 6420) // 5
    assert window_of(history, 9996.0, 900).counts.requests == (9995 - 9120) // 5


def test_counters_have_a_window(folder: int) -> None:
    clock = Clock(1000.0)
    first, second = Counting(folder, clock), Counting(folder, clock)
    for now in range(1005, 1105, 5):
        clock.now = now
        for worker in (first, second):
            worker.writer.add("assignments", "release", "gray", "sticky")
            worker.count(1)
            worker.ticks.tick()
    for _ in range(2):
        assert counters_in(read(folder, 1100.0), 60)[1] == {("assignments", "release", "gray", "sticky"): 24, KEY: 24}
        first.kill()


def test_the_folder_is_bounded(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_ROWS", 50)
    worker = Counting(folder, Clock(1000.0))
    for number in range(200):
        worker.count(1, KEY._replace(mapping=f"m{number}"))
        worker.writer.add("refused", str(number))
    found = read(folder, 1000.0)
    assert len(found.rows) == 51
    assert found.rows[RowKey(OTHER, OTHER, OTHER, OTHER)].requests == 150
    assert sum(row.requests for row in found.rows.values()) == 200


def test_a_request_that_ends_during_an_allocation_counts_among_the_others(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the collection of garbage ends a coroutine."""
    worker = Counting(folder, Clock(1000.0))
    allocate = Storage.allocate

    def collecting(storage: Storage, kind: int, key: tuple[str, ...], cells: int) -> memoryview | None:
        monkeypatch.setattr(Storage, "allocate", allocate)
        worker.count(1, KEY._replace(mapping="inner"))
        worker.writer.add("shadow", "sent")
        return allocate(storage, kind, key, cells)

    monkeypatch.setattr(Storage, "allocate", collecting)
    worker.count(2)
    worker.count(4, KEY._replace(mapping="later"))
    found = read(folder, 1000.0)
    assert {key.mapping: row.requests for key, row in found.rows.items()} == {OTHER: 1, "gray": 2, "later": 4}


def test_histories_give_way_to_counts_where_there_are_many_workers(folder: int, tmp_path: Path) -> None:
    clock = Clock(1000.0)
    for number in range(12):
        worker = Counting(folder, clock)
        for release in range(40):
            worker.count(1, KEY._replace(release=f"r{release}"))
            worker.count(1, KEY._replace(release=f"r{release}", variant="stable"))
        clock.now += 5
        worker.ticks.tick()
        found = read(folder, clock.now)
        assert len(found.workers) == number + 1
        assert sum(row.requests for row in found.rows.values()) == 80 * (number + 1)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < layout.MAX_BYTES


def test_a_release_that_is_idle_for_long_gives_its_history_up(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary_mw.observability.figures.ticks.MAX_SERIES", 3)
    clock = Clock(1000.0)
    worker = Counting(folder, clock)
    for number in range(6):
        clock.now += 5
        worker.count(1, KEY._replace(release=f"r{number}"))
        worker.count(1, KEY._replace(release="busy"))
        worker.ticks.tick()
    found = read(folder, clock.now)
    assert window_of(found.histories[ALL], clock.now, 300).counts.requests == 12
    assert len(found.histories[SeriesKey("busy", "gray")].fine) == 7
    assert len(found.histories[SeriesKey("r5", "gray")].fine) > 0
    assert len(found.histories[SeriesKey("r1", "gray")].fine) == 0


def test_a_folder_that_is_wiped_gets_the_file_again(folder: int, tmp_path: Path) -> None:
    clock = Clock(1000.0)
    worker = Counting(folder, clock)
    worker.count(3)
    for path in tmp_path.iterdir():
        path.unlink()
    worker.count(4)
    assert requests(folder) == 0
    clock.now = 1005.0
    worker.ticks.tick()
    worker.count(1)
    assert requests(folder) == 8
    clock.now = 1010.0
    worker.ticks.tick()
    assert requests(folder) == 8


def test_a_folder_that_is_gone_leaves_private_figures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    descriptor = os.open(gone, os.O_RDONLY | os.O_DIRECTORY)
    gone.rmdir()
    worker = Counting(descriptor, Clock(1000.0))
    worker.count(3)
    worker.ticks.tick()
    assert worker.writer.storage is not None
    found = read_private(worker.writer.storage.content(), 1000.0)
    assert found.rows[KEY].requests == 3
    assert not found.shared
    assert len([r for r in caplog.records if "not added to those of the other workers" in r.message]) == 1
    os.close(descriptor)


def test_texts_of_rings_are_those_of_the_last(folder: int) -> None:
    worker = Counting(folder, Clock(1000.0))
    for number in range(60):
        worker.writer.text("reloads", b'[%d,7,1,"c",1,["a"],[],[],[1,0,0],["line"],""]' % number)
    worker.writer.text("reloads", b"x" * 5000)
    found = read(folder, 1000.0).reloads
    assert [record.time for record in found] == list(range(59, 9, -1))
    assert found[0].added == ("a",)
    worker.kill()
    assert read(folder, 1000.0).reloads == found
