"""What `canary-mw release get`, `list` and `history` show."""

import re
from typing import Any

import pytest
from admin_examples import HOSTILE
from rollout_examples import NAME, PROGRESSING, ROLLED_BACK, answer, change, listed, metric, phase, step

from canary_mw.admin.models.rollout import Rollout
from canary_mw.cli.release.history import history_lines, list_lines
from canary_mw.cli.release.view import view
from canary_mw.cli.release.words import PHASES, time_of
from canary_mw.cli.terminal import width
from canary_mw.cli.top.view import plain
from canary_mw.rollout.state import PHASES as ALL_PHASES


def shown(rollout: Rollout | None, columns: int = 120, **changes: Any) -> list[str]:
    return plain(view(answer(rollout, **changes), columns)).splitlines()


def test_a_release_under_way_is_shown_with_evidence_and_what_is_missing() -> None:
    assert shown(PROGRESSING) == [
        "Name:         svc-2026-11   (revision 1.4.2, attempt 1)",
        "Status:       ◌ Progressing   step 3/9, weight 5 %, 7m12s of at least 10m",
        "Controller:   pod svc-7d9f-x2, 4 of 4 workers reporting",
        "METRIC       GRAY       STABLE        RATIO  EVIDENCE           STEP UP",
        "error_rate   3 in 520   29 in 9,900   ×2.0   0.7 (needs 99.98)  excess ≤ 2.2 %, needs ≤ 2.0 % at 25 %",
        "latency p95  31 in 480  402 in 9,500  ×1.5   2.0 (needs 99.98)  excess ≤ 7.7 %, needs ≤ 8.0 % at 25 %: ok",
        "Next:         about 50 more requests in gray (1 minute at the present rate)",
        "Commands:     promote, abort, undo, pause, set-weight",
        "STEP  1 ✔ 1 % 10m  2 ● 5 % 10m  3 ○ 25 % then pause  4 ○ 50 %  5 ○ 100 %, bake 30m",
    ]


def test_the_pod_that_raises_knows_how_many_pods_report() -> None:
    for newest, text in ((2.2, "2 of 3 pods reporting (newest 2 s ago)"), (None, "2 of 3 pods reporting")):
        pods: Any = {"reporting": 2, "known": 3, "newest_seconds": newest}
        rollout = phase("Progressing", controller={"name": "pod svc-7d9f-x2", "here": True, "pods": pods})
        assert f"Controller:   pod svc-7d9f-x2, {text}" in shown(rollout)


def test_a_release_that_was_taken_back_says_why_and_what_leads_out() -> None:
    lines = shown(ROLLED_BACK)
    assert lines[1:3] == [
        "Status:       ✖ RolledBack   step 3/9, weight 0 %",
        "Reason:       gray fails more often (error_rate)",
    ]
    assert "Next:         retry begins anew, and so does another revision" in lines
    assert "Commands:     abort, retry" in lines


@pytest.mark.parametrize("name", ALL_PHASES)
def test_each_phase_has_a_sign(name: str) -> None:
    assert name in PHASES
    assert f"{PHASES[name][0]} {name}" in shown(phase(name))[1]


def test_baking_and_releases_without_steps_have_clocks_of_their_own() -> None:
    baking = phase("Baking", baked_seconds=90.0, weight=100.0)
    assert shown(baking)[1] == "Status:       ◌ Baking   step 3/9, weight 100 %, 1m30s of 30m"
    manual = phase("Manual", item=0, items=0, steps=[], metrics=[], commands=["abort"], revision=None)
    assert shown(manual) == [
        "Name:         svc-2026-11   (attempt 1)",
        "Status:       – Manual",
        "Controller:   pod svc-7d9f-x2, 4 of 4 workers reporting",
        "Commands:     abort",
    ]


def test_what_is_not_known_is_a_dash() -> None:
    unknown = metric("error_rate", (1, 1), (1, 1), gray=None, stable=None, ratio=None, ln_e=None, excess_upper=None)
    line = shown(phase("Progressing", metrics=[unknown]))[4]
    assert line.split() == ["error_rate", "–", "–", "–", "–", "–"]
    needed: Any = {**PROGRESSING["next"], "needed": 50}
    silent = shown(phase("Progressing", next=needed), variants={})
    assert "Next:         about 50 more requests in gray" in silent


def test_several_gray_variants_stand_one_below_the_other() -> None:
    rows = [metric("error_rate", (3, 520), (29, 9900), variant=name) for name in ("a", "b")]
    lines = shown(phase("Progressing", metrics=rows))
    assert [lines.index("a:") + 1, lines.index("b:") + 1] == [5, 7]


def test_much_evidence_is_a_number_that_can_be_read() -> None:
    rows = [metric("error_rate", (3, 5), (2, 9), ln_e=each) for each in (5.0, 40.0)]
    assert [line.split()[8:10] for line in shown(phase("Held", metrics=rows))[4:6]] == [
        ["148", "(needs"],
        [">", "1,000,000"],
    ]


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_steps_are_broken_into_lines(columns: int) -> None:
    steps = [step(2 * number + 1, float(number), "ahead") for number in range(20)]
    lines = shown(phase("Progressing", steps=steps), columns)
    begin = next(number for number, line in enumerate(lines) if line.startswith("STEP"))
    assert all(width(line) <= columns for line in lines[begin:])
    assert len(re.findall("○", "".join(lines[begin:]))) == 20


def test_what_keeps_the_state_from_being_written_is_shown() -> None:
    lines = shown(phase("Held", findings=["all releases are stopped: everybody gets stable"]))
    assert lines[2] == "Problem:      all releases are stopped: everybody gets stable"


def test_nothing_is_made_up_where_nothing_drives_a_release() -> None:
    lines = shown(None)
    assert lines[1] == "Status:       – nothing raises it by itself"
    assert lines[2].startswith("Weights:      stable 80 %")


def test_a_list_has_a_line_for_each_release() -> None:
    manual = phase("Manual", item=0, items=0, weight=0.0, weights={})
    lines = plain(
        list_lines([listed("a", PROGRESSING), listed("b", None), listed("c", ROLLED_BACK), listed("d", manual)])
    )
    assert lines.splitlines() == [
        "NAME  PHASE          STEP  WEIGHT  ATTEMPT  REASON",
        "a     ◌ Progressing  3/9   5 %     1",
        "b     –                    20 %             nothing raises it by itself",
        "c     ✖ RolledBack   3/9   0 %     1        gray fails more often (error_rate)",
        "d     – Manual             20 %    1",
    ]


def test_a_history_ends_with_the_newest_and_says_who_it_was() -> None:
    assert plain(history_lines(PROGRESSING)).splitlines() == [
        "TIME                      PHASE                  STEP  WEIGHT  BY                        REASON",
        "2026-11-27T13:49:40.000Z  Pending                      0 %                               the release is new",
        "2026-11-27T13:49:48.000Z  Pending → Progressing  1     1 %     operate, line 1 10.0.0.9  promoted",
        "2026-11-27T13:59:48.000Z  Progressing            3     5 %                               it keeps the margin",
    ]


def test_names_of_others_move_nothing_on_the_terminal() -> None:
    hostile = f"\x1b[2J{HOSTILE}\n\r\u202e"
    past = change("2026-11-27T13:49:40.000Z", "", "Pending", 0, 0.0, hostile, hostile)
    rollout = phase(
        "Held",
        reason=hostile,
        revision=hostile,
        controller={"name": hostile, "here": False},
        metrics=[metric(hostile, (3, 5), (2, 9), variant=each) for each in (hostile, "b")],
        next={"verdict": "wait", "text": hostile, "weight": None, "needed": None},
        history=[past],
    )
    lines = [*view(answer(rollout, name=hostile)), *history_lines(rollout), *list_lines([listed(hostile, rollout)])]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", plain(lines))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (600, "10m"),
        (432, "7m12s"),
        (5400, "1h30m"),
        (3600, "1h"),
        (90061, "1d1h"),
        (86460, "1d"),
    ],
)
def test_times_have_two_units_at_most(seconds: float, text: str) -> None:
    assert time_of(seconds) == text


def test_the_name_of_the_example_is_that_of_the_answer() -> None:
    assert answer(PROGRESSING)["name"] == NAME
