"""Which hooks are asked and told, what their answers mean, and that nobody waits for them."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hook_server import HookServer, hook_server
from planned_releases import planned

from canary_mw.control.rollouts.hooks.hooks import Gates, Hooks
from canary_mw.forking import running_threads
from canary_mw.rollout.findings import ERROR_RATE, MetricEvidence, find
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.statistics import Epoch
from canary_mw.rollout.verdict import Look
from canary_mw.rules.plan import HOOK_TYPES, Hook, HookType
from canary_mw.rules.release import GrayRelease

NEAR = ("127.0.0.1",)
PENDING = ReleaseState(name="shop", subject="of-the-first", weights={"gray": 0.0})
FIRST = ReleaseState(name="shop", phase="Progressing", step=0, visit=1, weights={"gray": 5.0}, subject="of-the-first")
LAST = ReleaseState(name="shop", phase="Progressing", step=1, visit=2, weights={"gray": 25.0})
OVER = ReleaseState(name="shop", phase="RolledBack", weights={"gray": 0.0})


@pytest.fixture
def hook() -> Iterator[HookServer]:
    with hook_server() as server:
        yield server


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def asker(**options: Any) -> Hooks:
    return Hooks(NEAR, pauses=options.pop("pauses", (0.0, 0.0, 0.0)), **options)


def settled(hooks: Hooks, document: GrayRelease, state: ReleaseState) -> Gates:
    """What hooks say once all that were asked have answered."""
    hooks.gates(document, state)
    for thread in running_threads():
        if thread.name == "canary-mw-hook":
            assert thread.join(20)
    return hooks.gates(document, state)


def transition(after: Any = "Progressing", **changes: Any) -> Message:
    return Message(
        "transition", "shop goes to 5 %", "shop", 1, "Pending", after, 0, {"gray": 5.0}, "the release is new"
    )._replace(**changes)


@pytest.mark.parametrize(
    ("state", "kinds"),
    [
        (PENDING, {"confirm-rollout", "pre-rollout", "rollback"}),
        (FIRST, {"rollout", "confirm-traffic-increase", "rollback"}),
        (LAST, {"rollout", "confirm-traffic-increase", "confirm-promotion", "rollback"}),
        (OVER, set()),
    ],
)
def test_the_hooks_of_the_next_move_are_asked(hook: HookServer, state: ReleaseState, kinds: set[HookType]) -> None:
    document = planned(*(Hook(each, hook.url(f"/{each}")) for each in HOOK_TYPES))
    hook.status["/rollback"] = 404
    assert settled(asker(), document, state).open == dict.fromkeys(kinds, True)
    assert {hook.next().path for _ in kinds} == {f"/{each}" for each in kinds}
    assert hook.posted.empty()


def test_a_question_is_flaggers_payload_with_its_own_metadata(hook: HookServer) -> None:
    gate = Hook("confirm-rollout", hook.url("/gate"), metadata=(("team", "shop"),))
    settled(asker(), planned(gate, namespace="prod"), PENDING)
    body = hook.next().body
    assert (body["name"], body["namespace"], body["phase"], body["checksum"]) == (
        "shop",
        "prod",
        "Pending",
        "of-the-first",
    )
    assert body["metadata"] == {"team": "shop"}
    assert (body["attempt"], body["step"], body["weight"]) == (1, 1, 0.0)


def test_nobody_waits_for_an_answer_and_until_then_the_gate_is_closed(hook: HookServer) -> None:
    hook.go.clear()
    hooks, document = asker(), planned(Hook("confirm-rollout", hook.url()))
    assert hooks.gates(document, PENDING).open == {"confirm-rollout": False}
    hook.next()
    assert hooks.gates(document, PENDING).open == {"confirm-rollout": False}
    assert hook.posted.empty(), "it is asked once at a time"
    hook.go.set()
    assert settled(hooks, document, PENDING).open == {"confirm-rollout": True}


@pytest.mark.parametrize("status", [204, 299, 300, 302, 404, 500, None])
def test_only_an_answer_of_200_to_299_opens_a_gate(hook: HookServer, status: int | None) -> None:
    hook.status["/"] = status
    opened = settled(asker(), planned(Hook("confirm-rollout", hook.url())), PENDING).open
    assert opened == {"confirm-rollout": status in (204, 299)}


def test_all_hooks_of_a_kind_have_to_agree(hook: HookServer) -> None:
    hook.status["/b"] = 403
    document = planned(Hook("rollout", hook.url("/a")), Hook("rollout", hook.url("/b")))
    assert settled(asker(), document, FIRST).open == {"rollout": False}


@pytest.mark.parametrize(
    ("status", "opened", "rollback"), [(200, True, "the hook rollback demands it"), (404, True, ""), (None, False, "")]
)
def test_only_an_answer_that_agrees_takes_a_release_back(
    hook: HookServer, status: int | None, opened: bool, rollback: str
) -> None:
    hook.status["/"] = status
    assert settled(asker(), planned(Hook("rollback", hook.url())), FIRST) == ({"rollback": opened}, rollback)


def test_a_hook_is_asked_again_after_a_while_and_its_last_answer_counts(hook: HookServer) -> None:
    clock = Clock()
    hooks, document = asker(clock=clock), planned(Hook("confirm-rollout", hook.url()))
    assert settled(hooks, document, PENDING).open == {"confirm-rollout": True}
    hook.next()
    clock.now = 4.9
    assert settled(hooks, document, PENDING).open == {"confirm-rollout": True}
    assert hook.posted.empty()
    clock.now, hook.status["/"] = 5.0, 503
    assert settled(hooks, document, PENDING).open == {"confirm-rollout": False}
    hook.next()


@pytest.mark.parametrize("change", ["attempt", "step", "visit"])
def test_an_answer_counts_for_the_step_that_it_was_asked_about_alone(hook: HookServer, change: str) -> None:
    hooks, document = asker(), planned(Hook("rollout", hook.url()), weights=(5.0, 25.0, 50.0, 100.0))
    assert settled(hooks, document, FIRST).open == {"rollout": True}
    values: dict[str, Any] = {"attempt": 1, "step": 0, "visit": 1}
    moved = ReleaseState(name="shop", phase="Progressing", weights={"gray": 5.0}, **{**values, change: 2})
    hook.next()
    hook.go.clear()
    assert hooks.gates(document, moved).open == {"rollout": False}
    hook.next()


def test_a_hook_that_is_away_is_told_in_the_log_once(hook: HookServer, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    hook.status["/secret-path"] = 503
    hook.body = b"a body that appears nowhere"
    gate = Hook("confirm-rollout", hook.url("/secret-path"), name="gate")
    quiet = Hook("confirm-rollout", hook.url("/secret-path?quiet"), name="quiet", muted=True)
    hooks, document = asker(clock=clock), planned(gate, quiet)
    with caplog.at_level(logging.WARNING, "canary_mw.rollouts"):
        for clock.now in (0.0, 5.0, 10.0):
            settled(hooks, document, PENDING)
    assert [each.getMessage() for each in caplog.records] == ["release shop: the hook gate says no: it answers 503"]


def test_an_address_that_is_refused_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    document = planned(Hook("rollback", "http://169.254.169.254/latest"))
    with caplog.at_level(logging.WARNING, "canary_mw.rollouts"):
        assert settled(Hooks(), document, FIRST) == ({"rollback": False}, "")
    assert "169.254.169.254 is an address of this machine or link, and not asked" in caplog.text


@pytest.mark.parametrize("change", [{"enabled": False}, {"hooks": ()}])
def test_a_release_without_hooks_or_that_stands_still_asks_nobody(hook: HookServer, change: dict[str, Any]) -> None:
    document = planned(*change.get("hooks", (Hook("rollout", hook.url()),)), enabled=change.get("enabled", True))
    assert asker().gates(document, FIRST) == ({}, "")
    assert hook.posted.empty()


def test_a_transition_is_told_once_with_what_flagger_tells(hook: HookServer) -> None:
    teller = Hook("event", hook.url("/event"), metadata=(("team", "shop"), ("eventType", "mine")))
    message = transition("RolledBack")
    bad = MetricEvidence(ERROR_RATE, [[Epoch(0.05, 20, 2, 500, 9000)]])
    look = Look(findings={"gray": find([bad], [])})
    hooks = asker()
    hooks.changed(planned(teller), FIRST, message, look)
    body = hook.next().body
    assert (body["name"], body["namespace"], body["phase"]) == ("shop", "default", "RolledBack")
    assert body["checksum"] == "of-the-first"
    assert body["metadata"]["eventMessage"] == "shop goes to 5 %"
    assert body["metadata"]["eventType"] == "Warning"
    assert body["metadata"]["team"] == "shop"
    assert body["metadata"]["timestamp"].isdigit()
    assert (body["attempt"], body["step"], body["weight"], body["reason"]) == (1, 1, 5.0, "the release is new")
    (metric,) = body["metrics"]
    assert (metric["name"], metric["variant"], metric["failedKeys"]) == ("error_rate", "gray", 20)
    assert metric["lnE"] > metric["lnNeeded"] > 4
    wait_for_deliveries()
    assert hook.posted.empty()


@pytest.mark.parametrize(
    ("after", "told"), [("Completed", True), ("RolledBack", True), ("Aborted", True), ("Held", False)]
)
def test_the_end_is_told_to_hooks_of_the_end(hook: HookServer, after: str, told: bool) -> None:
    hooks = asker()
    hooks.changed(planned(Hook("post-rollout", hook.url())), FIRST, transition(after))
    wait_for_deliveries()
    assert hook.posted.empty() is not told


@pytest.mark.parametrize("failures", [1, 3, 4])
def test_what_was_not_heard_is_told_three_times_more(
    hook: HookServer, failures: int, caplog: pytest.LogCaptureFixture
) -> None:
    left = iter([503] * failures)
    hook.decide = lambda path: next(left, 200)
    with caplog.at_level(logging.WARNING, "canary_mw.rollouts"):
        asker().changed(planned(Hook("event", hook.url(), name="chat")), FIRST, transition())
        wait_for_deliveries()
    assert hook.posted.qsize() == min(failures + 1, 4)
    given_up = ["release shop: the hook chat was not told: it answers 503"] if failures == 4 else []
    assert [each.getMessage() for each in caplog.records] == given_up


def test_a_receiver_that_hangs_keeps_up_neither_the_caller_nor_another_receiver(hook: HookServer) -> None:
    with hook_server() as other:
        hook.go.clear()
        hooks = asker()
        document = planned(Hook("event", hook.url()), Hook("event", other.url()))
        for number in range(3):
            hooks.changed(document, FIRST, transition(text=f"number {number}"))
        texts = [other.next().body["metadata"]["eventMessage"] for _ in range(3)]
        assert texts == ["number 0", "number 1", "number 2"]
        hook.go.set()
        assert [hook.next().body["metadata"]["eventMessage"] for _ in range(3)] == texts
        wait_for_deliveries()


def test_what_waits_for_a_receiver_is_bounded(hook: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary_mw.control.rollouts.hooks.deliveries._MOST", 2)
    hook.go.clear()
    hooks, document = asker(), planned(Hook("event", hook.url(), muted=True))
    hooks.changed(document, FIRST, transition(text="number 0"))
    hook.next()
    for number in range(1, 6):
        hooks.changed(document, FIRST, transition(text=f"number {number}"))
    hook.go.set()
    assert [hook.next().body["metadata"]["eventMessage"] for _ in range(2)] == ["number 4", "number 5"]
    wait_for_deliveries()
    assert hook.posted.empty()


def test_at_the_end_nothing_is_tried_again(hook: HookServer) -> None:
    hook.status["/"] = 503
    hooks = asker(pauses=(3600.0,))
    hooks.changed(planned(Hook("event", hook.url(), muted=True)), FIRST, transition())
    hook.next()
    hooks.close()
    wait_for_deliveries()
    assert hook.posted.empty()
    left = iter([503, 200])
    hook.decide = lambda path: next(left)
    again = Hooks(NEAR, pauses=(0.0,))
    again.close()
    again.changed(planned(Hook("event", hook.url())), FIRST, transition())
    wait_for_deliveries()
    assert hook.posted.qsize() == 2, "what comes afterwards is tried again"


def test_without_threads_gates_stay_closed_and_events_are_given_up(
    hook: HookServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("can't start new thread")

    for module in ("hooks", "deliveries"):
        monkeypatch.setattr(f"canary_mw.control.rollouts.hooks.{module}.start_thread", fails)
    document = planned(Hook("confirm-rollout", hook.url()), Hook("event", hook.url()))
    hooks = asker()
    with caplog.at_level(logging.WARNING, "canary_mw.rollouts"):
        hooks.changed(document, FIRST, transition())
        assert hooks.gates(document, PENDING).open == {"confirm-rollout": False}
    assert len([each for each in caplog.records if "no thread can be started" in each.getMessage()]) == 2


def wait_for_deliveries() -> None:
    """Wait until nothing is under way to a receiver."""
    for thread in running_threads():
        if thread.name == "canary-mw-hook-events":
            assert thread.join(20)
