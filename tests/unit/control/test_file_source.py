import errno
import logging
import os
import queue
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import watchfiles
from kubelet import Style, Volume

from canary_mw.config.document import EMPTY_DIRECTORY, UNREADABLE_FILE, Diagnostic, Document
from canary_mw.control.sources import directory, text_file
from canary_mw.control.sources import volume as volume_module
from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.sources.combined import CombinedSource
from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.static import StaticSource

# A limit for what must happen, not a measure of it; the timed re-check of these sources comes far later.
DEADLINE = 20.0
NEVER = 3600.0


def texts(source: ConfigSource) -> dict[str, str]:
    """What a load gives, by the last part of its name."""
    return {os.path.basename(document.name): document.text for document in source.load()}


@contextmanager
def watching(source: ConfigSource) -> Iterator["queue.Queue[None]"]:
    """A thread that follows the source; each yield is put into the queue."""
    stop = threading.Event()
    signals: queue.Queue[None] = queue.Queue()

    def follow() -> None:
        for signal in source.changes(stop):
            signals.put(signal)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield signals
    finally:
        stop.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def await_texts(source: ConfigSource, signals: "queue.Queue[None]", wanted: dict[str, str]) -> None:
    """Load at each signal, as the store does, until the wanted texts are there."""
    found: dict[str, str] = {}
    while found != wanted:
        signals.get(timeout=DEADLINE)
        found = texts(source)


# -- load


def test_a_file_is_one_document_under_the_name_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("a: 1\n")

    assert FileSource(tmp_path / "rules.yaml").load() == [Document("a: 1\n", str(tmp_path / "rules.yaml"))]


def test_a_directory_is_read_in_the_order_of_names_with_its_sub_directories(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", "annotations", "sub/deep/d.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    names = [os.path.relpath(document.name, tmp_path) for document in FileSource(tmp_path).load()]

    assert names == ["a.yaml", "annotations", "b.yml", "c.json", "sub/deep/d.yaml"]


def test_hidden_names_other_suffixes_and_linked_directories_are_left_out(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    for name in (
        "rules/a.yaml",
        "rules/.hidden.yaml",
        "rules/README.md",
        "rules/x.tpl",
        "rules/.git/b.yaml",
        "c/d.yaml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (rules / "linked").symlink_to(tmp_path / "c")

    assert texts(FileSource(rules)) == {"a.yaml": "rules/a.yaml"}


@pytest.mark.parametrize("style", ["modern", "legacy"])
def test_each_key_of_a_volume_is_read_once_and_named_as_mounted(tmp_path: Path, style: Style) -> None:
    Volume(tmp_path, style).set({"b.yaml": "b", "a.yaml": "a", "team/c.yaml": "c", ".hidden": "no", "notes.md": "no"})

    expected = [
        Document(text, f"{tmp_path}/{name}") for name, text in [("a.yaml", "a"), ("b.yaml", "b"), ("team/c.yaml", "c")]
    ]
    assert FileSource(tmp_path).load() == expected


def test_a_file_next_to_the_keys_of_a_volume_is_read_too(tmp_path: Path) -> None:
    Volume(tmp_path).set({"a.yaml": "a"})
    (tmp_path / "extra.yaml").write_text("extra")

    assert texts(FileSource(tmp_path)) == {"a.yaml": "a", "extra.yaml": "extra"}


def test_the_annotations_file_of_the_downward_api_is_read_as_it_is(tmp_path: Path) -> None:
    Volume(tmp_path).annotations({"getambassador.io/config": "---\nname: ä\u3000\n", "a": "1"})

    assert texts(FileSource(tmp_path)) == {"annotations": 'a="1"\ngetambassador.io/config="---\\nname: ä\\u3000\\n"'}


def test_one_key_of_a_volume_is_followed_through_its_links(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    volume.set({"rules.yaml": "one", "other.yaml": "no"})
    source = FileSource(tmp_path / "rules.yaml")
    assert texts(source) == {"rules.yaml": "one"}

    volume.update({"rules.yaml": "two"})

    assert texts(source) == {"rules.yaml": "two"}


def test_several_paths_are_read_in_their_order(tmp_path: Path) -> None:
    for name in ("a.yaml", "rules/b.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    assert list(texts(FileSource(tmp_path / "rules", tmp_path / "a.yaml"))) == ["b.yaml", "a.yaml"]


def swap_during_a_load(monkeypatch: pytest.MonkeyPatch, swap: Callable[[int], None]) -> list[int]:
    """Call `swap` with a running number after each file that is read; the list that is returned counts."""
    read, done = text_file.read_text_file, [0]

    def and_swap(path: str, name: str) -> text_file.TextFile:
        file = read(path, name)
        done[0] += 1
        swap(done[0])
        return file

    monkeypatch.setattr(directory, "read_text_file", and_swap)
    return done


@pytest.mark.parametrize("style", ["modern", "legacy"])
def test_keys_of_two_updates_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: Style) -> None:
    volume = Volume(tmp_path, style)
    volume.set({"a.yaml": "1", "b.yaml": "1"})
    done = swap_during_a_load(monkeypatch, lambda n: volume.set({"a.yaml": "2", "b.yaml": "2"}) if n == 1 else None)

    assert texts(FileSource(tmp_path)) == {"a.yaml": "2", "b.yaml": "2"}
    assert done[0] >= 3


def test_a_key_that_is_dropped_during_a_load_is_not_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume(tmp_path)
    volume.set({"a.yaml": "1", "b.yaml": "1"})
    swap_during_a_load(monkeypatch, lambda n: volume.set({"b.yaml": "2"}) if n == 1 else None)

    assert texts(FileSource(tmp_path)) == {"b.yaml": "2"}


def test_a_volume_that_changes_all_the_time_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume(tmp_path)
    volume.set({"a.yaml": "0"})
    swap_during_a_load(monkeypatch, lambda n: volume.set({"a.yaml": str(n)}))

    assert re.search("replaced too fast", error_of(FileSource(tmp_path)).message)


def error_of(source: ConfigSource) -> Diagnostic:
    """The one error of a load."""
    (error,) = [document.error for document in source.load() if document.error is not None]
    return error


def test_a_missing_path_is_an_error_with_the_path_and_a_hint(tmp_path: Path) -> None:
    error = error_of(FileSource(tmp_path / "none"))

    assert (error.file, error.message) == (str(tmp_path / "none"), "cannot be read: No such file or directory")
    assert error.hint


@pytest.mark.parametrize("names", [[], ["notes.md", ".hidden.yaml"]])
def test_a_directory_without_rule_files_is_empty(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "other.yaml").write_text("other\n")
    for name in names:
        (tmp_path / "rules" / name).write_text("x")

    empty, other = FileSource(tmp_path / "rules", tmp_path / "other.yaml").load()

    assert empty.error is not None
    assert (empty.name, empty.error.code) == (str(tmp_path / "rules"), EMPTY_DIRECTORY)
    assert other == Document("other\n", str(tmp_path / "other.yaml"))


def test_a_configmap_without_keys_is_empty(tmp_path: Path) -> None:
    Volume(tmp_path).set({})

    assert error_of(FileSource(tmp_path)).code == EMPTY_DIRECTORY


def latin_1(path: Path) -> None:
    path.write_bytes("a: 1\n# r\u00e8gles\n".encode("latin-1"))


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def cut_utf_16(path: Path) -> None:
    path.write_bytes("a: 1\nb: 2\n".encode("utf-16")[:-1])


def larger_than_allowed(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(text_file.MAX_BYTES + 1)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def dangling_link(path: Path) -> None:
    path.symlink_to("gone.yaml")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


# What is wrong with one file -> what is said about it, in which line, and what to do.
SPOILED = [
    pytest.param(latin_1, "is not UTF-8 at byte 8", 2, "save it as UTF-8", id="latin-1"),
    pytest.param(binary, "is not UTF-8 at byte 128", 2, "move it away", id="binary"),
    pytest.param(cut_utf_16, "is not UTF-16 at byte 20", 2, "save it as UTF-8", id="utf-16 cut"),
    pytest.param(larger_than_allowed, "is larger than 64 MiB", None, "split it", id="too large"),
    pytest.param(fifo, "is neither a file nor a directory", None, "regular file", id="fifo"),
    pytest.param(socket_file, "is neither a file nor a directory", None, "regular file", id="socket"),
    pytest.param(device, "is neither a file nor a directory", None, "regular file", id="device"),
    pytest.param(dangling_link, "cannot be read: No such file", None, "it leads to gone.yaml", id="dangling link"),
    pytest.param(link_to_itself, "cannot be read: Too many levels", None, "remove the link", id="link to itself"),
]


@pytest.mark.parametrize("where", ["in a directory", "by its path"])
@pytest.mark.parametrize(("spoil", "message", "line", "hint"), SPOILED)
def test_a_file_that_cannot_be_read_is_in_error_and_the_others_are_read(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, line: int | None, hint: str, where: str
) -> None:
    for name in ("a.yaml", "c.yaml"):
        (tmp_path / name).write_text(f"{name}: 1\n")
    spoil(tmp_path / "b.yaml")
    paths = [tmp_path] if where == "in a directory" else sorted(tmp_path.iterdir())

    a, b, c = FileSource(*paths).load()

    assert [a, c] == [Document(f"{name}: 1\n", str(tmp_path / name)) for name in ("a.yaml", "c.yaml")]
    assert b.error is not None
    assert (b.name, b.text, b.error.code, b.error.line) == (str(tmp_path / "b.yaml"), "", UNREADABLE_FILE, line)
    assert b.error.message.startswith(message)
    assert hint in str(b.error.hint)


@pytest.mark.parametrize(("number", "hint"), [(errno.EACCES, "fsGroup"), (errno.EIO, "see that its volume works")])
def test_a_file_that_the_system_does_not_let_us_read_is_in_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    # The superuser, who runs the tests in a container, may read everything.
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("a: 1\n")
    open_file = os.open

    def refused(path: str, flags: int) -> int:
        if os.path.basename(path) == "b.yaml":
            raise OSError(number, os.strerror(number), path)
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", refused)

    assert texts(FileSource(tmp_path)) == {"a.yaml": "a: 1\n", "b.yaml": ""}
    error = error_of(FileSource(tmp_path))
    assert (error.message, error.file) == (f"cannot be read: {os.strerror(number)}", str(tmp_path / "b.yaml"))
    assert hint in str(error.hint)


def forbid(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Let a directory look like one of another user."""
    scandir = os.scandir

    def forbidden(path: str) -> object:
        if os.fspath(path) == os.fspath(directory):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)


def test_a_sub_directory_that_cannot_be_read_is_in_error_and_the_others_are_read_and_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.yaml", "sub/b.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    forbid(monkeypatch, tmp_path / "sub")
    source = FileSource(tmp_path, recheck=NEVER)

    with watching(source) as signals:
        signals.get(timeout=DEADLINE)
        assert texts(source) == {"a.yaml": "a: 1\n", "sub": ""}
        assert error_of(source).file == str(tmp_path / "sub")
        (tmp_path / "a.yaml").write_text("a: 2\n")
        await_texts(source, signals, {"a.yaml": "a: 2\n", "sub": ""})

    assert not caplog.records


def test_a_directory_that_cannot_be_read_is_in_error_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, tmp_path)

    assert error_of(FileSource(tmp_path)).file == str(tmp_path)


def test_only_a_regular_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "a.yaml").write_text("a: 1\n")
    opened = []
    open_file = os.open

    def recorded(path: str, flags: int) -> int:
        opened.append(os.path.basename(path))
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", recorded)
    FileSource(tmp_path).load()

    assert opened == ["a.yaml"]


def test_a_fifo_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n")
    open_file = os.open

    def replaced(path: str, flags: int) -> int:
        os.unlink(path)
        os.mkfifo(path)
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", replaced)

    assert "neither a file" in error_of(FileSource(tmp_path)).message


def test_a_file_that_grows_while_it_is_read_is_not_read_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("a: 123\n")
    monkeypatch.setattr(text_file, "MAX_BYTES", 7)
    assert texts(FileSource(tmp_path)) == {"a.yaml": "a: 123\n"}
    measure = os.fstat

    def grows(descriptor: int) -> os.stat_result:
        status = measure(descriptor)
        with open(tmp_path / "a.yaml", "a") as file:
            file.write("b: 2\n")
        return status

    monkeypatch.setattr(os, "fstat", grows)

    assert "is larger than" in error_of(FileSource(tmp_path)).message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_text_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith("-be") else ""
    (tmp_path / "a.yaml").write_bytes(f"{mark}a: \u4e2d\U0001f600\r\n".encode(encoding))

    assert FileSource(tmp_path).load() == [Document("a: \u4e2d\U0001f600\r\n", str(tmp_path / "a.yaml"))]


def test_a_name_that_is_not_utf_8_can_be_logged(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/r\xe8gles.yaml", "w") as file:
        file.write("a: 1\n")

    assert texts(FileSource(tmp_path)) == {"r\\xe8gles.yaml": "a: 1\n"}


def test_a_deleted_file_causes_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # A subPath mount shows an inode that is deleted where it came from; so does /proc for an open file.
    with open(tmp_path / "rules.yaml", "w+") as file:
        file.write("old\n")
        file.flush()
        os.unlink(file.name)
        path = f"/proc/self/fd/{file.fileno()}"
        source = FileSource(path)
        assert source.load() == source.load() == [Document("old\n", path)]

    warning = f"{path} will never change: it is mounted alone (subPath); mount the whole volume as a directory"
    assert [record.getMessage() for record in caplog.records] == [warning]


def test_a_file_that_is_mounted_alone_is_told_before_its_volume_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    top = tmp_path / "a b"
    top.mkdir()
    for name in ("alone.yaml", "other.yaml"):
        (top / name).write_text("old\n")
    # As /proc/self/mountinfo has it where a file is mounted by subPath, and its directory is mounted too.
    escaped = str(top).replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    lines = [
        f"{number} 1 8:1 /volumes/x {place} ro - ext4 /dev/sda1 ro"
        for number, place in enumerate([escaped, f"{escaped}/alone.yaml", "/"], 20)
    ]
    mounts.write_text("\n".join([*lines, "broken", ""]))
    monkeypatch.setattr(volume_module, "_MOUNTS", str(mounts))
    source = FileSource(top)
    source.load()
    source.load()
    text = "is mounted alone (subPath): updates of its volume never arrive; mount the volume as a directory"
    assert [record.getMessage() for record in caplog.records] == [f"{top}/alone.yaml {text}"]
    assert source.volume_lines() == []
    file = FileSource(top / "alone.yaml")
    file.load()
    assert file.volume_lines() == [f"{top}/alone.yaml: mounted alone (subPath): never updated"]


def test_the_update_of_a_volume_and_its_age_are_told(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    volume.set({"rules.yaml": "a: 1\n"})
    update = os.readlink(tmp_path / "volume" / "..data")
    sources = CombinedSource([FileSource(tmp_path / "volume"), FileSource(tmp_path)])
    (line,) = sources.volume_lines()
    assert re.fullmatch(rf"{tmp_path}/volume: update {re.escape(update)} of the volume, \d+ s old", line)


def test_a_file_that_has_a_name_causes_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = Volume(tmp_path / "volume")
    volume.set({"rules.yaml": "1"})
    os.link(os.path.realpath(volume.root / "rules.yaml"), tmp_path / "kept.yaml")
    volume.set({"rules.yaml": "2"})

    FileSource(tmp_path / "kept.yaml", volume.root).load()

    assert not caplog.records


# -- changes


def test_a_static_source_never_changes_and_ends_at_stop() -> None:
    source = StaticSource("a: 1", "inline")

    with watching(source) as signals:
        assert source.load() == [Document("a: 1", "inline")]

    assert signals.empty()


def test_stop_before_the_first_look_ends_at_once(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()

    assert list(FileSource(tmp_path).changes(stop)) == []


def test_the_first_sign_comes_without_a_change(tmp_path: Path) -> None:
    with watching(FileSource(tmp_path, recheck=NEVER)) as signals:
        signals.get(timeout=DEADLINE)


def test_loading_is_no_sign_of_change_for_the_watch(tmp_path: Path) -> None:
    Volume(tmp_path).set({"a.yaml": "1"})
    source = FileSource(tmp_path, recheck=NEVER)
    stop = threading.Event()
    signals = source.changes(stop)
    next(signals)
    assert texts(source) == {"a.yaml": "1"}

    timer = threading.Timer(0.6, stop.set)
    timer.start()
    assert list(signals) == []
    timer.join()


def test_a_timed_recheck_comes_without_a_change(tmp_path: Path) -> None:
    with watching(FileSource(tmp_path, recheck=0.01)) as signals:
        for _ in range(3):
            signals.get(timeout=DEADLINE)


def write_in_place(top: Path) -> None:
    (top / "a.yaml").write_text("new")


def rename_over(top: Path) -> None:
    (top / "a.yaml.tmp").write_text("new")
    os.replace(top / "a.yaml.tmp", top / "a.yaml")


def delete_and_write(top: Path) -> None:
    (top / "a.yaml").unlink()
    write_in_place(top)


def make_the_directory_anew(top: Path) -> None:
    shutil.rmtree(top)
    top.mkdir()
    write_in_place(top)


def exchange_the_directory(top: Path) -> None:
    shutil.copytree(top, f"{top}.next")
    write_in_place(Path(f"{top}.next"))
    os.rename(top, f"{top}.old")
    os.rename(f"{top}.next", top)


EDITS = [write_in_place, rename_over, delete_and_write, make_the_directory_anew, exchange_the_directory]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("watched", ["directory", "file"])
def test_an_edit_is_seen(tmp_path: Path, edit: Callable[[Path], None], watched: str) -> None:
    top = tmp_path / "rules"
    top.mkdir()
    (top / "a.yaml").write_text("old")
    source = FileSource(top if watched == "directory" else top / "a.yaml", recheck=NEVER)

    with watching(source) as signals:
        signals.get(timeout=DEADLINE)
        edit(top)
        await_texts(source, signals, {"a.yaml": "new"})
        (top / "a.yaml").write_text("newest")
        await_texts(source, signals, {"a.yaml": "newest"})


@pytest.mark.parametrize("style", ["modern", "legacy"])
@pytest.mark.parametrize("watched", ["directory", "file", "linked file"])
def test_every_swap_of_a_volume_is_seen(tmp_path: Path, style: Style, watched: str) -> None:
    volume = Volume(tmp_path / "volume", style)
    volume.set({"a.yaml": "0"})
    (tmp_path / "a.yaml").symlink_to(volume.root / "a.yaml")
    path = {"directory": volume.root, "file": volume.root / "a.yaml", "linked file": tmp_path / "a.yaml"}[watched]
    source = FileSource(path, recheck=NEVER)

    with watching(source) as signals:
        signals.get(timeout=DEADLINE)
        for number in range(1, 6):
            volume.update({"a.yaml": str(number)})
            await_texts(source, signals, {"a.yaml": str(number)})


def test_the_target_of_a_linked_file_may_be_edited_elsewhere(tmp_path: Path) -> None:
    for name in ("rules", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere" / "real").write_text("old")
    (tmp_path / "rules" / "a.yaml").symlink_to("../elsewhere/real")
    source = FileSource(tmp_path / "rules", recheck=NEVER)

    with watching(source) as signals:
        signals.get(timeout=DEADLINE)
        (tmp_path / "elsewhere" / "real").write_text("new")
        await_texts(source, signals, {"a.yaml": "new"})


def test_the_target_of_a_linked_directory_may_change(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(name)
    (tmp_path / "current").symlink_to("one")
    source = FileSource(tmp_path / "current", recheck=NEVER)

    with watching(source) as signals:
        signals.get(timeout=DEADLINE)
        (tmp_path / "next").symlink_to("two")
        os.replace(tmp_path / "next", tmp_path / "current")
        await_texts(source, signals, {"a.yaml": "two"})
        (tmp_path / "two" / "a.yaml").write_text("three")
        await_texts(source, signals, {"a.yaml": "three"})


def test_a_sub_directory_is_watched_from_its_appearance(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    source = FileSource(tmp_path, recheck=NEVER)

    with watching(source) as signals:
        signals.get(timeout=DEADLINE)
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "b.yaml").write_text("b")
        await_texts(source, signals, {"a.yaml": "a", "b.yaml": "b"})
        (tmp_path / "sub" / "b.yaml").write_text("c")
        await_texts(source, signals, {"a.yaml": "a", "b.yaml": "c"})


@pytest.mark.parametrize("missing", ["rules", "above/rules"])
def test_a_directory_that_comes_late_is_seen(tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture) -> None:
    top = tmp_path / missing
    source = FileSource(top, recheck=NEVER)

    with watching(source) as signals:
        signals.get(timeout=DEADLINE)
        top.mkdir(parents=True)
        (top / "a.yaml").write_text("a")
        await_texts(source, signals, {"a.yaml": "a"})

    assert "cannot watch" not in caplog.text


def test_without_inotify_it_polls_and_logs_that_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("Too many open files (os error 24)")

    monkeypatch.setattr(watchfiles, "watch", exhausted)
    volume = Volume(tmp_path)
    volume.set({"a.yaml": "1"})
    source = FileSource(tmp_path, recheck=NEVER)

    with watching(source) as signals:
        signals.get(timeout=DEADLINE)
        volume.set({"a.yaml": "2"})
        await_texts(source, signals, {"a.yaml": "2"})

    said = [record.getMessage() for record in caplog.records if record.name == "canary_mw.sources"]
    assert said == [f"cannot watch {tmp_path}, looking every 0.5 s instead: Too many open files (os error 24)"]


def test_the_watch_library_logs_only_warnings_unless_the_application_set_its_level(tmp_path: Path) -> None:
    library = logging.getLogger("watchfiles.main")
    before = library.level
    try:
        for chosen, expected in ((logging.NOTSET, logging.WARNING), (logging.DEBUG, logging.DEBUG)):
            library.setLevel(chosen)
            with watching(FileSource(tmp_path, recheck=NEVER)) as signals:
                signals.get(timeout=DEADLINE)
            assert library.level == expected
    finally:
        library.setLevel(before)
