"""Files of ids: read with the rules, followed like them, and compared whole or by hashes."""

import os
from pathlib import Path

import pytest
from rules import get

from canary_mw.control.id_files import IdFiles
from canary_mw.control.sources.file import FileSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import ConfigError
from canary_mw.routing.decision import decide
from canary_mw.rules import id_list
from canary_mw.rules.id_list import NO_IDS, IdList

MAPPINGS = """
apiVersion: getambassador.io/v3alpha1
kind: Mapping
name: svc
hostname: "*"
prefix: /svc/
service: svc
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
name: gray
hostname: "*"
prefix: /svc/
service: gray
weight: 0
---
"""
RELEASE = """
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
gray: {gray: {weight: 0, always: {ids: [inline], file: testers.txt}}}
sticky: [{header: x-user}]
fallback: {}
"""


def store(folder: Path) -> RuleStore:
    (folder / "rules.yaml").write_text(MAPPINGS + RELEASE, "utf-8")
    rules = RuleStore(FileSource(folder))
    rules.reload()
    return rules


def mapping_of(rules: RuleStore, user: str) -> str | None:
    decision = decide(rules.table, get("/svc/", {"x-user": user}), 50.0)
    return decision.mapping.name if decision else None


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    os.replace(new, path)


def test_a_file_is_read_with_the_rules_and_again_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "testers.txt").write_text("# who tests\n\n  anna  \r\nbob\n", "utf-8")
    rules = store(tmp_path)
    assert rules.error is None
    assert [mapping_of(rules, user) for user in ("inline", "anna", "bob", "carl", "# who tests")] == [
        "gray",
        "gray",
        "gray",
        "svc",
        "svc",
    ]
    generation = rules.generation
    rules.reload()
    assert rules.generation == generation
    replace(tmp_path / "testers.txt", "carl\n")
    rules.reload()
    assert [mapping_of(rules, user) for user in ("inline", "anna", "carl")] == ["gray", "svc", "gray"]


def test_a_file_that_is_gone_leaves_the_list_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "testers.txt").write_text("anna\n", "utf-8")
    rules = store(tmp_path)
    (tmp_path / "testers.txt").unlink()
    rules.reload()
    assert mapping_of(rules, "anna") == "gray"
    (found,) = [each for each in rules.diagnostics if each.severity == "error"]
    assert (found.code, found.line) == ("release-list", 21)
    replace(tmp_path / "testers.txt", "bob\n")
    rules.reload()
    assert rules.error is None
    assert [mapping_of(rules, user) for user in ("anna", "bob")] == ["svc", "gray"]


def test_a_file_that_was_never_there_sends_nobody_to_gray(tmp_path: Path) -> None:
    rules = store(tmp_path)
    assert rules.table.releases == {}
    assert mapping_of(rules, "inline") == "svc"


@pytest.mark.parametrize("kind", ["directory", "fifo", "long"])
def test_what_is_no_list_is_an_error(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "testers.txt"
    if kind == "directory":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        monkeypatch.setattr("canary_mw.control.id_files.MAX_IDS", 2)
        place.write_text("a\nb\nc\n", "utf-8")
    with pytest.raises(ConfigError):
        IdFiles().read(str(tmp_path / "rules.yaml"), "testers.txt", NO_IDS)


def test_a_long_list_keeps_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_list, "MAX_KEPT_IDS", 100)
    monkeypatch.setattr(id_list, "_CHUNK", 7)
    ids = [b"user-%d" % number for number in range(300)]
    found = IdList([*ids, *ids])
    assert len(found) == 300
    assert all(each in found for each in ids)
    assert not any(b"other-%d" % number in found for number in range(300))
    assert found == IdList(reversed(ids))
    assert found != IdList(ids[1:])
