"""What a tick does in detail: who may raise, what a step waits for, what happens at its timeout, and what is said."""

from dataclasses import replace
from typing import Any

import pytest
from progressive import ANALYSIS, BAD, ERRORS, NOTHING, a_release, shown, with_plan, with_stage

from canary_mw.exceptions import CommandRefused
from canary_mw.rollout.commands import COMMANDS, Command, Who, allowed, command
from canary_mw.rollout.engine import Now, hooks_asked, queries_asked, tick
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.outcome import Outcome
from canary_mw.rollout.queries import Measurement, QueryStanding, Said
from canary_mw.rollout.state import Phase, ReleaseState
from canary_mw.rollout.statistics import Arm
from canary_mw.rules.plan import Analysis, Hook, HookType
from canary_mw.rules.queries.query import Query
from canary_mw.rules.release import GrayRelease

LEADS = Now(controller=True)
# 60 seconds are the pause of a step.
OVER = Now(controller=True, elapsed=61.0)
ONLY_ERRORS = ANALYSIS._replace(metrics=(ERRORS,))
DOCUMENT = a_release(5, 25, 50, analysis=ONLY_ERRORS, holdback=5, bake=100.0)


def with_analysis(document: GrayRelease, **changes: Any) -> GrayRelease:
    for step in range(4):
        document = with_stage(document, step, analysis=ONLY_ERRORS._replace(**changes))
    return document


def state_of(outcome: Outcome) -> ReleaseState:
    assert outcome.state is not None
    return outcome.state


def told(document: GrayRelease, state: ReleaseState, name: str, weight: float | None = None) -> ReleaseState:
    (known,) = (each for each in COMMANDS if each == name)
    return state_of(command(document, state, Command(name=known, weight=weight), Who("me")))


def at_step(document: GrayRelease, step: int = 1) -> ReleaseState:
    """Progressing in a step that has just begun."""
    state = state_of(tick(document, None, None, LEADS))
    for _ in range(step + 1):
        state = told(document, state, "promote")
    return state


PRESENT = at_step(DOCUMENT)


def look(document: GrayRelease = DOCUMENT, evidence: ReleaseEvidence | None = None, now: Now = OVER) -> Outcome:
    return tick(document, at_step(document), shown() if evidence is None else evidence, now)


def summary(outcome: Outcome) -> tuple[str, float]:
    return state_of(outcome).phase, sum((outcome.weights or {}).values())


def test_a_step_waits_for_its_time_then_for_its_evidence() -> None:
    early = tick(DOCUMENT, PRESENT, shown(), replace(LEADS, elapsed=20.0))
    assert early.verdict is not None
    assert early.verdict.text == "the pause has 40 seconds to go"
    late = tick(DOCUMENT, early.state, shown(Arm(0, 300)), replace(LEADS, elapsed=41.0))
    assert late.verdict is not None
    assert late.verdict.text.startswith("the next step could hit more than the margin (gray, error_rate): about 2")
    assert summary(tick(DOCUMENT, late.state, shown(), replace(LEADS, elapsed=1.0))) == ("Progressing", 50)


def test_only_the_controller_raises() -> None:
    for now in (replace(OVER, controller=False), replace(OVER, store="away"), replace(OVER, store="newer")):
        outcome = look(now=now)
        assert summary(outcome) == ("Progressing", 25)
        assert outcome.state == PRESENT
        assert outcome.messages == ()
        assert outcome.verdict is not None
        assert outcome.verdict.kind == "wait"


@pytest.mark.parametrize("now", [LEADS, Now(), Now(store="away"), Now(store="newer"), Now(store="unshared")])
def test_anyone_lowers(now: Now) -> None:
    outcome = look(evidence=BAD, now=now)
    assert summary(outcome) == ("RolledBack", 0)
    assert outcome.off
    assert outcome.messages[0].reason == "gray fails more often (gray, error_rate): 60 keys failed in gray"


def test_who_judges_alone_needs_more() -> None:
    # ln E is 7.5: enough at 1 %, also for one of 10 processes, and too little for one of 10,000.
    evidence = shown(Arm(16, 2000), Arm(8, 6000))
    assert summary(look(evidence=evidence, now=Now(alone_of=10))) == ("RolledBack", 0)
    assert look(evidence=evidence, now=Now(alone_of=10_000)).state == PRESENT


def test_evidence_of_another_attempt_is_dropped() -> None:
    assert look(evidence=replace(BAD, attempt=2)).state != PRESENT
    assert summary(look(evidence=replace(BAD, attempt=2))) == ("Progressing", 25)
    assert summary(look(evidence=shown(attempt=2))) == ("Progressing", 25)


@pytest.mark.parametrize(
    ("store", "phase", "held_by", "reason"),
    [
        ("away", "Pending", "", "the store has not answered"),
        ("newer", "Held", "store", "a newer version has written the state, and only that one may raise"),
        ("unshared", "Held", "store", "no shared store: several pods cannot agree"),
    ],
)
def test_without_a_store_a_release_is_at_weight_0(store: Any, phase: str, held_by: str, reason: str) -> None:
    now = Now(controller=True, store=store)
    first = tick(DOCUMENT, None, None, now)
    state = state_of(first)
    assert (state.phase, state.held_by, state.reason, first.weights) == (phase, held_by, reason, {"gray": 0})
    later = tick(DOCUMENT, state, shown(), replace(now, elapsed=1000.0))
    assert (later.state, later.weights) == (state, {"gray": 0})
    back = tick(DOCUMENT, state, NOTHING, LEADS)
    assert state_of(back).phase == ("Pending" if held_by else "Progressing")


def test_a_release_that_is_not_known_yet_is_at_weight_0_where_another_controls() -> None:
    outcome = tick(DOCUMENT, None, None, Now())
    assert (outcome.state, outcome.weights, outcome.messages) == (None, {"gray": 0}, ())


def test_the_first_attempt_is_above_all_that_figures_have_seen() -> None:
    assert state_of(tick(DOCUMENT, None, None, replace(LEADS, attempts=4))).attempt == 5
    changed = replace(DOCUMENT, revision="2")
    assert state_of(tick(changed, PRESENT, None, replace(LEADS, attempts=4))).attempt == 5


def test_lost_evidence_holds_until_the_gate_opens() -> None:
    held = tick(DOCUMENT, PRESENT, None, OVER)
    assert summary(held) == ("Held", 25)
    assert state_of(held).held_by == "evidence"
    assert tick(DOCUMENT, held.state, None, OVER).messages == ()
    assert summary(tick(DOCUMENT, held.state, NOTHING, OVER)) == ("Held", 25)
    assert summary(tick(DOCUMENT, held.state, shown(), LEADS)) == ("Progressing", 50)


TIMEOUT = replace(LEADS, elapsed=ANALYSIS.timeout)


def test_a_timeout_that_advances_admits_what_it_could_miss() -> None:
    document = with_analysis(DOCUMENT, on_timeout="advance")
    outcome = look(document, shown(Arm(0, 160), Arm(0, 5000)), TIMEOUT)
    assert summary(outcome) == ("Progressing", 50)
    assert outcome.messages[0].reason.startswith("the timeout of 60 minutes is over: the next step could hit more")
    assert outcome.messages[0].reason.endswith("an excess up to 3.5 % would not have been seen")


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (NOTHING, "0 of 20 keys were seen in gray (gray)"),
        (shown(Arm(0, 0), Arm(0, 0)), "the next step could hit more than the margin (gray, error_rate)"),
        (shown(Arm(18, 5000), Arm(8, 5000)), "gray is under suspicion (gray, error_rate)"),
        (shown(Arm(12, 1000), Arm(8, 5000)), "more requests do not help at the present rates"),
    ],
)
def test_a_timeout_does_not_advance_without_evidence_or_against_it(evidence: ReleaseEvidence, text: str) -> None:
    document = with_analysis(DOCUMENT, on_timeout="advance", alpha=1e-8)
    outcome = look(document, evidence, TIMEOUT)
    assert summary(outcome) == ("Held", 25)
    assert text in outcome.messages[0].reason
    assert "would not have been seen" not in outcome.messages[0].reason


@pytest.mark.parametrize(
    "plan", [{"promote": "manual"}, {"hooks": (Hook("confirm-traffic-increase", "http://gate/"),)}]
)
def test_a_timeout_skips_no_hook_and_no_human(plan: dict[str, Any]) -> None:
    document = with_plan(with_analysis(DOCUMENT, on_timeout="advance"), **plan)
    assert summary(look(document, shown(Arm(0, 160), Arm(0, 5000)), TIMEOUT)) == ("Held", 25)


def test_a_human_is_not_timed_out() -> None:
    document = with_plan(DOCUMENT, promote="manual")
    outcome = look(document, shown(), TIMEOUT)
    assert summary(outcome) == ("Progressing", 25)
    assert outcome.verdict is not None
    assert outcome.verdict.text == "the next step waits for promote"
    assert told(document, state_of(outcome), "promote").weight == 50


def test_promote_manual_lets_the_first_step_wait_too() -> None:
    document = with_plan(DOCUMENT, promote="manual")
    pending = tick(document, None, None, LEADS)
    assert summary(tick(document, pending.state, None, OVER)) == ("Pending", 0)


def test_a_timeout_is_not_earlier_than_the_pause() -> None:
    document = with_analysis(DOCUMENT, timeout=10.0)
    assert summary(look(document, NOTHING, replace(LEADS, elapsed=30.0))) == ("Progressing", 25)
    assert summary(look(document, NOTHING, OVER)) == ("Held", 25)


def test_who_resumes_after_a_timeout_gets_the_time_again() -> None:
    held = look(evidence=NOTHING, now=TIMEOUT)
    resumed = told(DOCUMENT, state_of(held), "resume")
    assert resumed.elapsed == 60
    assert summary(tick(DOCUMENT, resumed, NOTHING, OVER)) == ("Progressing", 25)
    assert summary(tick(DOCUMENT, resumed, NOTHING, TIMEOUT)) == ("Held", 25)


def test_an_open_pause_waits_for_a_human_and_then_for_the_evidence() -> None:
    document = with_stage(DOCUMENT, 1, until_promoted=True)
    paused = look(document)
    assert summary(paused) == ("Paused", 25)
    assert tick(document, paused.state, shown(), OVER).state == paused.state
    resumed = told(document, state_of(paused), "resume")
    assert summary(tick(document, resumed, NOTHING, OVER)) == ("Progressing", 25)
    assert summary(tick(document, resumed, shown(), LEADS)) == ("Progressing", 50)
    assert told(document, state_of(paused), "promote").weight == 50


@pytest.mark.parametrize(
    ("weight", "step", "following"), [(2, 0, 5), (5, 0, 25), (10, 1, 25), (25, 1, 50), (60, 3, 95), (99, 3, 95)]
)
def test_resume_goes_on_with_the_first_step_that_is_not_smaller(weight: float, step: int, following: float) -> None:
    paused = told(DOCUMENT, PRESENT, "set-weight", weight)
    assert (paused.phase, paused.weight, paused.step, paused.elapsed) == ("Paused", weight, step, 0)
    resumed = told(DOCUMENT, paused, "resume")
    waiting = tick(DOCUMENT, resumed, NOTHING, OVER)
    assert summary(waiting) == ("Progressing", weight) if weight < 95 else ("Baking", 95)
    assert sum((tick(DOCUMENT, resumed, shown(), OVER).weights or {}).values()) == following


def test_set_weight_opens_an_epoch_and_a_visit() -> None:
    again = told(DOCUMENT, PRESENT, "set-weight", 25)
    assert again.weights == PRESENT.weights
    assert again.visit == PRESENT.visit + 1


def test_several_variants_share_a_weight() -> None:
    document = a_release(20, variants=("blue", "green"))
    state = told(document, state_of(tick(document, None, None, LEADS)), "set-weight", 30)
    assert state.weights == {"blue": 15, "green": 15}


HOOKS: tuple[HookType, ...] = (
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "event",
)


def test_each_hook_is_asked_where_it_belongs() -> None:
    document = with_plan(DOCUMENT, hooks=tuple(Hook(each, "http://gate/") for each in HOOKS))
    plan = document.plan
    assert plan is not None
    pending = state_of(tick(document, None, None, LEADS))
    assert hooks_asked(plan, pending) == ("confirm-rollout", "pre-rollout", "rollback")
    steps = ("rollout", "confirm-traffic-increase")
    assert hooks_asked(plan, at_step(document, 0)) == (*steps, "rollback")
    assert hooks_asked(plan, at_step(document, 2)) == (*steps, "confirm-promotion", "rollback")
    assert hooks_asked(plan, at_step(document, 3)) == ("rollback",)
    assert hooks_asked(plan, told(document, pending, "abort")) == ()
    only_step = with_plan(document, stages=plan.stages[-1:])
    assert only_step.plan is not None
    asked = hooks_asked(only_step.plan, state_of(tick(only_step, None, None, LEADS)))
    assert asked == ("confirm-rollout", "pre-rollout", "confirm-promotion", "rollback")


@pytest.mark.parametrize(
    ("gates", "text"),
    [
        ({}, "the hook rollout has not said yes"),
        ({"rollout": True, "rollback": True}, "the hook confirm-traffic-increase has not said yes"),
        ({"rollout": True, "confirm-traffic-increase": False}, "the hook confirm-traffic-increase has not said yes"),
        ({"rollout": True, "confirm-traffic-increase": True, "rollback": False}, "the hook rollback gives no answer"),
        ({"rollout": True, "confirm-traffic-increase": True, "rollback": True}, ""),
    ],
)
def test_every_hook_of_a_step_has_to_say_yes(gates: dict[str, bool], text: str) -> None:
    document = with_plan(DOCUMENT, hooks=tuple(Hook(each, "http://gate/") for each in HOOKS))
    outcome = look(document, now=replace(OVER, gates=gates))
    assert summary(outcome) == ("Progressing", 25 if text else 50)
    assert outcome.verdict is not None
    assert not text or (outcome.verdict.text, outcome.verdict.waits_for) == (text, "hook")


def test_an_answer_for_a_hook_that_is_not_written_counts_for_nothing() -> None:
    assert summary(look(now=replace(OVER, gates={"rollback": False}))) == ("Progressing", 50)


@pytest.mark.parametrize(
    "document", [DOCUMENT, with_plan(DOCUMENT, on_failure="hold"), with_analysis(DOCUMENT, mode="advise")]
)
@pytest.mark.parametrize("controller", [True, False])
def test_the_word_of_a_rollback_hook_rolls_back_whatever_the_plan_says(document: GrayRelease, controller: bool) -> None:
    outcome = look(document, now=Now(controller=controller, demand="the hook stop says so"))
    assert summary(outcome) == ("RolledBack", 0)
    assert outcome.messages[0].reason == "the hook stop says so"


def test_a_query_rolls_back_or_holds_as_the_plan_says() -> None:
    asked = Query("saturation", "http://prometheus", "up", success="result[0] < 0.8", failure_limit=2)

    def outcome(document: GrayRelease = DOCUMENT, *, failures: int = 3, **changes: Any) -> Outcome:
        standing = QueryStanding(asked._replace(**changes), Measurement("failed", "0.93"), failures)
        return look(document, now=replace(LEADS, queries=[standing]))

    failed = outcome()
    assert summary(failed) == ("RolledBack", 0)
    assert failed.messages[0].reason == "the query saturation failed 3 times, more than 2: 0.93"
    assert summary(outcome(failures=2)) == ("Progressing", 25)
    holding, advising = with_plan(DOCUMENT, on_failure="hold"), with_analysis(DOCUMENT, mode="advise")
    assert summary(outcome(holding)) == ("Held", 25)
    assert summary(outcome(holding, on_failure="rollback")) == ("RolledBack", 0)
    held = outcome(on_failure="hold")
    assert (summary(held), state_of(held).held_by, state_of(held).objection) == (("Held", 25), "metric", "saturation")
    assert summary(outcome(advising)) == ("Progressing", 25)
    assert "would roll back: the query saturation failed" in outcome(advising).messages[0].text


def test_a_step_up_waits_for_each_query_and_nothing_is_taken_back_by_an_answer_that_is_missing() -> None:
    asked = Query("saturation", "http://prometheus", "up", success="result[0] < 0.8")
    document = with_analysis(DOCUMENT, queries=(asked,))

    def outcome(said: Said | None, document: GrayRelease = document, **changes: Any) -> tuple[str, float, str]:
        last = None if said is None else Measurement(said, "TEXT")
        found = look(document, now=replace(OVER, queries=[QueryStanding(asked, last)], **changes))
        assert found.verdict is not None
        return *summary(found), found.verdict.text

    assert outcome("successful")[:2] == ("Progressing", 50)
    for said, text in {
        None: "the query saturation was not answered yet",
        "unanswered": "the query saturation has no answer: TEXT",
        "failed": "the query saturation fails: TEXT",
        "inconclusive": "the query saturation is neither a success nor a failure: TEXT",
    }.items():
        assert outcome(said) == ("Progressing", 25, text)  # type: ignore[arg-type]
    # A step that takes too long waits for a human; nothing is advanced without its answer.
    late = with_analysis(document, queries=(asked,), timeout=60.0, on_timeout="advance")
    assert outcome("unanswered", late)[:2] == ("Held", 25)
    assert outcome("unanswered", with_analysis(document, queries=(asked,), mode="advise"))[:2] == ("Progressing", 50)
    # Who promotes skips it.
    assert told(document, PRESENT, "promote").weight == 50
    # The answers of an earlier step, or to another query, are none.
    other = QueryStanding(asked._replace(text="down"), Measurement("successful", "1"))
    assert summary(look(document, now=replace(OVER, queries=[other]))) == ("Progressing", 25)


def test_queries_are_asked_from_the_first_weight_to_the_end() -> None:
    asked = Query("saturation", "http://prometheus", "up", success="result[0] < 0.8")
    document = with_analysis(DOCUMENT, queries=(asked,))
    assert document.plan is not None
    phases: list[tuple[Phase, float, tuple[Query, ...]]] = [
        ("Pending", 0.0, ()),
        ("Progressing", 25.0, (asked,)),
        ("Paused", 25.0, (asked,)),
        ("Held", 25.0, (asked,)),
        ("Baking", 95.0, (asked,)),
        ("Completed", 100.0, ()),
        ("RolledBack", 0.0, ()),
        ("Aborted", 0.0, ()),
    ]
    for phase, weight, expected in phases:
        state = replace(PRESENT, phase=phase, weights={"gray": weight})
        assert queries_asked(document.plan, state) == expected


def test_a_metric_that_holds_waits_for_a_human_who_may_overrule_it() -> None:
    document = with_plan(DOCUMENT, on_failure="hold")
    held = look(document, BAD)
    assert (state_of(held).held_by, state_of(held).objection) == ("metric", "error_rate")
    assert tick(document, held.state, BAD, OVER).messages == ()
    resumed = told(document, state_of(held), "resume")
    assert summary(tick(document, resumed, BAD, OVER)) == ("Progressing", 25)
    promoted = told(document, state_of(held), "promote")
    assert (promoted.weight, promoted.overruled) == (50, ())


def test_alpha_only_gets_smaller_within_an_attempt() -> None:
    evidence = shown(Arm(16, 2000), Arm(8, 6000))
    strict = with_analysis(DOCUMENT, alpha=1e-6)
    state = state_of(tick(strict, PRESENT, NOTHING, LEADS))
    assert state.alpha == 1e-6
    assert summary(tick(DOCUMENT, state, evidence, LEADS)) == ("Progressing", 25)
    assert summary(tick(DOCUMENT, PRESENT, evidence, LEADS)) == ("RolledBack", 0)
    again = told(DOCUMENT, told(DOCUMENT, state, "abort"), "retry")
    assert again.alpha == 1


def test_advice_is_given_once_and_does_not_raise() -> None:
    document = with_analysis(DOCUMENT, mode="advise")
    first = look(document, BAD)
    assert [each.kind for each in first.messages] == ["advice"]
    assert "advice only, nothing is done: the analysis would roll back: gray fails more often" in first.messages[0].text
    later = tick(document, first.state, BAD, TIMEOUT)
    assert later.messages == ()
    assert summary(later) == ("Progressing", 25)


def test_what_is_advised_names_variant_and_metric_once() -> None:
    verdict = look(with_analysis(DOCUMENT, mode="advise"), BAD).verdict
    assert verdict is not None
    assert verdict.text.count(verdict.metric) == 1


def test_with_advice_alone_steps_go_by_time() -> None:
    assert summary(look(with_analysis(DOCUMENT, mode="advise"), NOTHING)) == ("Progressing", 50)


def test_without_an_analysis_steps_go_by_time() -> None:
    document = a_release(5, 25, 50, analysis=None)
    assert summary(tick(document, at_step(document), None, replace(LEADS, elapsed=59.0))) == ("Progressing", 25)
    assert summary(tick(document, at_step(document), None, OVER)) == ("Progressing", 50)


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (shown(), "promote or resume goes on: nothing else keeps from the next step"),
        (NOTHING, "promote or resume goes on; before a step by itself: 0 of 20 keys were seen in gray (gray)"),
    ],
)
def test_where_a_human_is_asked_it_is_said_how_safe_the_next_step_is(evidence: ReleaseEvidence, text: str) -> None:
    paused = replace(told(DOCUMENT, PRESENT, "pause"), elapsed=60.0)
    outcome = tick(DOCUMENT, paused, evidence, LEADS)
    assert outcome.verdict is not None
    assert (outcome.verdict.kind, outcome.verdict.text) == ("wait", text)


def test_a_metric_that_the_figures_do_not_have_lets_a_step_wait() -> None:
    document = with_analysis(DOCUMENT, metrics=(ERRORS, ERRORS._replace(name="checkout_failed", kind="event")))
    outcome = look(document)
    assert outcome.verdict is not None
    assert outcome.verdict.text == "there is no evidence of this step (gray, checkout_failed)"


def test_how_a_metric_is_judged_follows_from_the_document() -> None:
    strict = with_analysis(DOCUMENT, metrics=(ERRORS._replace(margin=0.0001),))
    assert summary(look(strict)) == ("Progressing", 25)
    tolerant = with_analysis(DOCUMENT, metrics=(ERRORS._replace(tolerated=50.0),))
    assert summary(look(tolerant, BAD)) != ("RolledBack", 0)


def test_the_step_to_the_last_stage_is_safe_for_all_users() -> None:
    """The bake ends with everybody, so what the step could hit is not only of those who come with it."""
    state = at_step(DOCUMENT, 2)
    # 1,115 are needed for 100 percent, and fewer for 95.
    assert summary(tick(DOCUMENT, state, shown(Arm(0, 1110)), OVER)) == ("Progressing", 50)
    assert summary(tick(DOCUMENT, state, shown(Arm(0, 1120)), OVER)) == ("Baking", 95)


def test_baking_ends_by_its_time_unless_nobody_came_or_gray_is_under_suspicion() -> None:
    baking = told_full(PRESENT)
    few, over = shown(Arm(0, 40), Arm(0, 2)), replace(LEADS, elapsed=100.0)
    assert summary(tick(DOCUMENT, baking, few, replace(LEADS, elapsed=99.0))) == ("Baking", 95)
    assert summary(tick(DOCUMENT, baking, NOTHING, over)) == ("Baking", 95)
    suspicious = tick(DOCUMENT, baking, shown(Arm(14, 5000), Arm(12, 5000)), over)
    assert summary(suspicious) == ("Baking", 95)
    assert suspicious.verdict is not None
    assert suspicious.verdict.waits_for == "suspicion"
    assert summary(tick(DOCUMENT, baking, few, over)) == ("Completed", 100)


def test_without_a_holdback_the_bake_goes_by_time() -> None:
    document = a_release(50, analysis=ONLY_ERRORS, bake=10.0)
    baking = state_of(command(document, at_step(document, 0), Command(name="promote", full=True), Who("me")))
    assert summary(tick(document, baking, NOTHING, replace(LEADS, elapsed=11.0))) == ("Completed", 100)


def told_full(state: ReleaseState) -> ReleaseState:
    return state_of(command(DOCUMENT, state, Command(name="promote", full=True), Who("me")))


def test_a_bake_that_was_paused_goes_on() -> None:
    baking = state_of(tick(DOCUMENT, told_full(PRESENT), NOTHING, replace(LEADS, elapsed=60.0)))
    paused = told(DOCUMENT, baking, "pause")
    assert told(DOCUMENT, paused, "promote").phase == "Completed"
    going = tick(DOCUMENT, told(DOCUMENT, paused, "resume"), NOTHING, LEADS)
    assert (state_of(going).phase, state_of(going).baked) == ("Baking", 60)


def test_a_disabled_release_stands_still() -> None:
    off = replace(DOCUMENT, enabled=False)
    outcome = tick(off, PRESENT, BAD, OVER)
    assert (outcome.state, outcome.weights, outcome.messages) == (PRESENT, {"gray": 0}, ())
    assert command(off, PRESENT, Command(name="promote"), Who("me")).weights == {"gray": 0}
    assert summary(tick(DOCUMENT, outcome.state, NOTHING, LEADS)) == ("Progressing", 25)


def test_where_another_controls_something_new_is_at_weight_0_at_once() -> None:
    outcome = tick(replace(DOCUMENT, revision="2"), PRESENT, shown(), Now())
    assert (outcome.state, outcome.weights) == (PRESENT, {"gray": 0})


@pytest.mark.parametrize("change", [{"revision": "2"}, {"stable": ("other",)}])
@pytest.mark.parametrize("latched", [False, True])
def test_only_what_lowers_or_pauses_is_taken_where_the_rules_release_something_else(change: Any, latched: bool) -> None:
    """The state is that of rules that are in force in other processes, and whose steps are others."""
    state = told(DOCUMENT, PRESENT, "abort") if latched else PRESENT
    assert set(allowed(replace(DOCUMENT, **change), state)) == ({"abort"} if latched else {"abort", "undo", "pause"})
    wanted = Command(name="retry" if latched else "set-weight", weight=50.0)
    with pytest.raises(CommandRefused, match=r"which these rules do not release.*until all have the same"):
        command(replace(DOCUMENT, **change), state, wanted, Who("me"))


def test_the_subject_may_be_given() -> None:
    """It also covers what the document alone does not say, as the requests that its Mappings match."""
    state = state_of(tick(DOCUMENT, None, None, replace(LEADS, subject="one")))
    assert state_of(tick(DOCUMENT, state, None, replace(LEADS, subject="one"))).attempt == 1
    assert state_of(tick(DOCUMENT, state, None, replace(LEADS, subject="two"))).attempt == 2


def test_a_release_without_steps_takes_abort_and_retry_alone() -> None:
    document = replace(DOCUMENT, plan=None)
    assert tick(document, None, None, LEADS) == Outcome()
    assert allowed(document, None) == ("abort",)
    aborted = command(document, None, Command(name="abort"), Who("me"))
    assert (state_of(aborted).phase, aborted.weights, aborted.off) == ("Aborted", {"gray": 0}, True)
    assert allowed(document, aborted.state) == ("abort", "retry")
    again = command(document, aborted.state, Command(name="retry"), Who("me"))
    assert (state_of(again).phase, again.weights, state_of(again).attempt) == ("Manual", None, 2)
    assert tick(document, again.state, None, LEADS).messages == ()


@pytest.mark.parametrize("taken_back", [False, True])
def test_where_pods_share_the_state_an_older_revision_begins_no_other_attempt(taken_back: bool) -> None:
    older, newer = (replace(DOCUMENT, revision=each) for each in ("1", "2"))
    pods = replace(LEADS, shared=True)
    state = state_of(tick(older, None, None, pods))
    state = state_of(tick(newer, state, None, pods))
    assert (state.attempt, state.revision) == (2, "2")
    if taken_back:
        state = told(newer, state, "abort")
    # A pod whose documents are older leads.
    outcome = tick(older, state, shown(), pods)
    assert (outcome.state, sum((outcome.weights or {}).values())) == (state, 0.0)
    assert outcome.off == taken_back
    # What is newer than all begins; on one host all read the same documents, and an older one is meant.
    assert state_of(tick(replace(DOCUMENT, revision="3"), state, None, pods)).attempt == 3
    assert state_of(tick(older, state, None, LEADS)).attempt == 3


def test_another_revision_leads_a_release_without_steps_out_of_a_latch_and_another_edit_does_not() -> None:
    document = replace(DOCUMENT, plan=None)
    aborted = command(document, None, Command(name="abort"), Who("me")).state
    assert tick(replace(document, stable=("other",)), aborted, None, LEADS).off
    assert not tick(replace(document, revision="2"), aborted, None, LEADS).off
    assert tick(replace(document, revision="2"), aborted, None, Now()).off


def test_steps_may_come_and_go() -> None:
    without = replace(DOCUMENT, plan=None)
    manual = tick(without, PRESENT, shown(), LEADS)
    assert (state_of(manual).phase, manual.weights) == ("Manual", None)
    back = tick(DOCUMENT, manual.state, shown(), LEADS)
    assert (summary(back), state_of(back).attempt) == (("Pending", 0), 2)
    latched = told(DOCUMENT, PRESENT, "abort")
    assert tick(without, latched, shown(), LEADS).off


def test_a_plan_that_gets_shorter_is_held() -> None:
    plan = DOCUMENT.plan
    assert plan is not None
    state = at_step(DOCUMENT, 2)
    shorter = with_plan(DOCUMENT, stages=(plan.stages[0], plan.stages[3]))
    held = tick(shorter, state, shown(), LEADS)
    assert summary(held) == ("Held", 50)
    assert told(shorter, state_of(held), "promote").phase == "Baking"
    assert told(shorter, state_of(held), "resume").weight == 50


def test_a_plan_that_is_changed_back_still_waits_for_a_human() -> None:
    held = tick(with_stage(DOCUMENT, 0, pause=7.0), PRESENT, shown(), LEADS)
    assert summary(tick(DOCUMENT, held.state, shown(), OVER)) == ("Held", 25)


@pytest.mark.parametrize("analysis", [None, Analysis((ERRORS,))])
def test_a_new_analysis_is_taken_over(analysis: Analysis | None) -> None:
    changed = with_stage(DOCUMENT, 1, analysis=analysis)
    outcome = tick(changed, PRESENT, shown(), LEADS)
    assert summary(outcome) == ("Progressing", 25)


def test_time_that_goes_back_counts_nothing() -> None:
    state = state_of(tick(DOCUMENT, PRESENT, NOTHING, replace(LEADS, elapsed=-5.0)))
    assert state.elapsed == 0


def test_every_change_is_in_the_history_with_who_and_where() -> None:
    outcome = command(DOCUMENT, PRESENT, Command(name="set-weight", weight=7.5), Who("ops", "192.0.2.7", 12.0))
    last = state_of(outcome).history[-1]
    assert last._asdict() == {
        "at": 12.0,
        "before": "Progressing",
        "after": "Paused",
        "step": 1,
        "weights": {"gray": 7.5},
        "reason": "the command set-weight 7.5",
        "who": "ops",
        "address": "192.0.2.7",
    }
    (message,) = outcome.messages
    assert message.text == (
        "Release release goes from Progressing to Paused, gray from 25 % to 7.5 % by ops: the command set-weight 7.5."
    )
