"""How far a release is, in words and as its page shows it."""

from typing import Any, get_args

import pytest
import recorded_answers as recorded
from admin_client import admin, fetch_app, loaded
from admin_examples import HOSTILE
from kept_rollouts import KeptRollouts
from page_reader import LOOK, Reader
from recorded_answers import at
from recorded_rollouts import COMMANDS, GOOD, LN_NEEDED, ROLLED_BACK, ROLLOUTS, metric, over_time, rollout
from servers import mapping, run

from canary_mw.admin.models.rollout import Phase, Rollout
from canary_mw.admin.pages import wording
from canary_mw.admin.pages.frame import render
from canary_mw.admin.pages.rollout import phases, view
from canary_mw.admin.pages.rollout.evidence import e_value, rows
from canary_mw.admin.pages.rollout.evidence import over_time as chart_of

PHASES: tuple[Phase, ...] = get_args(Phase)
SAID: dict[Phase, str] = {
    "Manual": "The document says what gray gets: there are no steps.",
    "Pending": "Nobody gets gray yet. Confirm-rollout has not agreed yet."
    " Before the step to 25 %: about 50 more requests in gray.",
    "Progressing": "Step 3 of 9: gray gets 5 %. Before the step to 25 %: about 50 more requests in gray.",
    "Paused": "Paused at step 3 of 9: gray stays at 5 %. By the command pause of ci."
    " Before the step to 25 %: about 50 more requests in gray.",
    "Held": "Held at step 3 of 9: gray stays at 5 %."
    " Assignment is not as drawn: 912 keys in gray where 521 were expected.",
    "Baking": "All steps are done: gray gets 95 %, and bakes. 26 min more of bake.",
    "Completed": "Completed: gray gets 100 %.",
    "RolledBack": "Rolled back at 14:00: everybody is on stable. Gray fails more often: 14 of 501 keys against 30 of"
    " 9,890. Gray got 5 % then, in step 3 of 9. Only who chooses gray by name still gets it.",
    "Aborted": "Taken back at 14:04 by ci: everybody is on stable. By the command abort of ci. Gray got 5 % then, in"
    " step 3 of 9. Only who chooses gray by name still gets it.",
}


def answer(state: Rollout, **more: Any) -> Any:
    return {**recorded.RELEASE, "rollout": state, "evidence": over_time(state["metrics"]), **more}


def page(state: Rollout, **more: Any) -> Reader:
    return Reader(render("release", answer(state, **more), LOOK))


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_has_its_words_and_the_commands_that_are_not_refused(phase: Phase) -> None:
    state = ROLLOUTS[phase]
    headline, details = phases.said(state)
    assert " ".join((headline, *details)) == SAID[phase]
    shown = page(state)
    assert SAID[phase] in shown.text
    assert phases.PHASES[phase][2] in shown.text
    offered = {each.text.split()[2] for each in phases.commands("shop", state)}
    assert offered <= set(state["commands"])
    for command in phases.commands("checkout-2026-11", state):
        assert command.text in shown.text
        assert ("button", command.text) in [(tag, found.get("data-copy", "")) for tag, found in shown.elements]


def test_every_phase_offers_a_way_out_but_a_completed_one_only_a_way_back() -> None:
    ways: dict[Phase, set[str]] = {
        phase: {each.text.split()[2] for each in phases.commands("shop", state)} for phase, state in ROLLOUTS.items()
    }
    assert ways["RolledBack"] == ways["Aborted"] == {"retry"}
    assert ways["Completed"] == ways["Manual"] == {"abort"}
    assert ways["Held"] == {"promote", "resume", "pause", "set-weight", "abort"}
    assert set(COMMANDS) == set(PHASES)


def test_a_weight_that_somebody_has_set_lies_before_its_step() -> None:
    less = {"weight": 3.0, "weights": {"gray": 3.0}}
    assert phases.said(rollout("Paused", **less)).headline == "Paused before step 3 of 9: gray stays at 3 %."
    assert phases.said(rollout("Progressing", **less)).headline == "Before step 3 of 9: gray gets 3 %."
    assert states_of(rollout("Paused", **less)) == ["done", *["ahead"] * 5]
    assert phases.progress(rollout("Baking", bake_seconds=0.0, baked_seconds=2.0)) == "2 s"


def test_what_was_missing_for_a_step_that_is_taken_is_not_told() -> None:
    following = {**ROLLOUTS["Progressing"]["next"], "weight": 5.0}
    assert phases.said(rollout("Progressing", next=following)).details == []
    assert phases.said(rollout("Completed", weight=95.0)).headline.endswith("gets 95 %, and 5 % stay on stable.")


def test_what_keeps_a_release_from_being_raised_stands_with_its_phase() -> None:
    away = ["the store of states cannot be written: No space left on device", HOSTILE]
    shown = page(rollout("Progressing", findings=away)).text
    assert away[0] in shown
    stopped = rollout("Progressing", stopped=True, findings=["all releases are stopped: everybody gets stable"])
    assert phases.said(stopped) == ("Stopped with all other releases: everybody is on stable.", [])
    assert "Step 3 of 9" not in page(stopped).text
    assert phases.said({**ROLLED_BACK, "stopped": True}) == phases.said(ROLLED_BACK)


PLAN = (
    mapping("svc", "/svc/", "svc")
    + mapping("svc-gray", "/svc/", "svc-gray")
    + """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop
stable: svc
gray: [svc-gray]
sticky: {header: x-user-id}
steps:
- setWeight: 5
- pause: {duration: 10m}
- setWeight: 25
- pause: {}
- setWeight: 100
bake: {duration: 30m}
analysis: {}
"""
)


@pytest.mark.parametrize("phase", PHASES)
def test_states_that_releases_really_have_are_shown(phase: Phase) -> None:
    store = loaded(PLAN if phase != "Manual" else PLAN.partition("steps:")[0].replace("[svc-gray]", "{svc-gray: 5}"))
    rollouts = KeptRollouts(*store.table.documents.in_force, phase=phase)

    async def main() -> list[str]:
        app = admin(store=store, rollouts=lambda: rollouts)
        paths = ("releases/shop", "")
        return [(await fetch_app(app, f"/ambassador/v0/diag/{path}")).body.decode() for path in paths]

    release, overview = map(Reader, run(main()))
    since = " Since" if phase != "Manual" else " The document says"
    assert f"Rollout {phases.PHASES[phase][2]}{since}" in release.text
    offered = {each.text.split()[2] for each in phases.commands("shop", ROLLOUTS[phase])}
    told = {found["data-copy"].split()[2] for _, found in release.elements if "data-copy" in found}
    assert told == offered, "the recorded ones are what the engine allows"
    assert (phases.PHASES[phase][2] in overview.text) == (phase != "Manual")


def test_a_name_is_one_word_of_a_command() -> None:
    assert phases.commands("a b; rm", ROLLED_BACK)[0].text == "canary-mw release retry 'a b; rm'"


def states_of(state: Rollout) -> list[str]:
    return [each.state for each in view.stages(state)]


def test_the_bar_says_what_is_done_and_where_it_was_taken_back() -> None:
    ahead = ["ahead"] * 4
    assert states_of(ROLLOUTS["Progressing"]) == ["done", "current", *ahead]
    assert states_of(ROLLOUTS["Pending"]) == ["ahead", "ahead", *ahead]
    assert states_of(ROLLED_BACK) == states_of(ROLLOUTS["Aborted"]) == ["done", "fell", *ahead]
    assert states_of(ROLLOUTS["Baking"]) == ["done"] * 5 + ["current"]
    assert states_of(ROLLOUTS["Completed"]) == ["done"] * 6
    assert states_of(ROLLOUTS["Manual"]) == []
    # Where it was is not known, or it was nowhere.
    assert states_of({**ROLLED_BACK, "history": ROLLED_BACK["history"][:1]}) == ["ahead"] * 6
    under = [each.under for each in view.stages(ROLLOUTS["Progressing"])]
    assert under[2] == "10 min at least, until promoted"
    assert under[5] == "30 min, 5 % stay on stable"


def test_a_step_says_how_long_it_has_been() -> None:
    assert phases.progress(ROLLOUTS["Progressing"]) == "7 min 12 s of at least 10 min"
    assert phases.progress({**ROLLOUTS["Progressing"], "pause_seconds": 0.0}) == "7 min 12 s"
    assert phases.progress(ROLLOUTS["Baking"]) == "4 min of 30 min"
    assert phases.progress(ROLLED_BACK) == ""
    img = [found["aria-label"] for tag, found in page(ROLLOUTS["Progressing"]).elements if found.get("role") == "img"]
    assert "This step: 7 min 12 s of at least 10 min" in img


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.4, "0 s"), (12, "12 s"), (432, "7 min 12 s"), (600, "10 min"), (3_900, "1 h 5 min"),
     (3_610, "1 h"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_a_time_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert wording.lasting(seconds) == text


def test_the_evidence_of_each_metric_stands_beside_where_it_is_enough() -> None:
    errors, latency = rows(ROLLOUTS["Progressing"])
    assert errors[:6] == ("error_rate", "", "3 in 520", "29 in 9,900", "×2.0", "0.7")
    assert errors.limit == "rolled back at 100"
    assert (errors.bound, errors.allowed) == ("2.2 % at most", "may be 2.0 % for 25 %; about 50 more requests")
    assert (errors.tone, latency.tone) == ("none", "good")
    assert latency.under == "slower than 180 ms"
    assert rows(ROLLED_BACK)[0].tone == "bad"
    nothing = dict.fromkeys(("gray", "stable", "ratio", "ln_e", "excess_upper"))
    unknown: Any = {**metric("basket", (1, 2), (1, 2)), **nothing}
    held = metric("error_rate", (3, 520), (29, 9_900), variant="b", on_failure="hold", excess_allowed=None)
    first, second = rows(rollout("Progressing", metrics=[unknown, held]))
    assert first[2:6] == ("–", "–", "–", "–")
    assert (second.under, second.limit, second.allowed) == ("b", "held at 100", "")
    assert rows(rollout("Progressing", metrics=[held], mode="advise"))[0].limit == "told at 100"


@pytest.mark.parametrize(
    ("ln_e", "text"), [(-40, "below 0.1"), (0, "1.0"), (LN_NEEDED, "100"), (9.2, "9,897"), (500, "10^217")]
)
def test_evidence_is_a_number_that_people_can_compare(ln_e: float, text: str) -> None:
    assert e_value(ln_e) == text


def test_evidence_over_time_lies_under_the_line_until_it_is_enough() -> None:
    drawn = chart_of(over_time(GOOD), ROLLOUTS["Progressing"])
    assert drawn is not None
    assert drawn.svg.count('class="limit"') == 1
    assert drawn.svg.count("<polyline") == 2
    assert drawn.ys == ["10,000", "100", "1"]
    assert "error_rate is 0.7 now; latency p95 is 2.0 now; gray is rolled back at 100" in drawn.label
    # Metrics that came later have no line before, and looks of any distance lie at their times.
    late: Any = {**over_time(GOOD)[1], "at": [at(1), at(0)], "ln_e": [1.0, 30.0]}
    drawn = chart_of(
        [over_time(GOOD)[0], late], rollout("Held", metrics=[metric("a", (1, 2), (1, 2), on_failure="hold")])
    )
    assert drawn is not None
    assert "gray is held at 100" in drawn.label
    assert drawn.ys[0] == "10^16"
    once: Any = {**late, "at": [at(0)], "ln_e": [1.0]}
    assert chart_of([once], ROLLOUTS["Progressing"]) is None
    assert chart_of([], ROLLOUTS["Progressing"]) is None


def test_what_happened_says_when_why_and_who() -> None:
    shown = page(ROLLOUTS["Aborted"]).text
    assert "14:04:00 Progressing → Aborted 0 % abort by ci from 10.2.0.17" in shown


def test_the_overview_shows_phase_and_step() -> None:
    worse, *others = recorded.OVERVIEW["releases"]
    releases = [{**worse, "rollout": ROLLED_BACK}, *({**each, "rollout": ROLLOUTS["Progressing"]} for each in others)]
    shown = Reader(render("overview", {**recorded.OVERVIEW, "releases": releases}, LOOK))
    assert "Rolled back Gray is worse" in shown.text
    assert "Progressing No difference seen step 3 of 9" in shown.text
    said = [found["data-verdict"] for _, found in shown.elements if "data-verdict" in found]
    assert said[0] == "Rolled back; Gray is worse"


def test_texts_of_others_stay_texts() -> None:
    hostile = rollout(
        "Aborted",
        reason=HOSTILE,
        revision=HOSTILE,
        controller={"name": HOSTILE, "here": False, "pods": None},
        metrics=[metric(HOSTILE, (1, 20), (1, 30), variant=HOSTILE), metric("b", (1, 20), (1, 30))],
        history=[{**each, "who": HOSTILE, "reason": HOSTILE, "address": HOSTILE} for each in ROLLED_BACK["history"]],
    )
    shown = page(hostile, name=HOSTILE)
    assert "\u202e" not in shown.text
    assert HOSTILE.replace("\u202e", "U+202E")[:20] in shown.text.replace(" U+202E ", "U+202E")
    assert {tag for tag, _ in shown.elements} == {tag for tag, _ in page(ROLLOUTS["Aborted"]).elements}
