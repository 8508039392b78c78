"""docs/progressive-delivery.md: its tables are those that were simulated, its commands print what it shows."""

import json
import re
import shlex
from dataclasses import fields
from math import ceil
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner
from installation import ROOT
from rules import document, read_rules

from benchmarks.statistics.pages import tables
from canary_mw.cli.main import main
from canary_mw.control.rollouts import rollouts
from canary_mw.control.rollouts.cluster import election
from canary_mw.control.rollouts.cluster.names import config_map_name
from canary_mw.control.rollouts.latch import SILENCE
from canary_mw.control.rollouts.peers import known, session
from canary_mw.control.rollouts.settings import parse_state_url
from canary_mw.middleware.settings import MiddlewareSettings, variable
from canary_mw.rollout.state import Phase, ReleaseState
from canary_mw.rules.plan import Hook
from canary_mw.rules.queries.query import Query
from canary_mw.rules.release import GrayRelease
from canary_mw.run_folder.lock import RETRY_INTERVAL

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


def table(head: str) -> list[list[str]]:
    """The cells of the rows of the table that begins so."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("named", sorted(set(re.findall(r"tests/[\w/.]+::\w+", PAGE))))
def test_every_test_that_is_named_exists(named: str) -> None:
    path, _, name = named.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.M)


OF_ADMIN_PORT = "the admin port of a pod that gets requests, or its token differs"


def test_everything_that_fails_has_a_test_and_its_times_are_those_of_the_code() -> None:
    rows = {what: rest for what, *rest in table("what fails | what users get | raised | noticed after | test")}
    assert all(test.startswith("`tests/") for *_, test in rows.values())
    for what, seconds in {
        "the worker that raises": ceil(RETRY_INTERVAL),
        "the pod that raises is killed": election.DURATION,
        "the pod that raises freezes": election.DURATION,
        "a new pod starts": rollouts._PATIENCE,
        "evidence of a peer": session.INTERVAL,
        "gray, a little": session.INTERVAL,
        "the API": SILENCE,
        "the admin port of a pod": known.RAISE_WITHIN,
        "a hook hangs": Hook("event", "").timeout,
    }.items():
        found = next(row for name, row in rows.items() if name.startswith(what))
        said = [float(each) for each in re.findall(r"\d+", found[2])]
        assert seconds in said, (what, seconds)
    assert f"after {known.LOST_AFTER:g} seconds it is Held" in rows[OF_ADMIN_PORT][2]
    query = Query("", "", "")
    assert (query.interval, query.timeout) == (60, 10)
    (silent,) = [row for name, row in rows.items() if name.startswith("Prometheus")]
    assert "a minute" in silent[2]


OVERLAY = ROOT / "k8s" / "overlays" / "in-app-rollout"


def objects(name: str) -> dict[str, Any]:
    """The objects of a file of the overlay, by their kinds."""
    return {each["kind"]: each for each in yaml.safe_load_all((OVERLAY / name).read_text(encoding="utf-8"))}


def environment() -> dict[str, str]:
    """The variables that the overlay adds."""
    (patch,) = yaml.safe_load((OVERLAY / "kustomization.yaml").read_text(encoding="utf-8"))["patches"]
    (container,) = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


def test_the_variables_of_an_app_with_many_pods_are_settings_and_are_told() -> None:
    told = {name for cells in table("variable | why") for name in re.findall(r"CANARY_MW_\w+", cells[0])}
    in_app = (OVERLAY.parent / "in-app" / "stable.yaml").read_text(encoding="utf-8")
    given = {*environment(), *re.findall(r"CANARY_MW_\w+", in_app)}
    assert told == given - {"CANARY_MW_RULES"}
    assert given <= {variable(each.name) for each in fields(MiddlewareSettings)}


def test_the_rights_of_an_app_with_many_pods_are_those_that_the_proxy_has() -> None:
    rules = objects("access.yaml")["Role"]["rules"]
    access = yaml.safe_load_all((ROOT / "k8s/components/rollout/access.yaml").read_text(encoding="utf-8"))
    (of_proxy,) = [each["rules"] for each in access if each["kind"] == "Role"]
    assert [(each["resources"], each["verbs"]) for each in rules] == [
        (each["resources"], each["verbs"]) for each in of_proxy
    ]
    told = [
        (what, re.findall(r"`(canary[\w-]+)`", which), verbs) for what, which, verbs in table("what | which | verbs")
    ]
    assert told == [(each["resources"][0], each.get("resourceNames", []), ", ".join(each["verbs"])) for each in rules]
    names = {each["metadata"]["name"] for each in objects("objects.yaml").values()}
    assert names == {config_map_name("shop"), parse_state_url(environment()["CANARY_MW_STATE"]).lease}
    assert objects("peers.yaml")["Service"]["metadata"]["name"] == environment()["CANARY_MW_PEERS"]


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
