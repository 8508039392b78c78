"""Lines are written together and whole, and no request waits for who reads them."""

import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from canary_mw.forking import running_threads
from canary_mw.observability.logs import batches
from canary_mw.observability.logs.batches import BatchWriter


class Pipe(NamedTuple):
    read: int
    write: int


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = Pipe(*os.pipe())
    yield ends
    for end in ends:
        with suppress(OSError):  # a test has closed it
            os.close(end)


@pytest.fixture
def dropped() -> list[bool]:
    return []


@pytest.fixture
def writer(pipe: Pipe, dropped: list[bool]) -> Iterator[BatchWriter]:
    made = BatchWriter(pipe.write, lambda: dropped.append(True))
    yield made
    made.close()


def lines_of(pipe: Pipe, wanted: int) -> list[bytes]:
    """As many lines, as they come."""
    data = b""
    while data.count(b"\n") < wanted:
        assert select.select([pipe.read], [], [], 30)[0], data
        data += os.read(pipe.read, 65536)
    return data.splitlines()


def threads() -> list[str]:
    return [each.name for each in running_threads() if each.name == "canary-mw-access-log"]


def test_lines_come_in_their_order(writer: BatchWriter, pipe: Pipe) -> None:
    for number in range(5000):
        writer.add(f"line {number} " + "x" * 50)
    assert [line.split()[1] for line in lines_of(pipe, 5000)] == [b"%d" % number for number in range(5000)]


def test_a_line_that_comes_alone_is_written_too(writer: BatchWriter, pipe: Pipe) -> None:
    for number in range(3):
        writer.add(f"{number}")
        assert lines_of(pipe, 1) == [b"%d" % number]


def test_without_a_line_there_is_no_thread(writer: BatchWriter, pipe: Pipe) -> None:
    assert threads() == []
    writer.add("a")
    lines_of(pipe, 1)
    assert threads() == ["canary-mw-access-log"]
    writer.close()
    assert threads() == []


def test_the_end_writes_what_is_left(writer: BatchWriter, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "INTERVAL", 60.0)
    writer.add("the last one")
    writer.close()
    assert lines_of(pipe, 1) == [b"the last one"]
    # A later line starts a new thread.
    writer.add("one more")
    writer.close()
    assert lines_of(pipe, 1) == [b"one more"]


def test_many_bytes_do_not_wait(writer: BatchWriter, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "INTERVAL", 60.0)
    for _ in range(70):
        writer.add("x" * 1023)
    assert len(lines_of(pipe, 64)) >= 64


def test_lines_are_written_whole(writer: BatchWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(data: memoryview) -> int:
        written.append(bytes(data))
        return len(data)

    monkeypatch.setattr(writer, "_write_some", write)
    monkeypatch.setattr(batches, "INTERVAL", 60.0)
    for length in (10, 3000, 1200, 5000, 10):
        writer.add("x" * length)
    writer.close()
    # Together up to what a pipe takes whole; a line that is longer by itself.
    assert [len(each) for each in written] == [11 + 3001, 1201, 5001, 11]
    assert all(each.endswith(b"\n") for each in written)


def test_a_reader_who_does_not_read_costs_lines_and_no_memory(
    writer: BatchWriter, pipe: Pipe, dropped: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_BYTES", 200_000)
    for number in range(1000):
        writer.add(f"{number:01023d}")
    # 195 lines wait at most, and 65536 bytes are in the pipe.
    assert 1000 - 195 - 64 <= len(dropped) <= 1000 - 195
    numbers = [int(line) for line in lines_of(pipe, 1000 - len(dropped))]
    assert numbers == sorted(set(numbers))


def test_where_nothing_can_be_written_lines_are_dropped_and_it_is_said_once(
    writer: BatchWriter, pipe: Pipe, dropped: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    os.close(pipe.read)
    for _ in range(2):
        writer.add("a")
        writer.add("b")
        writer.close()
    assert len(dropped) == 4
    (record,) = [each for each in caplog.records if each.name == "canary_mw.access_log"]
    assert "the access log cannot be written" in record.getMessage()


def test_a_descriptor_that_does_not_block_is_waited_for(writer: BatchWriter, pipe: Pipe, dropped: list[bool]) -> None:
    os.set_blocking(pipe.write, False)
    for number in range(500):
        writer.add(f"{number:01023d}")
    assert [int(line) for line in lines_of(pipe, 500)] == list(range(500))
    assert dropped == []


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.slow
def test_a_forked_child_writes_its_own_lines_only(
    writer: BatchWriter, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "INTERVAL", 60.0)
    writer.add("of the parent")

    def work() -> None:
        writer.add("of the child")
        writer.close()

    assert in_child(work) == 0
    assert lines_of(pipe, 1) == [b"of the child"]
    writer.close()
    assert lines_of(pipe, 1) == [b"of the parent"]


def written_to(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The writes of some lines, with a long one among them."""
    parts: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        parts.append(bytes(data))
        return len(data)

    lines = ["x" * size for size in (3000, 1000, 1000, 9000, 10, 4095, 5)]
    made = BatchWriter(descriptor, lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        made._write(lines)
    made.close()
    assert b"".join(parts).decode().splitlines() == lines
    return parts


def test_writes_to_a_pipe_are_whole_lines_that_do_not_mix(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = written_to(pipe.write, monkeypatch)
    assert [len(part) for part in parts] == [4002, 1001, 9001, 11, 4096, 6]


def test_lines_for_a_file_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("wb") as file:
        assert len(written_to(file.fileno(), monkeypatch)) == 1
