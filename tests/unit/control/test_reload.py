"""A reload costs what changed costs, leaves nothing behind, and is never seen half done."""

import gc
import threading
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from contextlib import contextmanager
from typing import Any
from weakref import ref

import pytest
from rules import chosen, get

from canary_mw.config import parser, reader
from canary_mw.config.document import Document
from canary_mw.config.resource import Resource
from canary_mw.control.store import RuleStore
from canary_mw.routing.decided import Decision
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping

MANY = 10_000


def files(count: int, services: Dict[str, str] = {}, *, per_file: int = 1_000, more: str = "") -> list[Document]:
    """Mappings m0, m1 and so on, each for a prefix of its own; `{"m7": "other"}` changes the service of one."""
    rules = [
        f"---\napiVersion: getambassador.io/v2\nkind: Mapping\nname: m{number}\nprefix: /m{number}/\n"
        f"service: {services.get(f'm{number}', 'usual')}\n{more}"
        for number in range(count)
    ]
    parts = [rules[start : start + per_file] for start in range(0, count, per_file)]
    return [Document("".join(part), f"{number:03}.yaml") for number, part in enumerate(parts)]


class Given:
    """A source whose texts are set."""

    def __init__(self, texts: list[Document]) -> None:
        self.texts = texts

    def load(self) -> list[Document]:
        """As if read anew: equal, and not the same."""
        return [Document("".join([*each.text]), each.name) for each in self.texts]

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """None."""
        stop.wait()
        yield from ()


def running(texts: list[Document]) -> tuple[RuleStore, Given]:
    """A store that has loaded them."""
    source = Given(texts)
    store = RuleStore(source)
    assert store.reload()
    return store, source


@contextmanager
def no_collector() -> Iterator[None]:
    """Only what nothing refers to is freed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def counted(patch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """The first arguments of all calls of a function from now on."""
    seen: list[Any] = []
    original: Callable[..., Any] = getattr(module, name)

    def spy(first: Any, *more: Any, **named: Any) -> Any:
        seen.append(first)
        return original(first, *more, **named)

    patch.setattr(module, name, spy)
    return seen


def test_an_old_table_is_freed_at_once() -> None:
    store, source = running(files(20))
    with no_collector():
        source.texts = files(20, {"m3": "other"})
        old, kept = ref(store.table), store.table.mappings[4]
        assert store.reload()
        assert old() is None
        assert store.table.mappings[4] is kept


HARD = "host: '*.example.com'\nheaders: {x-canary: true}\nregex_headers: {x: a.*}\nmethod: GET\nweight: 40\n"


def alive() -> dict[str, int]:
    """How many objects of a table there are."""
    kinds = (RouteTable, MappingGroup, Decision, Mapping, Resource)
    return {kind.__name__: sum(type(each) is kind for each in gc.get_objects()) for kind in kinds}


@pytest.mark.parametrize(
    "more",
    [
        "",
        pytest.param(HARD, marks=pytest.mark.slow),
        pytest.param(HARD.replace("*.", "").replace(".com", ".*"), marks=pytest.mark.slow),
        pytest.param("prefix_regex: true\n", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left_of_old_tables(more: str) -> None:
    store, source = running(files(30, more=more))
    with no_collector():
        before = alive()
        for number in range(20):
            source.texts = files(30, {f"m{each}": f"other-{number}" for each in range(number + 1)}, more=more)
            assert store.reload()
        assert alive() == before


@pytest.mark.slow
def test_reloads_do_not_make_the_process_grow() -> None:
    store, source = running(files(200, per_file=50))
    sizes = []
    with no_collector():
        for number in range(20):
            source.texts = files(200, {f"m{number}": "other"}, per_file=50)
            assert store.reload()
            if number in (4, 19):
                assert gc.collect() == 0
                sizes.append(len(gc.get_objects()))
    assert sizes[1] <= sizes[0] + 20


def test_only_the_file_that_changed_is_read_and_of_it_only_the_document_that_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, source = running(files(400, per_file=100))
    read = counted(monkeypatch, parser, "read")
    parsed = counted(monkeypatch, reader, "load")
    judged = counted(monkeypatch, parser, "interpret")
    before = store.table
    source.texts = files(400, {"m250": "other"}, per_file=100)
    assert store.reload()
    assert [document.name for document in read] == ["002.yaml"]
    assert [text.count("name: m250\n") for text in parsed] == [1]
    assert [resource.name for resource in judged] == ["m250"]
    same = [one is other for one, other in zip(before.groups, store.table.groups, strict=True)]
    assert same.count(False) == 1


def test_a_file_with_another_name_is_read_and_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store, source = running(files(10, per_file=5))
    parsed = counted(monkeypatch, reader, "load")
    source.texts = [Document(each.text, "new-" + each.name) for each in source.texts]
    assert store.reload()
    assert parsed == []
    assert {mapping.file for mapping in store.table.mappings} == {"new-000.yaml", "new-001.yaml"}


def test_a_file_with_a_variable_is_read_again_for_its_new_value() -> None:
    environ = {"WHERE": "one"}
    source = Given([*files(2, {"m1": "$WHERE"}), Document("# a comment\n", "z.yaml")])
    store = RuleStore(source, environ=environ)
    store.reload()
    environ["WHERE"] = "two"
    source.texts = [*source.texts[:1], Document("# another comment\n", "z.yaml")]
    assert store.reload()
    assert [mapping.service.text for mapping in store.table.mappings] == ["usual", "two"]


def test_a_module_changes_what_the_rules_of_unchanged_files_mean() -> None:
    module = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: {server_name: edge}\n"
    store, source = running(files(4, per_file=2))
    source.texts = [*source.texts, Document(module, "z.yaml")]
    assert store.reload()
    assert all(mapping.add_response_headers for mapping in store.table.mappings)


def test_an_error_of_an_unchanged_file_stays_an_error() -> None:
    store, source = running(files(4, per_file=2))
    source.texts = [source.texts[0], *files(4, per_file=2, more="weight: x\n")[1:]]
    assert not store.reload()
    error = str(store.error)
    assert error.startswith("001.yaml:7: Mapping m2: weight must be a whole number")
    source.texts = [*files(4, {"m0": "other"}, per_file=2)[:1], source.texts[1]]
    assert store.reload()
    assert str(store.error) == error
    assert [chosen(store.table, get(f"/m{number}/")) for number in range(4)] == ["m0", "m1", "m2", "m3"]


@pytest.mark.slow
def test_a_request_sees_all_of_a_reload_of_ten_thousand_rules_or_nothing() -> None:
    store, source = running(files(MANY))
    heads = [get(f"/m{number}/x") for number in (5, MANY - 1)]
    seen: list[tuple[str, str]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            table = store.table
            found = [next(iter(table.candidates(head))).first for head in heads]
            seen.append((found[0].service.text, found[1].service.text))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for service in ("one", "two", "three"):
            source.texts = files(MANY, {"m5": service, f"m{MANY - 1}": service})
            assert store.reload()
            assert len(store.table.groups) == MANY
    finally:
        done.set()
        asking.join()
    states = [("usual", "usual"), ("one", "one"), ("two", "two"), ("three", "three")]
    assert {*seen} <= {*states}
    assert [states.index(each) for each in seen] == sorted(states.index(each) for each in seen)
    assert seen[0] == states[0]


def test_a_mistake_in_a_weight_changes_nothing_that_is_in_force_and_its_correction_does() -> None:
    def halves(a: object, b: object) -> list[Document]:
        rule = "---\napiVersion: getambassador.io/v2\nkind: Mapping\nname: {0}\nprefix: /\nservice: {0}\nweight: {1}\n"
        return [Document(rule.format("a", a) + rule.format("b", b), "rules.yaml")]

    store, source = running(halves(80, 20))
    table = store.table
    for mistake in (halves(80, 30), halves(80, 200), halves(80, -1), halves(100, 100), halves(90, 20)):
        source.texts = mistake
        assert not store.reload()
        assert store.error is not None
        assert (store.table is table, store.generation) == (True, 1)
    source.texts = halves(70, 30)
    assert store.reload()
    assert (store.error, store.generation) == (None, 2)
    assert [chosen(store.table, get("/"), roll) for roll in (69.9, 70.0)] == ["a", "b"]
