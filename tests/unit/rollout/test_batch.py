"""The lines of `canary-mw evidence --batch`: good ones are recorded, bad ones say what is wrong and where."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from canary_mw.cli.main import main
from canary_mw.rollout.batch.answers import answer, answer_line
from canary_mw.rollout.key_sample import FAILED_CAP

EPOCH = {"weight": 0.1, "gray": 30, "stable": 90}
STREAM: dict[str, Any] = {"kind": "streams", "weights": [0.1]}
EVENT = {"epoch": 0, "key": "ff", "variant": "gray", "failed": True}
PROMOTION = {
    "kind": "promotion",
    "gray_first_failures": 0,
    "gray_exposures": 100,
    "stable_first_failures": 0,
    "stable_exposures": 900,
    "gray_keys": 42,
    "next_weight": 0.25,
}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{", "the line is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "the line is no JSON object"),
        ('{"epochs": []}', "kind is None"),
        ('{"kind": ["attribution"]}', "kind is ['attribution']"),
        ('{"kind": "transition"}', "use one of attribution, combined"),
        ('{"kind": "attribution"}', "epochs is missing"),
        ('{"kind": "attribution", "epochs": {}}', "epochs must be a list"),
        ('{"kind": "attribution", "epochs": [1]}', "epochs[0] must be an object"),
        ('{"kind": "attribution", "epochs": [{"weight": 0.1, "gray": 1}]}', "epochs[0].stable is missing"),
        (json.dumps({"kind": "attribution", "epochs": [EPOCH, {**EPOCH, "weight": 10}]}), "epochs[1].weight must be"),
        (json.dumps({"kind": "attribution", "epochs": [{**EPOCH, "weight": True}]}), "not True"),
        ('{"kind": "attribution", "epochs": [{"weight": NaN, "gray": 1, "stable": 1}]}', "not nan"),
        (json.dumps({"kind": "attribution", "epochs": [{**EPOCH, "gray": 1.5}]}), "gray must be a whole number"),
        (json.dumps({"kind": "attribution", "epochs": [{**EPOCH, "gray": -1}]}), "from 0 on, not -1"),
        (json.dumps({"kind": "attribution", "epochs": [{**EPOCH, "gray": 10**400}]}), "gray must be a whole number"),
        (json.dumps({"kind": "attribution", "epochs": [], "tolerated": 0}), "tolerated must be a number"),
        (json.dumps({"kind": "attribution", "epochs": [], "direction": "down"}), "increase or decrease, not 'down'"),
        ('{"kind": "combined", "ln_e": []}', "with one metric at least"),
        ('{"kind": "combined", "ln_e": [1, 2], "shares": [1]}', "lists of one length"),
        ('{"kind": "combined", "ln_e": [1e999]}', "ln_e[0] must be a number"),
        ('{"kind": "poisson_bounds", "events": 3, "beta": 1}', "beta must be a number"),
        (json.dumps({**PROMOTION, "next_weight": 25}), "next_weight must be a number from 0 to 1, not 25"),
        ('{"kind": "thinning", "keys": ["x"]}', "keys[0] must be a key of up to 16 hexadecimal digits"),
        ('{"kind": "thinning", "keys": [7]}', "keys[0] must be a key"),
        ('{"kind": "thinning", "keys": ["10000000000000000"]}', "keys[0] must be a key"),
        ('{"kind": "thinning", "keys": [], "cap": 0}', "cap must be a whole number from 1 on"),
        ('{"kind": "threshold", "first_latencies": [], "quantile": 0.5}', "one number at least"),
        (json.dumps({**STREAM, "events": [{**EVENT, "epoch": 1}]}), "events[0].epoch is 1, and there are 1 weights"),
        (json.dumps({**STREAM, "events": [{**EVENT, "failed": 1}]}), "events[0].failed must be true or false"),
        (json.dumps({**STREAM, "events": [{**EVENT, "variant": "v2"}]}), "stable or gray, not 'v2'"),
    ],
)
def test_a_bad_line_says_what_is_wrong(line: str, text: str) -> None:
    answered = answer_line(7, line.encode())
    assert answered["line"] == 7
    assert text in answered["error"]


def test_a_line_that_is_not_utf_8_is_named() -> None:
    assert "not UTF-8 at byte 0" in answer_line(1, b"\xff")["error"]


def test_a_bad_line_costs_only_itself() -> None:
    good = json.dumps({"kind": "poisson_bounds", "events": 0, "beta": 0.025})
    outcome = CliRunner().invoke(main, ["evidence", "--batch"], input=f"{good}\n\nbad\n{good}\n")
    first, bad, last = map(json.loads, outcome.stdout.splitlines())
    assert outcome.exit_code == 1
    assert first == last
    assert bad["line"] == 3
    assert CliRunner().invoke(main, ["evidence", "--batch"], input=good).exit_code == 0


def test_without_batch_the_command_says_how_it_is_used() -> None:
    assert CliRunner().invoke(main, ["evidence"], input="").exit_code == 2


def test_an_excess_is_told_and_counts_where_requests_are_given() -> None:
    epoch = {"weight": 0.5, "gray": 300, "stable": 150}
    plain = answer({"kind": "attribution", "epochs": [epoch]})
    small = answer(
        {"kind": "attribution", "epochs": [{**epoch, "gray_exposures": 1_000_000, "stable_exposures": 1_000_000}]}
    )
    assert plain["roll_back_at_0.01"] is True
    assert (small["roll_back_at_0.01"], small["excess"]) == (False, pytest.approx(0.00015))


def test_what_a_step_still_needs_is_told() -> None:
    assert answer(PROMOTION)["gray_exposures_needed"] == 558 // 2
    assert answer({**PROMOTION, "gray_first_failures": 30})["gray_exposures_needed"] is None
    assert answer({**PROMOTION, "gray_exposures": 279, "gray_keys": 19})["verdict"] == "wait"
    assert answer({**PROMOTION, "gray_exposures": 279, "gray_keys": 19, "minimum_keys": 19})["verdict"] == "step_up"


def test_evidence_after_no_request_and_after_more_than_there_are() -> None:
    got = answer({**STREAM, "events": [EVENT], "after": [0, 1, 2]})
    assert [point["after"] for point in got["path"]] == [0, 1]
    assert got["path"][0]["ln_e"] == 0


def test_a_key_that_fails_again_in_an_earlier_epoch_stays_where_it_was_counted() -> None:
    events = [{**EVENT, "epoch": 1}, {**EVENT, "epoch": 0}]
    got = answer({**STREAM, "weights": [0.1, 0.5], "events": events})
    assert [each["gray"] for each in got["counts"]] == [0, 1]


def test_a_stream_of_more_failing_keys_than_are_kept_is_thinned() -> None:
    events = [{**EVENT, "key": f"{key:x}"} for key in range(FAILED_CAP + 1)]
    got = answer({**STREAM, "events": events, "minimum_failures": 10**6})
    assert got["counts"] == [{"weight": 0.1, "gray": FAILED_CAP // 2 + 1, "stable": 0}]
    assert got["distinct_failed_keys"] == FAILED_CAP + 2
