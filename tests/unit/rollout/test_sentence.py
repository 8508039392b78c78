"""The sentence about a release, word for word."""

from typing import Any

import pytest

from canary_mw.rollout.findings import Findings, find
from canary_mw.rollout.sentence import (
    STATES,
    ArmFigures,
    Sentence,
    State,
    VariantFigures,
    most_urgent,
    seconds_until_same,
    sentence,
    state_words,
)

NOTHING = find([])
GRAY = ArmFigures(requests=12_480, errors=392, p95=0.127, p99=0.31)
STABLE = ArmFigures(requests=49_870, errors=204, p95=0.118, p99=0.29)
EVEN = ArmFigures(requests=12_480, errors=51, p95=0.118, p99=0.29)


def found(*flags: State) -> Findings:
    return NOTHING._replace(
        worse="worse" in flags, slower="slower" in flags, better="better" in flags, split_off="split_off" in flags
    )


def text(gray: ArmFigures = GRAY, stable: ArmFigures = STABLE, **more: Any) -> str:
    values = {"findings": NOTHING, "percent": 20.0, "seconds": 300.0, **more}
    return sentence(VariantFigures(gray=gray, stable=stable, **values)).text


WORSE = "Gray fails more often: 3.1 % of its requests against 0.4 %. Very unlikely to be chance."


def test_worse() -> None:
    assert text(findings=found("worse")) == WORSE
    began = text(findings=found("worse"), began=(20.0, "13:41"), stepped_in=291)
    assert began == (
        f"{WORSE} It began with the step to 20 % at 13:41."
        " Stable stepped in for 291 of the 392 failures, so clients saw 101."
    )


def test_the_bold_part_ends_with_the_figures() -> None:
    said = sentence(VariantFigures(gray=GRAY, stable=STABLE, findings=found("worse"), percent=20))
    assert said == Sentence(
        "worse",
        "Gray fails more often: 3.1 % of its requests against 0.4 %.",
        "Very unlikely to be chance.",
    )


def test_worse_where_the_window_does_not_show_it() -> None:
    quiet = ArmFigures(requests=1000, errors=0)
    assert text(quiet, findings=found("worse")) == (
        "Gray fails more often. Very unlikely to be chance. In this window: 0.0 % of its requests against 0.4 %."
    )


def test_slower() -> None:
    gray = ArmFigures(requests=2090, errors=6, p95=0.212, p99=0.4)
    stable = ArmFigures(requests=38_930, errors=117, p95=0.148, p99=0.3)
    assert text(gray, stable, findings=found("slower")) == (
        "Gray is slower: 95 of 100 answers take up to 212 ms, against 148 ms."
        " It does not fail more often: 0.29 % against 0.30 %."
    )


def test_slower_in_the_slowest_answers_only() -> None:
    gray, stable = ArmFigures(requests=9000, p95=0.148, p99=1.9), ArmFigures(requests=9000, p95=0.148, p99=0.3)
    assert text(gray, stable, findings=found("slower")).startswith(
        "Gray is slower: 99 of 100 answers take up to 1.9 s, against 300 ms."
    )


def test_slower_where_the_window_does_not_show_it() -> None:
    assert text(EVEN, findings=found("slower")) == (
        "Gray is slower. In this window the times do not show it. It does not fail more often: 0.41 % against 0.41 %."
    )
    assert text(ArmFigures(), STABLE, findings=found("slower")).startswith("Gray is slower. In this window")


def test_slower_and_perhaps_failing_more_often_too() -> None:
    gray = ArmFigures(requests=12_480, errors=392, p95=0.212)
    assert text(gray, findings=found("slower")) == (
        "Gray is slower: 95 of 100 answers take up to 212 ms, against 118 ms."
        " It may fail more often, too: 3.1 % against 0.4 %."
    )


def test_better() -> None:
    assert text(STABLE, GRAY, findings=found("better")) == (
        "Gray fails less often: 0.4 % of its requests against 3.1 %. Very unlikely to be chance."
    )


def test_split_off() -> None:
    reasons = {"sticky": 3000, "new": 120}
    assert text(EVEN, findings=found("split_off"), seen_percent=31.2, reasons=reasons) == (
        "Gray gets 31 % instead of 20 %. Most of it by the sticky key."
    )
    assert text(EVEN, findings=found("split_off"), seen_percent=1.04, percent=0.5) == (
        "Gray gets 1 % instead of 0.5 %."
    )


def test_same() -> None:
    assert text(EVEN) == "No difference seen. In errors it lies between −0.1 and +0.1 points."
    assert text(EVEN, findings=None).startswith("No difference seen.")


def test_same_is_half_a_point_or_half_of_the_rate_of_stable() -> None:
    often = ArmFigures(requests=1000, errors=200)
    assert text(often, often).startswith("No difference seen.")
    assert text(ArmFigures(requests=1000), ArmFigures(requests=1000)).startswith("No difference seen.")
    seldom = ArmFigures(requests=1000, errors=3)
    assert text(seldom, seldom).startswith("Not enough yet: 1,000 gray requests.")


def test_not_enough() -> None:
    few, many = ArmFigures(requests=41), ArmFigures(requests=410, errors=2)
    assert text(few, many) == "Not enough yet: 41 gray requests. At this rate about 3 hours more."
    assert text(ArmFigures(requests=1), many).startswith("Not enough yet: 1 gray request. At this rate")
    assert text(ArmFigures(), many) == "Not enough yet: 0 gray requests."


def test_the_time_that_is_still_needed_is_enough() -> None:
    few, many = ArmFigures(requests=100), ArmFigures(requests=400)
    figures = VariantFigures(gray=few, stable=many, percent=20, seconds=60)
    wait = seconds_until_same(figures)
    assert wait is not None
    later = 1 + wait / 60
    then_gray, then_stable = ArmFigures(requests=round(100 * later)), ArmFigures(requests=round(400 * later))
    assert text(then_gray, then_stable).startswith("No difference seen.")


@pytest.mark.parametrize("more", [{"percent": 0.0}, {"seconds": 0.0}])
def test_no_time_is_promised_where_nothing_comes(more: dict[str, float]) -> None:
    assert text(ArmFigures(requests=41), STABLE, **more) == "Not enough yet: 41 gray requests."


def test_no_time_is_promised_where_gray_does_not_look_the_same() -> None:
    assert text(ArmFigures(requests=100, errors=8), STABLE) == "Not enough yet: 100 gray requests."


def test_off() -> None:
    gone = ArmFigures()
    assert text(gone, percent=0.0, last_gray="13:42") == "Off: gray's weight is 0. No gray request since 13:42."
    assert text(gone, percent=0.0) == "Off: gray's weight is 0. No gray request yet."
    back = text(gone, percent=0.0, last_gray="13:42", rolled_back=("13:42", "gray failed more often."))
    assert back == (
        "Off: gray's weight is 0. No gray request since 13:42. Rolled back at 13:42: gray failed more often."
    )


def test_off_is_said_when_the_last_gray_request_has_left_the_window() -> None:
    assert text(findings=found("worse"), percent=0.0) == WORSE
    assert text(ArmFigures(), findings=found("worse"), percent=0.0).startswith("Off:")


def test_a_name_stands_for_gray() -> None:
    assert text(findings=found("worse"), name="v2").startswith("v2 fails more often: 3.1 %")
    assert text(ArmFigures(requests=41), name="svc-gray").startswith("Not enough yet: 41 svc-gray requests.")
    assert text(ArmFigures(), percent=0.0, name=r"\1gray").startswith(r"Off: \1gray's weight is 0.")


def test_the_state_of_several_variants_is_the_worst() -> None:
    said = [Sentence(state, state) for state in reversed(STATES)]
    assert most_urgent(said).state == "worse"
    assert most_urgent(said[:2]).state == "same"


def test_the_first_state_that_holds_is_said() -> None:
    states: list[State] = ["worse", "slower", "better", "split_off"]
    for index, state in enumerate(states):
        figures = VariantFigures(gray=GRAY, stable=STABLE, findings=found(*states[index:]), percent=20)
        assert sentence(figures).state == state


def test_states_have_words() -> None:
    assert [state_words(state) for state in STATES] == [
        "Gray is worse",
        "Gray is slower",
        "Split is off",
        "Not enough yet",
        "Gray is better",
        "No difference seen",
        "Off",
    ]
    assert state_words("worse", "v2") == "v2 is worse"
