"""Files that are written in place: what is taken of a half of them."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kubelet import Volume

from canary_mw.config.document import Document
from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.partial import LAST_LINE, SETTLED, PartialFiles
from canary_mw.control.sources.text_file import TextFile, read_text_file, unreadable


class Clock:
    """The clock of the module under test; it stands still until it is set forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules.yaml"


def loader(path: Path) -> tuple[PartialFiles, Callable[[], Document]]:
    """A state, and a function that loads a file with it."""
    files = PartialFiles()
    return files, lambda: files.check([read_text_file(str(path), str(path))])[0]


def severity(document: Document) -> str | None:
    return None if document.partial is None else document.partial.severity


@pytest.mark.parametrize(
    ("text", "expected"), [("a\n", None), ("a\r\n", None), ("a\r", None), ("a", "warning"), ("", "error")]
)
def test_a_text_without_a_line_feed_at_its_end_is_partial_from_the_first_load(
    path: Path, text: str, expected: str | None
) -> None:
    path.write_text(text, newline="")
    files, load = loader(path)

    assert severity(load()) == expected
    assert files.due == math.inf


def test_the_finding_says_what_to_do(path: Path) -> None:
    path.write_text("a")
    (document,) = FileSource(path).load()

    assert document.partial is not None
    assert document.partial.file == str(path)
    assert "does not end with a line feed" in document.partial.message
    assert "end its last line; write rules to another file and rename it" in str(document.partial.hint)


def test_the_keys_of_a_volume_and_annotations_files_are_never_partial(tmp_path: Path, clock: Clock) -> None:
    volume = Volume(tmp_path / "volume")
    volume.set({"rules.yaml": "a", "team/more.yaml": "", "annotations": 'a="1"'})
    (tmp_path / "copied").write_text('a="1"\nb="2"')
    (tmp_path / "linked.yaml").symlink_to(volume.root / "rules.yaml")
    paths = [volume.root, volume.root / "rules.yaml", volume.root / "team" / "more.yaml"]
    source = FileSource(*paths, tmp_path / "copied", tmp_path / "linked.yaml")

    assert [severity(document) for document in source.load()] == [None] * 7
    volume.update({"rules.yaml": "b"})
    (tmp_path / "copied").write_text('a="1"')
    documents = source.load()
    assert [severity(document) for document in documents] == [None] * 7
    assert [document.text for document in documents if "rules" in document.name or "link" in document.name] == ["b"] * 3


def test_a_file_beside_the_keys_of_a_volume_may_be_partial(tmp_path: Path) -> None:
    Volume(tmp_path).set({"rules.yaml": "a"})
    (tmp_path / "more.yaml").write_text("a")

    assert [severity(document) for document in FileSource(tmp_path).load()] == ["warning", None]


def test_a_text_written_in_place_is_taken_at_once_and_partial_until_it_settles(path: Path, clock: Clock) -> None:
    path.write_text("a\n")
    files, load = loader(path)
    assert (load(), files.due) == (Document("a\n", str(path)), math.inf)

    path.write_text("b\n")
    document = load()
    assert (document.text, severity(document), files.due) == ("b\n", "notice", clock.now + SETTLED)
    clock.now += SETTLED - 0.01
    assert load() is document
    clock.now += 0.01
    settled = load()
    assert (settled, files.due) == (Document("b\n", str(path)), math.inf)
    assert load() is settled


def test_each_write_begins_the_wait_anew(path: Path, clock: Clock) -> None:
    path.write_text("a\n")
    files, load = loader(path)
    load()
    for text in ("b\n", "b\nc\n", "b\nc\nd\n"):
        clock.now += SETTLED - 0.01
        path.write_text(text)
        assert (load().text, files.due) == (text, clock.now + SETTLED)


def test_a_file_that_is_renamed_over_it_is_complete_at_once(path: Path, clock: Clock) -> None:
    path.write_text("a\n")
    files, load = loader(path)
    load()
    path.with_suffix(".tmp").write_text("b\n")
    os.replace(path.with_suffix(".tmp"), path)

    assert (load(), files.due) == (Document("b\n", str(path)), math.inf)


def test_a_file_that_was_renamed_may_be_written_in_place_later(path: Path, clock: Clock) -> None:
    path.write_text("a\n")
    _, load = loader(path)
    load()
    path.with_suffix(".tmp").write_text("a\n")
    os.replace(path.with_suffix(".tmp"), path)
    load()
    path.write_text("b\n")
    assert severity(load()) == "notice"


def test_an_incomplete_last_line_is_waited_for_and_then_taken(path: Path, clock: Clock) -> None:
    path.write_text("a\n")
    files, load = loader(path)
    before = load()

    path.write_text("b\nweight: 1")
    assert load() is before
    assert files.due == clock.now + LAST_LINE
    clock.now += LAST_LINE
    document = load()
    assert (document.text, severity(document), files.due) == ("b\nweight: 1", "warning", math.inf)
    path.write_text("b\nweight: 10\n")
    document = load()
    assert (document.text, severity(document)) == ("b\nweight: 10\n", "notice")


@pytest.mark.parametrize("pause", [0.0, LAST_LINE])
def test_truncating_before_writing_shows_no_empty_file_as_complete(path: Path, clock: Clock, pause: float) -> None:
    path.write_text("a\n")
    _, load = loader(path)
    before = load()
    with open(path, "w") as file:
        clock.now += pause
        document = load()
        assert document is before
        clock.now += pause
        document = load()
        assert (document is before) == (not pause)
        assert severity(document) == ("error" if pause else None)
        file.write("b\n")
    assert load().text == "b\n"


def test_what_is_known_of_a_file_outlives_an_error(path: Path, clock: Clock) -> None:
    path.write_text("a\n")
    files, load = loader(path)
    load()
    path.write_bytes(b"\xc3")
    assert load().error is not None
    assert files.check([unreadable(str(path), str(path), PermissionError(13, "no"))])[0].error is not None
    path.write_text("b\n")
    assert severity(load()) == "notice"


def test_a_file_that_is_gone_is_forgotten(path: Path) -> None:
    files = PartialFiles()
    (first,) = files.check([TextFile("a", Document("a\n", "a"), 1)])
    files.check([])
    (second,) = files.check([TextFile("a", Document("b\n", "a"), 1)])
    assert (first.text, second) == ("a\n", Document("b\n", "a"))
