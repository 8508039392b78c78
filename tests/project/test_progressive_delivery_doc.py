"""docs/progressive-delivery.md: its tables are those that were simulated, its commands print what it shows."""

import json
import re
import shlex
from typing import get_args

import pytest
from click.testing import CliRunner
from installation import ROOT
from rules import document, read_rules

from benchmarks.statistics.pages import tables
from canary_mw.cli.main import main
from canary_mw.rollout.state import Phase, ReleaseState
from canary_mw.rules.release import GrayRelease

PAGE = (ROOT / "docs" / "progressive-delivery.md").read_text(encoding="utf-8")
FIGURES = json.loads((ROOT / "benchmarks" / "statistics" / "results.json").read_text(encoding="utf-8"))
COMMANDS = re.findall(r"^```shell\n(.*?)\n```\n\n```text\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.mark.parametrize(
    "title", ["Equal versions that are taken back", "Minutes until gray is taken back", "Whole releases"]
)
def test_the_tables_are_those_that_were_simulated(title: str) -> None:
    assert f"<!-- simulated: {title} -->\n\n{tables(FIGURES)[title]}" in PAGE


@pytest.mark.parametrize(("command", "output"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_what_is_shown(command: str, output: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "canary-mw"
    assert CliRunner().invoke(main, arguments).stdout == output


def test_there_are_plans_for_little_and_for_much_traffic() -> None:
    assert [re.search(r"--rps (\d+)", command)[1] for command, _ in COMMANDS] == ["100", "1", "10000"]  # type: ignore[index]


def read_release(text: str) -> GrayRelease:
    mappings = document("shop", prefix="/shop/") + document("shop-gray", prefix="/shop/", weight=0)
    rules = read_rules(f"{mappings}---\n{text}")
    assert [each.code for each in rules.diagnostics if each.severity != "notice"] == []
    assert not any(each.code == "evidence-forgeable" for each in rules.diagnostics)
    (release,) = rules.releases.in_force
    return release


RELEASE, *PARTS = re.findall(r"^```yaml\n((?:apiVersion: canary-mw|analysis:).*?)^```$", PAGE, re.M | re.S)


def test_the_release_is_one_as_it_is_read() -> None:
    plan = read_release(RELEASE).plan
    assert plan is not None
    assert [each.weights["shop-gray"] for each in plan.stages] == [1, 5, 25, 50, 100]


@pytest.mark.parametrize("part", PARTS)
def test_what_else_is_written_is_a_part_of_it(part: str) -> None:
    plan = read_release(RELEASE.replace("analysis: {}\n", part)).plan
    assert plan is not None
    (analysis,) = {each.analysis for each in plan.stages}
    assert analysis is not None
    assert (len(analysis.metrics), len(analysis.queries)) == (part.count("- {name:"), part.count("- name:"))


def test_every_phase_is_told_with_the_word_of_argo_rollouts() -> None:
    _, section = PAGE.split("## Phases and commands\n")
    rows = dict(re.findall(r"^\| (\w+) \| .* \| (\w+) \|$", section.partition("\n## ")[0], re.M))
    # Manual is that of releases without steps.
    assert rows == {phase: ReleaseState(name="r", phase=phase).status for phase in get_args(Phase) if phase != "Manual"}
