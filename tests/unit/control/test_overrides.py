"""`RuleStore.override`: the weights of a release that its state sets, in the one table that requests read."""

import queue

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import explain
from canary_mw.inspection.release_trace import release_steps
from canary_mw.observability.events import Reloaded
from canary_mw.observability.observers import Observer
from canary_mw.routing.decision import decide
from canary_mw.routing.person import NOBODY
from canary_mw.routing.releases.override import LatchCell, Override
from canary_mw.rules.epoch import subject_of

RULES = """
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: svc}
spec: {hostname: '*', prefix: /, service: stable}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: svc-gray}
spec: {hostname: '*', prefix: /, service: gray}
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: svc-r
salt: s
revision: "%s"
stable: svc
gray: {svc-gray: {weight: %s, always: {ids: [vip]}}}
sticky: [{header: x-user}]
on_zero: drain
choice: {header: x-canary}
"""
KEYS = [f"user-{number}" for number in range(400)]


class Recorder(Observer):
    """Keeps what it hears of."""

    def __init__(self) -> None:
        self.records: queue.SimpleQueue[Reloaded] = queue.SimpleQueue()

    def reloaded(self, record: Reloaded) -> None:
        """Keep it."""
        self.records.put(record)


def store_of(weight: str = "50", revision: str = "1") -> RuleStore:
    """A store with one release."""
    store = RuleStore(StaticSource(RULES % (revision, weight)))
    store.reload()
    assert store.error is None, store.error
    return store


def gray_share(store: RuleStore, **person: object) -> float:
    """The percent of the keys that gray gets."""
    found = [chosen(store, [(b"x-user", key.encode())], **person) for key in KEYS]
    return 100 * found.count("gray") / len(found)


def chosen(store: RuleStore, headers: list[tuple[bytes, bytes]], **person: object) -> str:
    """The variant that a request gets."""
    decision = decide(store.table, RequestHead("GET", "/", headers), 0.0, NOBODY._replace(**person))  # type: ignore[arg-type]
    assert decision is not None
    return decision.variant


def test_the_weights_of_an_override_count_in_place_of_those_of_the_document() -> None:
    store = store_of()
    observer = Recorder()
    store.observers = (observer,)
    assert 40 < gray_share(store) < 60
    assert store.override({"svc-r": Override(weights={"svc-gray": 10.0}, attempt=1, step=2)})
    assert 5 < gray_share(store) < 15
    record = observer.records.get(timeout=5)
    assert record.generation == store.generation == 2
    assert record.steps == {"svc-r": 2}
    assert any("svc-r" in line and "50 % to 10 %" in line for line in record.lines)


def test_an_override_that_says_the_same_makes_no_table() -> None:
    store = store_of()
    store.override({"svc-r": Override(weights={"svc-gray": 10.0}, attempt=1, step=2)})
    table = store.table
    assert not store.override({"svc-r": Override(weights={"svc-gray": 10.0}, attempt=1, step=2)})
    assert store.table is table


def test_what_is_in_force_tells_apart_two_states_of_the_same_documents() -> None:
    store = store_of()
    observer = Recorder()
    store.observers = (observer,)
    contents = []
    for step in (1, 2, 1):
        store.override({"svc-r": Override(weights={"svc-gray": 10.0}, attempt=1, step=step)})
        contents.append(observer.records.get(timeout=5).content)
    assert contents[0] == contents[2] != contents[1]


def test_an_override_survives_a_change_of_other_rules_and_ends_with_none() -> None:
    store = store_of()
    store.override({"svc-r": Override(weights={"svc-gray": 10.0}, attempt=1)})
    more = (
        RULES.replace("name: svc}", "name: svc, labels: {a: b}}", 1)
        + "---\n"
        + RULES.split("---")[0].replace("svc}", "other}").replace("prefix: /", "prefix: /other/")
    )
    store.source = StaticSource(more % ("1", "50"))
    assert store.reload()
    assert 5 < gray_share(store) < 15
    assert store.override({})
    assert 40 < gray_share(store) < 60


def test_a_release_that_is_off_gives_gray_only_to_who_names_it() -> None:
    store = store_of()
    vip, named = [(b"x-user", b"vip")], [(b"x-user", b"user-1"), (b"x-canary", b"always")]
    lane = [(b"x-user", b"user-1"), (b"x-canary-lane", b"svc-r=svc-gray")]
    drained = [(b"x-user", b"user-1"), (b"cookie", b"cmw_in_svc-r=svc-gray")]
    store.override({"svc-r": Override(weights={"svc-gray": 0.0}, attempt=1)})
    assert [chosen(store, each, trusted=True) for each in (vip, named, lane, drained)] == ["gray"] * 4
    store.override({"svc-r": Override(weights={"svc-gray": 50.0}, attempt=1, off=True)})
    assert gray_share(store) == 0
    assert [chosen(store, each, trusted=True) for each in (vip, named, lane, drained)] == [
        "stable",
        "gray",
        "stable",
        "stable",
    ]


def test_a_release_that_is_stopped_gives_gray_to_nobody() -> None:
    store = store_of()
    store.override({"svc-r": Override(weights={"svc-gray": 50.0}, attempt=1, stopped=True)})
    assert gray_share(store) == 0
    assert chosen(store, [(b"x-canary", b"always")]) == "stable"


def test_a_latch_takes_a_release_back_without_a_new_table() -> None:
    store = store_of()
    latch = LatchCell(memoryview(bytearray(8)).cast("Q"))
    store.override({"svc-r": Override(weights={"svc-gray": 100.0}, attempt=3, latch=latch)})
    table = store.table
    for attempt, share in ((0, 100), (2, 100), (3, 0), (4, 0)):
        latch.cells[0] = attempt
        assert gray_share(store) == share
        assert gray_share(store, trusted=True) == share
    assert chosen(store, [(b"x-user", b"vip")]) == "stable"
    assert chosen(store, [(b"x-canary", b"always")]) == "gray"
    assert store.table is table


def test_weights_of_another_subject_give_gray_nothing() -> None:
    store = store_of()
    document = store.table.documents.in_force[0]
    override = Override(weights={"svc-gray": 50.0}, attempt=1, subject=subject_of(document))
    store.override({"svc-r": override})
    assert gray_share(store) > 0
    store.source = StaticSource(RULES % ("2", "50"))
    assert store.reload()
    assert gray_share(store) == 0


def test_what_is_drawn_counts_in_the_attempt_and_step_of_the_override() -> None:
    store = store_of()
    store.override({"svc-r": Override(weights={"svc-gray": 10.0}, attempt=3, step=2)})
    epoch = store.table.releases["svc-r"].epoch
    assert (epoch.attempt, epoch.step) == (3, 2)


def test_a_request_is_told_that_its_release_was_taken_back() -> None:
    store = store_of()
    latch = LatchCell(memoryview(bytearray(8)).cast("Q"))
    head = RequestHead("GET", "/", [(b"x-user", b"user-1")])
    for override in (
        Override(weights={"svc-gray": 50.0}, attempt=1, off=True),
        Override(weights={"svc-gray": 50.0}, attempt=1, latch=latch),
    ):
        store.override({"svc-r": override})
        latch.cells[0] = 1
        assigned = store.table.releases["svc-r"].assign(head, NOBODY, 0.0)
        assert (assigned.variant, assigned.reason, assigned.epoch) == ("stable", "rolled_back", None)
        steps = [each for each in release_steps(explain(store.table, head)) if each.applies]
        assert [(each.name, each.why) for each in steps] == [
            ("rolled_back", "the release was taken back: only a choice by name reaches gray")
        ]
