"""A reflector fed with answers: recorded ones of real servers, and such as they may send."""

import json
from pathlib import Path
from typing import Any

import pytest

from canary_mw.kubernetes.backoff import Backoff, retry_after_of
from canary_mw.kubernetes.kinds import INGRESSES, MAPPINGS, SERVICES, Kind
from canary_mw.kubernetes.reflector import MalformedAnswer, Reflector

RECORDINGS: dict[str, Any] = json.loads(Path(__file__).with_name("recordings.json").read_text())


def item(name: str, weight: int = 0, version: str = "7") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "resourceVersion": version}, "weight": weight}


def page(*items: Any, version: str = "5", more: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)}


def event(kind: str, name: str, weight: int = 0, version: str = "8") -> dict[str, Any]:
    return {"type": kind, "object": item(name, weight, version)}


def error(code: int) -> dict[str, Any]:
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "so it is"}}


def reflector(kind: Kind = SERVICES, *, optional: bool = False, draw: float = 1.0) -> Reflector:
    backoff = Backoff(lambda: draw)
    return Reflector(kind, "shop", optional=optional, keep=lambda item: item.get("weight", 0), backoff=backoff)


def watching(kind: Kind = SERVICES, *items: Any) -> Reflector:
    made = reflector(kind)
    if made.step == "discover":
        made.discovered([*kind.versions])
    made.page(page(*items or [item("a", 1)]))
    made.opened()
    return made


def names(of: Reflector) -> dict[str, Any]:
    return {name: value for (_, name), value in of.objects.items()}


def test_a_list_is_complete_with_its_last_page() -> None:
    state = reflector()
    assert state.step == "list"
    assert not state.page(page(item("a", 1), more="next"))
    assert (state.complete, state.objects, state.continue_token) == (False, {}, "next")
    assert state.page(page(item("b", 2)))
    assert (state.complete, names(state), state.step, state.resource_version) == (True, {"a": 1, "b": 2}, "watch", "5")


def test_a_list_that_expires_between_its_pages_begins_again() -> None:
    state = reflector()
    state.page(page(item("gone", 1), more="next"))
    state.refused(410, "too old")
    assert (state.step, state.continue_token) == ("list", "")
    state.page(page(item("b", 2)))
    assert names(state) == {"b": 2}


def test_items_may_be_null_as_in_an_empty_list_of_metadata() -> None:
    state = reflector()
    state.page(RECORDINGS["list_metadata_empty-1.20"])
    assert (state.complete, state.objects, state.resource_version) == (True, {}, "375")


def test_events_change_the_objects() -> None:
    state = watching()
    assert state.line(event("ADDED", "b", 2, "9"))
    assert state.line(event("MODIFIED", "a", 3, "10"))
    assert state.line(event("DELETED", "b", 2, "11"))
    assert (names(state), state.resource_version) == ({"a": 3}, "11")


def test_an_event_that_changes_nothing_that_is_kept_is_no_change() -> None:
    state = watching()
    assert not state.line(event("MODIFIED", "a", 1, "9"))
    assert not state.line(event("DELETED", "never-seen", 1, "10"))
    assert state.resource_version == "10"


@pytest.mark.parametrize(
    ("name", "expected", "version"),
    [
        ("watch_selector-1.20", {"gray"}, None),
        ("watch_no_rv-1.20", None, None),
        ("watch_bookmarks-1.20", None, None),
        ("custom_resource_watch-1.36", {"a"}, "30"),
    ],
)
def test_recorded_watches_are_understood(name: str, expected: set[str] | None, version: str | None) -> None:
    lines = RECORDINGS[name]
    state = reflector()
    state.page(page())
    state.opened()
    for line in lines:
        state.line(line)
    assert state.step == "watch"
    left: dict[str, None] = {}
    for line in lines:
        if line["type"] != "BOOKMARK":
            left.pop(line["object"]["metadata"]["name"], None)
            if line["type"] != "DELETED":
                left[line["object"]["metadata"]["name"]] = None
    assert set(names(state)) == set(left) == (expected or set(left))
    assert state.resource_version == (version or lines[-1]["object"]["metadata"]["resourceVersion"])
    assert state.bookmarked == any(line["type"] == "BOOKMARK" for line in lines)


def test_an_expired_watch_is_left_at_its_error_and_everything_is_listed_again() -> None:
    state = watching()
    for line in RECORDINGS["watch_410_after_sigkill-1.20"]:
        state.line(line)
    assert (state.step, names(state), dict(state.relists)) == ("list", {"a": 1}, {"expired": 1})
    # What was deleted meanwhile is known by the list alone.
    assert state.page(page(item("b", 2), version="20"))
    assert names(state) == {"b": 2}


def test_the_end_of_a_watch_keeps_the_version() -> None:
    state = watching()
    state.line(event("MODIFIED", "a", 1, "9"))
    state.ended(270.0)
    assert (state.step, state.resource_version, state.delay) == ("watch", "9", 0.0)


def test_a_watch_in_which_nothing_was_said_is_no_proof_of_the_version() -> None:
    state = watching()
    state.ended(270.0)
    assert (state.step, dict(state.relists)) == ("list", {"quiet": 1})


def test_a_watch_that_ends_at_once_is_not_opened_in_a_tight_loop() -> None:
    state = watching()
    for _ in range(3):
        state.opened()
        state.line(event("MODIFIED", "a", 1, "9"))
        state.ended(0.01)
        assert state.delay >= 0.125


@pytest.mark.parametrize("fault", ["refused", "broken", "silent"])
def test_failures_are_followed_by_longer_and_longer_delays_until_a_line_comes(fault: str) -> None:
    state = watching()
    state.line(event("MODIFIED", "a", 1, "9"))
    delays = []
    for _ in range(10):
        if fault == "refused":
            state.refused(503, "injected")
        elif fault == "broken":
            state.broken("ConnectError", "refused")
        else:
            state.silent()
        delays.append(state.delay)
    assert delays[:4] == [0.25, 0.5, 1.0, 2.0]
    assert delays[-1] == 30.0
    assert (state.step, state.resource_version, names(state)) == ("watch", "9", {"a": 1})
    state.opened()
    state.line(event("MODIFIED", "a", 1, "9"))
    state.broken("ReadError", "cut")
    assert state.delay == 0.25


def test_a_server_may_ask_for_a_longer_delay_but_not_for_any() -> None:
    state = watching()
    state.refused(429, "later", 7.0)
    assert state.delay == 7.0
    state.refused(429, "later", 1e9)
    assert state.delay == 60.0


@pytest.mark.parametrize(
    ("value", "seconds"), [("30", 30.0), (None, 0.0), ("", 0.0), ("-1", 0.0), ("Fri, 27 Nov 2026 00:00:00 GMT", 0.0)]
)
def test_retry_after_is_a_number_of_seconds(value: str | None, seconds: float) -> None:
    assert retry_after_of(value) == seconds


def test_the_delays_are_spread() -> None:
    assert Backoff(lambda: 0.0).after_failure() == 0.125
    assert Backoff(lambda: 0.5).before_relist() == 0.5


def test_a_kind_that_is_not_installed_is_an_empty_one_and_looked_for_again() -> None:
    state = reflector(draw=0.0)
    state.refused(404, "404 page not found")
    assert (state.complete, state.error, state.step, state.delay) == (True, None, "list", 30.0)
    state.page(page(item("a", 1)))
    assert (names(state), state.absent) == ({"a": 1}, False)


def test_a_kind_that_is_removed_keeps_what_no_deletion_was_told_of() -> None:
    state = watching(SERVICES, item("a", 1), item("b", 2))
    state.line(event("DELETED", "a", 1, "9"))
    state.ended(50.0)
    state.refused(404, "404 page not found")
    assert state.step == "list"
    state.refused(404, "404 page not found")
    assert (state.complete, names(state)) == (True, {"b": 2})
    # It is probably being installed anew: it is looked for soon, and less and less often.
    assert 0 < state.delay < 30.0
    assert "no longer installed" in (state.error or "")


def test_a_missing_right_for_a_named_kind_is_not_an_empty_list() -> None:
    state = reflector()
    state.refused(403, "services is forbidden")
    assert (state.complete, state.denied, state.step) == (False, "services is forbidden", "list")


def test_a_missing_right_for_an_assumed_kind_leaves_it_out() -> None:
    state = reflector(INGRESSES, optional=True)
    state.refused(403, "ingresses is forbidden")
    assert (state.complete, state.error) == (True, "ingresses is forbidden")
    state.page(page(item("a", 1)))
    state.opened()
    assert (names(state), state.denied, state.error) == ({"a": 1}, None, None)


def test_a_right_that_is_taken_away_changes_nothing_that_is_known() -> None:
    state = watching()
    state.refused(403, "services is forbidden")
    assert (state.complete, names(state), state.step) == (True, {"a": 1}, "list")
    assert state.error == "services is forbidden"


def test_an_unknown_token_is_followed_by_a_list() -> None:
    state = watching()
    state.refused(401, "Unauthorized")
    assert (state.step, names(state)) == ("list", {"a": 1})


def test_the_preferred_version_is_read_of_those_that_are_served() -> None:
    state = reflector(MAPPINGS)
    assert state.step == "discover"
    state.discovered(["v2", "v1", "v3alpha1"])
    assert (state.step, state.version) == ("list", "v3alpha1")
    other = reflector(MAPPINGS)
    other.discovered(["v1", "v2"])
    assert other.version == "v2"


def test_a_group_without_a_known_version_is_a_kind_that_is_not_installed() -> None:
    state = reflector(MAPPINGS)
    state.discovered(["v4"])
    assert (state.complete, state.step) == (True, "discover")


def test_a_version_that_is_not_served_for_the_kind_is_passed_over() -> None:
    state = reflector(MAPPINGS)
    state.discovered(["v3alpha1", "v2"])
    state.refused(404, "404 page not found")
    assert (state.version, state.step, state.delay) == ("v2", "list", 0.0)
    state.refused(404, "404 page not found")
    assert (state.complete, state.step) == (True, "discover")


def test_without_the_right_to_discover_each_version_is_tried() -> None:
    state = reflector(MAPPINGS)
    state.refused(403, "forbidden")
    assert (state.step, state.version, state.complete) == ("list", "v3alpha1", False)


@pytest.mark.parametrize("answer", [500, 502, 503, 504, None])
def test_a_dead_conversion_webhook_is_gone_round_by_the_stored_version(answer: int | None) -> None:
    state = reflector(MAPPINGS)
    state.discovered(["v3alpha1", "v2"])
    if answer is not None:
        state.refused(answer, "conversion webhook failed")
    else:
        state.unanswered()
    # It is no error yet, and nothing to wait for.
    assert (state.step, state.version, state.error, state.delay) == ("list", "v2", None, 0.0)
    state.page(page(item("a", 1)))
    assert names(state) == {"a": 1}
    # If it fails too, the first one is asked again.
    state.opened()
    state.unanswered()
    assert (state.step, state.version) == ("list", "v3alpha1")


def test_a_server_on_which_no_version_can_be_listed_is_not_asked_in_a_tight_loop() -> None:
    state = reflector(MAPPINGS)
    state.discovered(["v3alpha1", "v2"])
    for _ in range(3):
        state.refused(500, "injected")
        state.refused(500, "injected")
        assert "status 500" in (state.error or "")
        assert state.delay > 0.25


@pytest.mark.parametrize("code", [401, 429])
def test_a_failure_that_is_no_failure_of_the_server_does_not_change_the_version(code: int) -> None:
    state = reflector(MAPPINGS)
    state.discovered(["v3alpha1", "v2"])
    state.refused(code, "injected")
    assert (state.step, state.version) == ("list", "v3alpha1")
    assert state.delay == 0.25


def test_a_server_that_asks_for_time_gets_it_before_another_version_is_tried() -> None:
    state = reflector(MAPPINGS)
    state.discovered(["v3alpha1", "v2"])
    state.refused(503, "injected", 7.0)
    assert (state.version, state.delay) == ("v2", 7.0)
    assert "status 503" in (state.error or "")


def test_the_preferred_version_is_tried_again_with_the_next_list() -> None:
    state = reflector(MAPPINGS)
    state.discovered(["v3alpha1", "v2"])
    state.refused(500, "conversion webhook failed")
    state.page(page(item("a", 1)))
    state.opened()
    state.line(error(410))
    assert (state.step, state.version) == ("list", "v3alpha1")


def test_a_webhook_that_dies_under_a_watch_leads_to_a_list_which_tells() -> None:
    state = watching(MAPPINGS)
    for line in RECORDINGS["webhook_watch-1.36"]:
        state.line(line)
    assert (state.step, state.version, names(state)) == ("list", "v3alpha1", {"a": 1})
    state.refused(500, "conversion webhook failed")
    assert (state.step, state.version) == ("list", "v2")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"metadata": None},
        {"metadata": {"resourceVersion": "5"}, "items": {}},
        {"metadata": {"resourceVersion": "5"}, "items": [None]},
        {"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {}}]},
        {"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": 5}}]},
        {"metadata": {}, "items": []},
        {"metadata": {"resourceVersion": 5}, "items": []},
    ],
)
def test_what_is_no_list_is_never_taken_for_an_empty_one(body: Any) -> None:
    state = reflector()
    with pytest.raises(MalformedAnswer):
        state.page(body)
    assert not state.complete


@pytest.mark.parametrize(
    "line",
    [
        None,
        5,
        {},
        {"type": "ADDED"},
        {"type": "ADDED", "object": {}},
        {"type": "RENAMED", "object": item("a")},
        {"type": "MODIFIED", "object": {"metadata": {"name": "a"}}},
        {"object": item("a")},
    ],
)
def test_what_is_no_event_is_an_error_and_changes_nothing(line: Any) -> None:
    state = watching()
    with pytest.raises(MalformedAnswer):
        state.line(line)
    assert (names(state), state.resource_version) == ({"a": 1}, "5")


@pytest.mark.parametrize("code", [500, 504, 429, None])
def test_another_error_of_a_watch_keeps_the_version(code: Any) -> None:
    state = watching()
    state.line(error(code))
    assert (names(state), state.resource_version, state.step) == ({"a": 1}, "5", "watch")
    assert state.delay == 0.25
