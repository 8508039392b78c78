"""The state of a release as JSON: what this version or the one before wrote is read, what a newer one wrote is not."""

import json
from dataclasses import replace
from typing import Any

import pytest

from canary_mw.exceptions import NewerFormat, StateError
from canary_mw.rollout.state import FORMAT, HISTORY, PHASES, Change, ReleaseState, from_json, to_json

STATE = ReleaseState(
    name="release",
    attempt=3,
    phase="Held",
    step=2,
    visit=5,
    weights={"blue": 10.0, "green": 15.5},
    elapsed=12.25,
    baked=1.5,
    baking=True,
    resumed=True,
    overruled=("sample_ratio",),
    advised="something",
    reason="the timeout is over",
    held_by="metric",
    objection="latency",
    subject="abc",
    revision="1.4.2",
    plan="def",
    alpha=0.01,
    since=1e9,
    history=(Change(1e9, "", "Pending", 0, {"blue": 0.0, "green": 0.0}, "the release is new", "me", "192.0.2.7"),),
)


def with_values(**values: Any) -> str:
    return json.dumps({**json.loads(to_json(STATE)), **values})


def test_what_is_written_is_read() -> None:
    assert from_json(to_json(STATE)) == STATE
    assert from_json(to_json(STATE).encode()) == STATE
    assert json.loads(to_json(STATE))["format"] == FORMAT


@pytest.mark.parametrize("number", [FORMAT - 1, FORMAT])
def test_this_format_and_the_one_before_are_read(number: int) -> None:
    written = json.loads(with_values(format=number))
    for later in ("visit", "overruled", "alpha"):
        del written[later]
    read = from_json(json.dumps(written))
    assert read == replace(STATE, visit=0, overruled=(), alpha=1.0)


def test_a_newer_format_is_told_apart() -> None:
    with pytest.raises(NewerFormat, match="nothing is raised"):
        from_json(json.dumps({"format": FORMAT + 1, "name": "release", "phase": "Floating"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{}",
        "[" * 100_000,
        json.dumps({"format": FORMAT}),
        with_values(format="1"),
        with_values(format=True),
        with_values(format=None),
        with_values(phase="Floating"),
        with_values(held_by="magic"),
        with_values(attempt=-1),
        with_values(attempt=1.5),
        with_values(step=True),
        with_values(weights={"blue": 60, "green": 60}),
        with_values(weights={"blue": -1}),
        with_values(weights=[1]),
        with_values(elapsed="long"),
        with_values(elapsed=float("nan")),
        with_values(elapsed=float("inf")),
        with_values(baking=1),
        with_values(name=None),
        with_values(revision=7),
        with_values(history=[{"at": 1}]),
        with_values(history=[{**STATE.history[0]._asdict(), "more": 1}]),
        with_values(history=[{**STATE.history[0]._asdict(), "after": "Floating"}]),
        with_values(history=[{**STATE.history[0]._asdict(), "who": 7}]),
        with_values(history=[{**STATE.history[0]._asdict(), "at": "then"}]),
        b"\xff\xfe",
    ],
)
def test_what_is_no_state_is_an_error_of_its_own(text: str | bytes) -> None:
    with pytest.raises(StateError) as caught:
        from_json(text)
    assert not isinstance(caught.value, NewerFormat)
    assert len(str(caught.value)) < 300


def test_the_oldest_changes_are_forgotten() -> None:
    state = STATE
    for number in range(HISTORY + 10):
        state = state.with_change(Change(float(number), "Paused", "Progressing", 1, {}, "the command resume"))
    assert len(state.history) == HISTORY
    assert state.history[-1].at == HISTORY + 9


def test_every_phase_has_a_word_of_argo_rollouts() -> None:
    words = {phase: replace(STATE, phase=phase).status for phase in PHASES}
    assert words["RolledBack"] == words["Aborted"] == "Degraded"
    assert words["Paused"] == words["Held"] == "Paused"
    assert words["Completed"] == "Healthy"
    assert words["Pending"] == words["Progressing"] == words["Baking"] == "Progressing"
