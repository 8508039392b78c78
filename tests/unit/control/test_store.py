import gc
import json
import logging
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import watchfiles
from kubelet import Style, Volume

import canary_mw
from canary_mw.config import parser
from canary_mw.config.document import Document
from canary_mw.config.variables import ENV_NAMES
from canary_mw.control import following as following_module
from canary_mw.control import store as store_module
from canary_mw.control.sources import partial
from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import SourceError
from canary_mw.observability.access_log import AccessLog
from canary_mw.observability.events import Decided, Finished, Reloaded
from canary_mw.observability.observers import Observer, notify

# A limit for what must happen, not a measure of it; the timed re-check of these sources comes far later.
DEADLINE = 20.0
NEVER = 3600.0


def rule(name: str = "shop", service: str = "shop-one", **more: object) -> str:
    """A document with one Mapping."""
    extra = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in more.items())
    return (
        "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\n"
        f"metadata:\n  name: {name}\nspec:\n  hostname: '*'\n  prefix: /{name}/\n  service: {service}\n{extra}"
    )


BROKEN = rule(service="shop-two").replace("  service: shop-two\n", "")
HALF_WRITTEN = rule(service="shop-two") + "---\napiVersion: getambassador.io/v3alpha1\nkind: {Mapp"


class Recorder(Observer):
    """Records every reload."""

    def __init__(self) -> None:
        self.records: queue.Queue[Reloaded] = queue.Queue()

    def reloaded(self, record: Reloaded) -> None:
        """Keep it."""
        self.records.put(record)

    def until(self, wanted: Callable[[Reloaded], bool]) -> Reloaded:
        """The first record that is wanted."""
        while True:
            record = self.records.get(timeout=DEADLINE)
            if wanted(record):
                return record


class ListSource:
    """Gives one entry for each load, the last one for ever; an exception is raised."""

    def __init__(self, *states: str | Exception | list[Document]) -> None:
        self.states = list(states)

    def load(self) -> list[Document]:
        """The next state."""
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return [Document(state, "rules")] if isinstance(state, str) else state

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """None."""
        stop.wait()
        yield from ()


@contextmanager
def following(path: Path, **options: Any) -> Iterator[tuple[RuleStore, Recorder]]:
    """A started store over a path, and what it reports."""
    recorder = Recorder()
    store = RuleStore(FileSource(path, recheck=NEVER), observers=[recorder], **options)
    store.start()
    try:
        yield store, recorder
    finally:
        store.stop()


def services(store: RuleStore) -> dict[str, str]:
    """Service by the name of the Mapping, in the table in force."""
    return {mapping.name: mapping.service.text for mapping in store.table.mappings}


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What the store logged at a level."""
    return [r.getMessage() for r in caplog.records if r.name == "canary_mw.store" and r.levelno == level]


# -- one reload after the other


def module(**config: object) -> str:
    """A document with the Module."""
    head = "---\napiVersion: getambassador.io/v3alpha1\nkind: Module\nmetadata: {name: ambassador}\n"
    return f"{head}spec: {json.dumps({'config': config})}\n"


def test_the_settings_of_a_module_are_in_force_and_their_change_alone_is_a_new_table() -> None:
    deny = {"ip_deny": [{"peer": "10.0.0.0/8"}]}
    store = RuleStore(ListSource(rule() + module(**deny), module(**deny) + rule(), rule() + module(merge_slashes=True)))
    assert store.reload()
    assert store.table.request_policy is not None
    assert store.table.request_policy.address_filter is not None
    # The Mapping has moved, and nothing else.
    assert store.reload()
    settings = store.table.settings
    assert store.reload()
    assert store.table.settings != settings
    assert store.table.request_policy is not None
    assert store.table.request_policy.merge_slashes
    assert store.generation == 3


def test_a_module_that_says_the_same_is_no_change() -> None:
    text = rule() + module(ip_allow=[{"peer": "10.0.0.0/8"}])
    store = RuleStore(ListSource(text, text + "# a comment\n"))
    assert store.reload()
    table = store.table
    assert not store.reload()
    assert store.table is table


def test_before_the_first_load_there_is_an_empty_table() -> None:
    store = RuleStore(StaticSource(rule()))

    assert (store.generation, store.error, store.diagnostics, store.table.mappings) == (0, None, (), ())


def test_a_reload_puts_the_rules_in_force() -> None:
    store = RuleStore(StaticSource(rule()), local=["shop-one"], middleware=True)

    assert store.reload() is True

    assert (store.generation, store.error) == (1, None)
    assert services(store) == {"shop": "shop-one"}
    assert store.table.middleware


def test_the_same_texts_change_nothing() -> None:
    store = RuleStore(StaticSource(rule()))
    store.reload()
    table = store.table

    assert store.reload() is False

    assert store.table is table
    assert store.generation == 1


def test_a_comment_changes_no_table() -> None:
    recorder = Recorder()
    store = RuleStore(ListSource(rule(), rule() + "# a comment\n"), observers=[recorder])
    store.reload()
    table = store.table

    assert store.reload() is False

    assert store.table is table
    assert recorder.records.qsize() == 1


def test_observers_are_notified_of_what_differs() -> None:
    recorder = Recorder()
    first = rule("gone") + rule("moved") + rule("kept")
    second = "# a line more\n" + rule("moved", "two") + rule("kept") + rule("new")
    store = RuleStore(ListSource(first, second), observers=[recorder])
    store.reload()
    store.reload()

    assert recorder.records.get_nowait().added == ("gone.default", "moved.default", "kept.default")
    record = recorder.records.get_nowait()
    assert (record.generation, record.error) == (2, None)
    assert (record.added, record.removed, record.changed) == (("new.default",), ("gone.default",), ("moved.default",))


def test_variables_come_from_the_environment_that_is_given() -> None:
    store = RuleStore(StaticSource(rule(service="${WHERE}")), environ={"WHERE": "shop-nine"})
    store.reload()

    assert services(store) == {"shop": "shop-nine"}


def test_only_listed_variables_of_the_process_are_put_in_by_default(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("WHERE", "SECRET"):
        monkeypatch.setenv(f"CANARY_TEST_{name}", f"shop-{name.lower()}")
    monkeypatch.delenv(ENV_NAMES, raising=False)
    headers = {"x-a": {"value": "$CANARY_TEST_WHERE"}, "x-b": {"value": "${CANARY_TEST_SECRET}"}}
    text = rule(add_request_headers=headers)
    store = RuleStore(ListSource(text, text + "# changed\n"))

    def values() -> list[object]:
        return [each.value for each in store.table.mappings[0].add_request_headers]

    store.reload()
    assert values() == [b"$CANARY_TEST_WHERE", b"${CANARY_TEST_SECRET}"]
    assert [each.code for each in store.diagnostics] == ["unknown-variable"] * 2
    assert store.error is None
    assert "rules:10: notice unknown-variable no value is known for $CANARY_TEST_WHERE" in caplog.text

    monkeypatch.setenv(ENV_NAMES, "CANARY_TEST_UNSET, CANARY_TEST_WHERE,")
    assert store.reload() is True
    assert values() == [b"shop-where", b"${CANARY_TEST_SECRET}"]
    assert [each.message for each in store.diagnostics] == [
        "no value is known for $CANARY_TEST_SECRET: it stays as it is"
    ]
    assert "shop-secret" not in caplog.text


def test_rules_for_another_ambassador_are_not_ours() -> None:
    text = rule("mine", ambassador_id=["green"]) + rule("theirs", ambassador_id=["blue"])
    store = RuleStore(StaticSource(text), ambassador_id="green")
    store.reload()

    assert list(services(store)) == ["mine"]


def test_a_bad_mapping_keeps_its_last_good_version_while_its_neighbour_goes_live() -> None:
    bad = BROKEN + rule("cart", "cart-two")
    store = RuleStore(ListSource(rule() + rule("cart", "cart-one"), bad))
    store.reload()

    assert store.reload() is True

    assert services(store) == {"shop": "shop-one", "cart": "cart-two"}
    assert str(store.error) == "rules:2: Mapping shop: service is missing"
    assert [d.severity for d in store.diagnostics] == ["error"]


NAMELESS = rule("cart", "cart-two").replace("  name: cart\n", "  labels: {}\n")


@pytest.mark.parametrize("kind", ["kind: Mapping", "kind: Maping"])
def test_a_mapping_whose_name_is_lost_stays_as_it_was_while_its_neighbour_goes_live(kind: str) -> None:
    lost = rule(service="shop-two") + NAMELESS.replace("kind: Mapping", kind)
    store = RuleStore(ListSource(rule() + rule("cart", "cart-one"), lost, rule(service="shop-two")))
    store.reload()

    assert store.reload() is True
    assert services(store) == {"shop": "shop-two", "cart": "cart-one"}
    assert "is left out" in str(store.error)

    assert store.reload() is True
    assert (services(store), str(store.error)) == ({"shop": "shop-two"}, "None")


def test_only_the_file_that_holds_a_nameless_mapping_loses_nothing() -> None:
    before = [Document(rule() + rule("cart"), "one"), Document(rule("pay") + rule("ship"), "two")]
    after = [Document(rule() + NAMELESS, "one"), Document(rule("pay"), "two")]
    store = RuleStore(ListSource(before, after))
    store.reload()

    assert store.reload() is True
    assert list(services(store)) == ["shop", "cart", "pay"]


def test_a_nameless_mapping_for_another_ambassador_takes_no_part() -> None:
    theirs = NAMELESS + "  ambassador_id: [blue]\n"
    store = RuleStore(ListSource(rule() + rule("cart") + theirs, rule() + theirs))
    store.reload()

    assert store.reload() is True
    assert list(services(store)) == ["shop"]


def test_the_error_says_how_many_more_there_are() -> None:
    store = RuleStore(StaticSource(BROKEN + BROKEN.replace("shop", "cart") + rule("good")))
    store.reload()

    assert "and 1 more" in str(store.error)
    assert list(services(store)) == ["good"]


def test_an_error_that_only_the_whole_table_shows_is_an_error() -> None:
    heavy = rule("a", weight=70) + rule("b", weight=70).replace("/b/", "/a/")
    store = RuleStore(StaticSource(heavy))
    store.reload()

    assert "more than 100" in str(store.error)
    assert store.generation == 1


def test_nothing_good_from_the_start_is_generation_0_until_there_is() -> None:
    store = RuleStore(ListSource(SourceError("gone"), BROKEN, BROKEN, rule()))

    assert [store.reload() for _ in range(3)] == [False, False, False]
    assert (store.generation, store.table.mappings) == (0, ())
    assert "service is missing" in str(store.error)

    assert store.reload() is True
    assert (store.generation, str(store.error)) == (1, "None")


def test_rules_that_are_empty_from_the_start_are_in_force() -> None:
    store = RuleStore(StaticSource("# no rules yet\n"))

    assert store.reload() is True
    assert (store.generation, store.error) == (1, None)


def test_a_source_error_is_cleared_by_the_same_texts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    recorder = Recorder()
    store = RuleStore(ListSource(rule(), SourceError("gone", file="x"), rule()), observers=[recorder])
    store.reload()

    assert store.reload() is False
    assert str(store.error) == "x: gone"
    assert services(store) == {"shop": "shop-one"}
    assert store.reload() is False
    assert store.error is None

    assert [(r.generation, str(r.error)) for r in recorder.records.queue] == [(1, "None"), (1, "x: gone"), (1, "None")]
    assert messages(caplog, logging.INFO)[-1] == "rules are clean again: rules 1 are in force"


def test_an_emptied_source_is_refused_and_named() -> None:
    emptied = [Document("", f"{n}.yaml") for n in range(5)]
    store = RuleStore(ListSource(rule(), emptied, rule(service="two")))
    store.reload()

    assert store.reload() is False
    assert services(store) == {"shop": "shop-one"}
    assert "no Mapping is left in 0.yaml, 1.yaml, 2.yaml and 2 more" in str(store.error)

    assert store.reload() is True
    assert (services(store), store.error) == ({"shop": "two"}, None)


def test_an_emptied_source_empties_the_table_where_that_is_allowed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.yaml").write_text(rule(name))
    store = RuleStore(FileSource(tmp_path / "one", tmp_path / "two"), allow_empty=True)
    store.reload()

    (tmp_path / "one" / "one.yaml").unlink()
    assert store.reload() is True
    assert list(services(store)) == ["two"]
    write_over(tmp_path / "two" / "two.yaml", "# none\n")
    assert store.reload() is True
    assert (services(store), store.error, store.generation) == ({}, None, 3)


def test_a_missing_source_is_an_error_even_where_an_empty_one_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rule())
    store = RuleStore(FileSource(tmp_path / "rules.yaml"), allow_empty=True)
    store.reload()
    (tmp_path / "rules.yaml").unlink()

    assert store.reload() is False
    assert isinstance(store.error, SourceError)
    assert services(store) == {"shop": "shop-one"}


def test_each_finding_is_logged_once_while_it_stays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    states = [rule() + BROKEN.replace("shop", "cart") + rule("odd", surprise=1)]
    states += [states[0] + "# changed\n", states[0], rule(), states[0]]
    store = RuleStore(ListSource(*states))

    for _ in range(3):
        store.reload()
    assert len(messages(caplog, logging.ERROR)) == 1
    assert len(messages(caplog, logging.WARNING)) == 1
    assert "rules 1 are in force: 2 added, 0 removed, 0 changed" in messages(caplog, logging.INFO)

    store.reload()
    store.reload()
    assert len(messages(caplog, logging.ERROR)) == 2


def test_many_notices_are_a_few_lines_and_a_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = RuleStore(
        ListSource(
            "".join(
                rule(f"shop-{number}", rewrite="/a/", regex_rewrite={"pattern": "/b", "substitution": "/c"})
                for number in range(50)
            )
        )
    )
    store.reload()
    notices = [each for each in store.diagnostics if each.severity == "notice"]
    assert len(notices) == 50
    lines = messages(caplog, logging.INFO)
    assert sum(": notice " in line for line in lines) == 10
    assert "and 40 more notices, which `canary-mw check` lists" in lines


def test_a_source_error_is_logged_once_while_it_stays(caplog: pytest.LogCaptureFixture) -> None:
    store = RuleStore(ListSource(SourceError("gone"), SourceError("gone"), SourceError("still gone")))
    for _ in range(3):
        store.reload()

    assert messages(caplog, logging.ERROR) == [
        "no rules are in force, and every request is answered with 404, until this is mended: gone",
        "no rules are in force, and every request is answered with 404, until this is mended: still gone",
    ]


def test_a_failure_of_our_own_keeps_the_last_good_rules(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = RuleStore(ListSource(rule(), rule(service="two")))
    store.reload()

    def fail(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError("oh")

    with monkeypatch.context() as patch:
        patch.setattr(parser, "parse", fail)
        assert [store.reload(), store.reload()] == [False, False]

    assert "ZeroDivisionError: oh" in str(store.error)
    assert services(store) == {"shop": "shop-one"}
    assert sum(record.exc_info is not None for record in caplog.records) == 1

    assert store.reload() is True
    assert (services(store), store.error) == ({"shop": "two"}, None)


# -- following a source


@pytest.mark.slow
@pytest.mark.parametrize("style", ["modern", "legacy"])
def test_every_one_of_100_swaps_becomes_the_table(tmp_path: Path, style: Style) -> None:
    volume = Volume(tmp_path, style)
    volume.set({"rules.yaml": rule(service="shop-0")})

    with following(tmp_path) as (store, _):
        assert services(store) == {"shop": "shop-0"}
        for number in range(1, 101):
            volume.set({"rules.yaml": rule(service=f"shop-{number}")})
            assert store.wait(number + 1, DEADLINE)
            assert services(store) == {"shop": f"shop-{number}"}

    assert store.generation == 101


@pytest.mark.parametrize("style", ["modern", "legacy"])
def test_keys_may_come_and_go(tmp_path: Path, style: Style) -> None:
    volume = Volume(tmp_path, style)
    volume.set({"a.yaml": rule("a")})

    with following(tmp_path) as (store, recorder):
        volume.update({"b.yaml": rule("b")})
        assert recorder.until(lambda record: record.generation == 2).added == ("b.default",)
        volume.delete("a.yaml")
        assert recorder.until(lambda record: record.generation == 3).removed == ("a.default",)
        assert list(services(store)) == ["b"]


def test_a_change_between_the_first_load_and_the_watch_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules.yaml").write_text(rule())
    watch = watchfiles.watch

    def change_then_watch(*args: Any, **options: Any) -> Any:
        (tmp_path / "rules.yaml").write_text(rule(service="shop-late"))
        return watch(*args, **options)

    monkeypatch.setattr(watchfiles, "watch", change_then_watch)

    with following(tmp_path) as (store, _):
        assert store.wait(2, DEADLINE)
        assert services(store) == {"shop": "shop-late"}


def empty_the_directory(top: Path) -> None:
    (top / "rules.yaml").unlink()


def remove_the_directory(top: Path) -> None:
    shutil.rmtree(top)


def write(text: str) -> Callable[[Path], None]:
    def edit(top: Path) -> None:
        (top / "rules.yaml").write_text(text)

    return edit


def rename_over(text: str) -> Callable[[Path], None]:
    def edit(top: Path) -> None:
        write_over(top / "rules.yaml", text)

    return edit


def write_over(path: Path, text: str) -> None:
    """Write another file, and rename it."""
    path.with_suffix(".tmp").write_text(text)
    os.replace(path.with_suffix(".tmp"), path)


FAILURES = [
    pytest.param(write(BROKEN), r"rules\.yaml:\d+: Mapping shop: ", id="broken"),
    pytest.param(rename_over(BROKEN), r"rules\.yaml:\d+: Mapping shop: ", id="broken by rename"),
    pytest.param(write(HALF_WRITTEN[HALF_WRITTEN.index("kind: {") :]), r"rules\.yaml:\d+: ", id="half written"),
    pytest.param(write(""), r"rules\.yaml: .*the file is empty", id="emptied"),
    pytest.param(rename_over("# none\n"), "no Mapping is left", id="emptied by rename"),
    pytest.param(write("\x00\x01"), r"rules\.yaml", id="binary"),
    pytest.param(empty_the_directory, "is empty", id="directory emptied"),
    pytest.param(remove_the_directory, "cannot be read", id="directory removed"),
]


@pytest.mark.parametrize("repair", [write, rename_over])
@pytest.mark.parametrize(("spoil", "wanted"), FAILURES)
def test_the_last_good_rules_stay_until_good_ones_come(
    tmp_path: Path, spoil: Callable[[Path], None], wanted: str, repair: Callable[[str], Callable[[Path], None]]
) -> None:
    top = tmp_path / "rules"
    top.mkdir()
    write(rule())(top)

    with following(top) as (store, recorder):
        good = store.table
        spoil(top)
        error = recorder.until(lambda record: record.error is not None).error
        assert re.search(wanted, str(error))
        assert (store.table is good, store.generation) == (True, 1)

        top.mkdir(exist_ok=True)
        repair(rule(service="shop-two"))(top)
        assert store.wait(2, DEADLINE)
        assert recorder.until(lambda record: record.generation == 2).error is None
        assert services(store) == {"shop": "shop-two"}


def remove(path: Path) -> None:
    path.unlink()


def latin_1(path: Path) -> None:
    path.write_bytes("# r\u00e8gles\n".encode("latin-1") + rule("cart", "cart-two").encode())


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone.yaml")


@pytest.mark.parametrize("spoil", [latin_1, fifo, dangling_link])
def test_a_file_that_cannot_be_read_stays_as_it_was_and_holds_back_no_other(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    (tmp_path / "a.yaml").write_text(rule())
    (tmp_path / "b.yaml").write_text(rule("cart") + rule("pay"))

    with following(tmp_path) as (store, recorder):
        spoil(tmp_path / "b.yaml")
        assert "b.yaml" in str(recorder.until(lambda record: record.error is not None).error)
        (tmp_path / "a.yaml").write_text(rule(service="shop-two"))
        assert store.wait(2, DEADLINE)
        assert services(store) == {"shop": "shop-two", "cart": "shop-one", "pay": "shop-one"}
        assert isinstance(store.error, SourceError)

        write_over(tmp_path / "b.yaml", rule("cart", "cart-two"))
        recorder.until(lambda record: record.error is None and record.generation == 3)
        assert services(store) == {"shop": "shop-two", "cart": "cart-two"}


@pytest.mark.parametrize("spoil", [remove, empty_the_directory, remove_the_directory, latin_1, fifo, dangling_link])
def test_a_path_that_cannot_be_read_stays_as_it_was_and_holds_back_no_other(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    for name in ("one", "two", "two/sub"):
        (tmp_path / name).mkdir()
        write(rule(name.replace("/", "-")))(tmp_path / name)
    whole = spoil in (empty_the_directory, remove_the_directory)
    paths = ["two" if whole else "two/rules.yaml", "two/sub" if whole else "two/sub/rules.yaml", "one"]
    source = FileSource(*(tmp_path / each for each in paths))
    store = RuleStore(source)
    store.reload()
    assert list(services(store)) == (["two", "two-sub", "one"])

    if spoil is empty_the_directory:
        shutil.rmtree(tmp_path / "two" / "sub")
    spoil(tmp_path / "two" if whole else tmp_path / "two" / "rules.yaml")
    write(rule("one", "one-two"))(tmp_path / "one")
    assert store.reload() is True
    assert services(store) == {"two": "shop-one", "two-sub": "shop-one", "one": "one-two"}
    assert isinstance(store.error, SourceError)


def test_what_cannot_be_read_at_the_first_load_is_named_beside_the_rules_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "a")
    (tmp_path / "b.yaml").write_text(rule())
    (tmp_path / "c.yaml").write_bytes(b"\xff\n")
    store = RuleStore(FileSource(tmp_path))

    assert store.reload() is True
    assert services(store) == {"shop": "shop-one"}
    first, second = messages(caplog, logging.ERROR)
    assert first.startswith(f"{tmp_path}/a: error unreadable-file is neither a file nor a directory (")
    assert second.startswith(f"{tmp_path}/c.yaml:1: error unreadable-file is not UTF-8 at byte 0 (save it as UTF-8")


def test_what_is_whole_in_a_half_written_file_goes_live_and_nothing_of_it_is_removed(tmp_path: Path) -> None:
    write(rule() + rule("cart"))(tmp_path)

    with following(tmp_path) as (store, recorder):
        write(HALF_WRITTEN)(tmp_path)
        assert recorder.until(lambda record: record.generation == 2).error
        assert services(store) == {"shop": "shop-two", "cart": "shop-one"}


WHOLE = "".join(rule(name) for name in ("shop", "cart", "pay"))
CHANGED = WHOLE.replace("shop-one", "shop-two", 1)


def until_services(store: RuleStore, wanted: dict[str, str]) -> None:
    """Wait for tables until one has these Mappings."""
    while services(store) != wanted:
        assert store.wait(store.generation + 1, DEADLINE)


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(CHANGED[:-30], id="inside the last document"),
        pytest.param(CHANGED[: CHANGED.rindex("  service")], id="at a line end inside the last document"),
        pytest.param(CHANGED[: CHANGED.rindex("---") - 20], id="inside a document"),
        pytest.param(CHANGED[: CHANGED.rindex("---")], id="at a line end between two documents"),
        pytest.param(CHANGED[: CHANGED.rindex("---") + 4], id="behind a separator"),
        pytest.param(CHANGED[: CHANGED.index("shop-two") + 8], id="behind a complete last value"),
    ],
)
def test_a_file_that_is_written_in_two_steps_loses_nothing_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    monkeypatch.setattr(partial, "SETTLED", NEVER)
    complete = {"shop": "shop-two", "cart": "shop-one", "pay": "shop-one"}
    (tmp_path / "rules.yaml").write_text(WHOLE)

    with following(tmp_path) as (store, recorder):
        with open(tmp_path / "rules.yaml", "w") as file:
            file.write(cut)
            file.flush()
            until_services(store, complete)
            file.write(CHANGED[len(cut) :])
            file.write(rule("new"))
        until_services(store, complete | {"new": "shop-one"})
        assert not any(record.removed for record in recorder.records.queue)


def rewrite(path: Path, text: str) -> None:
    """Write over the bytes of a file and shorten it then, as `rsync --inplace` does."""
    with open(path, "r+") as file:
        file.write(text)
        file.flush()
        file.truncate()


@pytest.mark.parametrize("edit", [Path.write_text, rewrite, write_over])
def test_what_is_taken_out_of_a_file_is_removed_when_it_settles(
    tmp_path: Path, edit: Callable[[Path, str], object]
) -> None:
    (tmp_path / "rules.yaml").write_text(WHOLE)

    with following(tmp_path) as (store, _):
        edit(tmp_path / "rules.yaml", rule() + rule("pay"))
        until_services(store, {"shop": "shop-one", "pay": "shop-one"})
        assert store.diagnostics == ()


def test_a_file_that_lacks_its_last_line_feed_is_followed_but_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rules.yaml").write_text(WHOLE)

    with following(tmp_path) as (store, _):
        (tmp_path / "rules.yaml").write_text((rule(service="shop-two") + rule("new")).rstrip("\n"))
        until_services(store, {"shop": "shop-two", "cart": "shop-one", "pay": "shop-one", "new": "shop-one"})
        (warning,) = messages(caplog, logging.WARNING)
        assert "no longer in the file, but still in force: cart, pay; the file does not end with a line feed" in warning
        assert "(end its last line" in warning
        assert store.error is None

        with open(tmp_path / "rules.yaml", "a") as file:
            file.write("\n")
        until_services(store, {"shop": "shop-two", "new": "shop-one"})
        assert store.diagnostics == ()


def test_an_emptied_file_beside_others_loses_nothing_until_it_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(rule())
    (tmp_path / "b.yaml").write_text(rule("cart"))

    with following(tmp_path) as (store, recorder):
        (tmp_path / "b.yaml").write_text("")
        error = recorder.until(lambda record: record.error is not None).error
        assert "still in force: cart; the file is empty" in str(error)
        assert services(store) == {"shop": "shop-one", "cart": "shop-one"}
        (tmp_path / "b.yaml").unlink()
        until_services(store, {"shop": "shop-one"})
        assert recorder.until(lambda record: record.generation == 2).error is None


def test_a_file_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write(rule())(tmp_path / "real")
    (tmp_path / "link.yaml").symlink_to("real/rules.yaml")

    with following(tmp_path / "link.yaml") as (store, _):
        rename_over(rule(service="shop-two"))(tmp_path / "real")
        assert store.wait(2, DEADLINE)
        assert services(store) == {"shop": "shop-two"}


def test_without_inotify_the_rules_are_still_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("Too many open files (os error 24)")

    monkeypatch.setattr(watchfiles, "watch", exhausted)
    volume = Volume(tmp_path)
    volume.set({"rules.yaml": rule()})

    with following(tmp_path) as (store, _):
        for number in (2, 3):
            volume.set({"rules.yaml": rule(service=f"shop-{number}")})
            assert store.wait(number, DEADLINE)


def test_a_volume_that_comes_late_is_taken(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "rules")

    with following(volume.root) as (store, _):
        assert (store.generation, isinstance(store.error, SourceError)) == (0, True)
        volume.set({"rules.yaml": rule()})
        assert store.wait(1, DEADLINE)
        assert store.error is None


# -- the thread


def watchers() -> list[threading.Thread]:
    """The threads of all stores."""
    return [thread for thread in threading.enumerate() if thread.name == "canary-mw-rules"]


def test_start_begins_one_thread_and_stop_ends_it(tmp_path: Path) -> None:
    write(rule())(tmp_path)
    store = RuleStore(FileSource(tmp_path, recheck=NEVER))
    starts = [threading.Thread(target=store.start) for _ in range(5)]
    for each in starts:
        each.start()
    for each in starts:
        each.join()
    store.start()

    assert (len(watchers()), store.generation) == (1, 1)
    assert watchers()[0].daemon

    store.stop()
    assert watchers() == []
    store.stop()


def test_a_stopped_store_can_be_started_again(tmp_path: Path) -> None:
    write(rule())(tmp_path)
    store = RuleStore(FileSource(tmp_path, recheck=NEVER))
    store.start()
    store.stop()
    write(rule(service="shop-two"))(tmp_path)
    store.start()

    assert store.wait(2, DEADLINE)
    store.stop()


def test_an_observer_may_stop_the_store(tmp_path: Path) -> None:
    class Stopper(Observer):
        def reloaded(self, record: Reloaded) -> None:
            if record.generation == 2:
                store.stop()

    write(rule())(tmp_path)
    store = RuleStore(FileSource(tmp_path, recheck=NEVER), observers=[Stopper()])
    store.start()
    (thread,) = watchers()
    write(rule(service="shop-two"))(tmp_path)
    thread.join(DEADLINE)

    assert not thread.is_alive()


def test_waiting_for_what_does_not_come_ends_at_its_timeout() -> None:
    assert RuleStore(StaticSource(rule())).wait(1, 0.01) is False


def test_a_source_that_fails_to_follow_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Shaky(ListSource):
        attempts = 0

        def changes(self, stop: threading.Event) -> Iterator[None]:
            self.attempts += 1
            if self.attempts == 1:
                raise ZeroDivisionError("oh")
            yield

    monkeypatch.setattr(following_module, "_RETRY_DELAY", 0.01)
    store = RuleStore(Shaky(rule(), rule(service="shop-two")))
    store.start()

    assert store.wait(2, DEADLINE)
    store.stop()
    assert messages(caplog, logging.ERROR) == ["following the rules failed; trying again"]


def test_a_store_that_is_not_used_any_more_can_be_collected() -> None:
    store = RuleStore(StaticSource(rule()))
    store.start()
    store.stop()
    number = len(store_module._stores)
    del store
    gc.collect()

    assert len(store_module._stores) < number


def run(script: str, top: Path) -> "subprocess.CompletedProcess[str]":
    """A process of its own with a store over `top`; `edit(service)` writes its rules."""
    prelude = f"""
import os, sys, threading, warnings
from pathlib import Path
from canary_mw.control.sources.file import FileSource
from canary_mw.control.store import RuleStore
top = Path({str(top)!r})
def edit(service):
    # At once: of a file that is still being written the store rightly complains, on stderr.
    (top / ".new").write_text({rule()!r}.replace("shop-one", service))
    (top / ".new").rename(top / "rules.yaml")
edit("shop-one")
store = RuleStore(FileSource(top, recheck=3600.0))
"""
    return subprocess.run(
        [sys.executable, "-c", prelude + script],
        cwd=Path(canary_mw.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_forked_child_follows_the_rules_by_itself(tmp_path: Path) -> None:
    done = run(
        """
store.start()
held = threading.Event()
def hold():
    with store._starting, store._reloading:
        held.set()
        release.wait()
release = threading.Event()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
# Since 3.12 Python warns of each fork of a process that has threads. The store is made for it.
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    store.start()
    edit("shop-two")
    os._exit(0 if store.wait(2, 20) and store.table.mappings[0].service.text == "shop-two" else 1)
release.set()
holder.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), store.wait(2, 20))
""",
        tmp_path,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("0 True\n", "", 0)


def test_a_process_that_forgets_to_stop_ends_cleanly(tmp_path: Path) -> None:
    done = run("store.start(); edit('shop-two'); print(store.wait(2, 20))", tmp_path)

    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


# -- observers


FINISHED = Finished(
    method="GET", path="/\n", status=200, seconds=0.12345678, mapping="shop", service="a", variant="gray"
)


class Faulty(Observer):
    def decided(self, record: Decided) -> None:
        raise ZeroDivisionError("oh")


def test_an_observer_that_fails_is_logged_once_and_the_others_are_notified(caplog: pytest.LogCaptureFixture) -> None:
    received: list[Decided] = []

    class Receiving(Observer):
        def decided(self, record: Decided) -> None:
            received.append(record)

    record = Decided(method="GET", path="/")
    observers = [Faulty(), Receiving()]
    for _ in range(3):
        notify(observers, record)
    notify([Faulty()], record)

    assert received == [record] * 3
    assert [each.levelname for each in caplog.records] == ["ERROR", "ERROR"]


def test_an_observer_need_not_handle_every_record(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(Observer):
        pass

    for record in (Decided(method="GET", path="/"), FINISHED, Reloaded(generation=1)):
        notify([Silent()], record)

    assert not caplog.records


def test_the_access_log_is_one_json_object_per_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="canary_mw.access")
    notify([AccessLog()], FINISHED)

    (line,) = [record.getMessage() for record in caplog.records]
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "method": "GET",
        "path": "/\n",
        "status": 200,
        "seconds": 0.123457,
        "mapping": "shop",
        "service": "a",
        "variant": "gray",
        "reason": None,
        "bytes_out": 0,
    }


def test_the_access_log_writes_nothing_where_its_level_is_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="canary_mw.access")
    notify([AccessLog()], FINISHED)

    assert not caplog.records
