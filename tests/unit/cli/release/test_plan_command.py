"""`canary-mw release plan`: the steps of a file or of options, as a table and for programs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rules import document

from canary_mw.cli.main import main

MAPPINGS = document("svc", prefix="/svc/") + document("gray", prefix="/svc/", weight=0)
RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
gray: [gray]
steps:
- setWeight: 5
- pause: {duration: 2m}
- setWeight: 50
- pause: {}
bake: {duration: 1h}
analysis:
  alpha: 5%
  metrics: [{name: error_rate}, {name: paid, kind: event}]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["release", "plan", *arguments])


def test_without_a_file_it_is_the_plan_of_auto() -> None:
    outcome = run("--rps", "20", "--error-rate", "0.5%")
    assert outcome.exit_code == 0
    head, *rows = outcome.stdout.splitlines()
    assert head.split()[:3] == ["STEP", "WEIGHT", "PAUSE"]
    assert [row.split()[1] for row in rows[:5]] == ["1", "5", "25", "50", "100"]
    assert "at 20 requests a second, of which 0.5 % fail in stable" in outcome.stdout


def test_the_steps_of_a_file_are_its_own(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(MAPPINGS + RELEASE)
    text = run(str(file), "--rps", "500", "--error-rate", "1").stdout
    assert "until promote" in text
    assert "alpha 5 %" in text
    assert "Not counted, since no rate is known: paid" in text
    (found,) = json.loads(run(str(file), "--rps", "500", "--error-rate", "1", "-o", "json").stdout)["releases"]
    assert (found["name"], found["error_rate"], found["requests_per_second"]) == ("r", 0.01, 500)
    assert [(each["step"], each["weight"], each["until_promoted"]) for each in found["steps"]] == [
        (1, 5, False),
        (3, 50, True),
        (5, 100, False),
    ]
    known = run(str(file), "--rps", "500", "--error-rate", "1", "--rate", "paid=30%").stdout
    assert "Not counted" not in known
    asked = "{name: load, provider: {prometheus: {address: 'http://p', query: up}}, successCondition: result < 1}"
    file.write_text(MAPPINGS + RELEASE.replace("kind: event}", f"kind: event}}, {asked}"))
    assert "Asked besides, and not counted: load." in run(str(file), "--rps", "9", "--error-rate", "1").stdout
    file.write_text(MAPPINGS + RELEASE.replace("kind: event", "kind: value"))
    assert "Not counted, since no rate is known: paid" in run(str(file), "--rps", "9", "--error-rate", "1").stdout


def test_options_make_a_plan() -> None:
    options = ("--steps", "10,100", "--pause", "1m", "--margin", "2%", "--alpha", "2", "--users", "150")
    text = run("--rps", "1", "--error-rate", "0.5%", *options).stdout
    assert "1 request a second of 150 users" in text
    assert "never enough (minimum_keys)" in text
    assert "Some steps do not end by evidence" in text
    assert "After 6h in a step" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rps", "0", "--error-rate", "1%"), "--rps"),
        (("--rps", "1"), "--error-rate"),
        (("--rps", "1", "--error-rate", "much"), "is no percent"),
        (("--rps", "1", "--error-rate", "101"), "is no percent"),
        (("--rps", "1", "--error-rate", "nan"), "is no percent"),
        (("--rps", "1", "--error-rate", "1", "--rate", "2%"), "NAME=PERCENT"),
        (("--rps", "1", "--error-rate", "1", "--steps", "5,x"), "percents with commas"),
        (("--rps", "1", "--error-rate", "1", "--steps", "5,4"), "less than 5"),
        (("--rps", "1", "--error-rate", "1", "--alpha", "20%"), "alpha"),
        (("--rps", "1", "--error-rate", "1", "--pause", "1d"), "no duration"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], said: str) -> None:
    outcome = run(*arguments)
    assert outcome.exit_code == 2
    assert said in outcome.stderr


def test_a_file_has_its_own_plan_or_none(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(MAPPINGS + RELEASE)
    outcome = run(str(file), "--rps", "1", "--error-rate", "1", "--steps", "5")
    assert (outcome.exit_code, "changes no file" in outcome.stderr) == (2, True)
    file.write_text(MAPPINGS)
    outcome = run(str(file), "--rps", "1", "--error-rate", "1")
    assert (outcome.exit_code, "no release has steps" in outcome.stderr) == (1, True)
    file.write_text(MAPPINGS + RELEASE.replace("setWeight: 50", "setWeight: 4"))
    outcome = run(str(file), "--rps", "1", "--error-rate", "1")
    assert (outcome.exit_code, "less than 5 before it" in outcome.stderr) == (1, True)
