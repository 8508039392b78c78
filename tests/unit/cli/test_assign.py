"""`canary-mw assign`, and the steps that `canary-mw explain` prints."""

import csv
import json
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from canary_mw.cli.main import main
from canary_mw.routing.table import RouteTable

RULES = """\
apiVersion: getambassador.io/v2
kind: Mapping
name: svc
prefix: /svc/
service: svc
---
apiVersion: getambassador.io/v2
kind: Mapping
name: gray
prefix: /svc/
service: gray
weight: 0
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
gray: {gray: {weight: 50, always: {file: testers.txt}}}
sticky: [{header: x-user}]
choice: {header: x-gray, trusted: true}
holdout: {name: h, percent: 10}
fallback: {}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES, "utf-8")
    (tmp_path / "testers.txt").write_text("anna\n", "utf-8")
    return path


def run(*arguments: object, given: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], input=given)


@pytest.mark.parametrize("by_file", [False, True])
def test_each_key_has_the_variant_that_a_request_gets(rules: Path, tmp_path: Path, by_file: bool) -> None:
    keys = [f"user-{number}" for number in range(200)] + ["anna", 'a "b", c']
    text = "\r\n".join(keys) + "\n\n"
    file = tmp_path / "keys"
    file.write_text(text, "utf-8", newline="")
    outcome = run("assign", rules, "r", file) if by_file else run("assign", rules, "r", given=text)
    assert outcome.exit_code == 0, outcome.output
    head, *rows = csv.reader(StringIO(outcome.output))
    assert head == ["key", "variant", "slot"]
    assert [key for key, _, _ in rows] == keys
    release = RouteTable.from_yaml(RULES.replace(", always: {file: testers.txt}", "")).releases["r"]
    assert {(key, variant) for key, variant, _ in rows[:200]} == {(key, release.variant_of(key)) for key in keys[:200]}
    assert rows[200] == ["anna", "gray", ""]


def test_an_unknown_release_is_an_error_that_names_the_known_ones(rules: Path) -> None:
    outcome = run("assign", rules, "q", given="a\n")
    assert outcome.exit_code == 1
    assert "no release q is in force; in force: r" in outcome.output
    rules.write_text(RULES.replace("weight: 50", "weight: 101"), "utf-8")
    outcome = run("assign", rules, "r", given="a\n")
    assert outcome.exit_code == 1
    assert "release-weight-value" in outcome.output


def steps(*arguments: object) -> dict[str, tuple[str, str]]:
    """Mark and reason of each step."""
    outcome = run("explain", *arguments)
    assert outcome.exit_code == 0, outcome.output
    lines = [line.strip() for line in outcome.output.splitlines() if line.startswith(("  + ", "  - "))]
    split = [line.split(" ", 3) for line in lines if line.split(" ")[1].isdigit()]
    return {name.rstrip(":"): (mark, why) for mark, _, name, why in split}


def test_explain_tells_each_step_and_which_one_decided(rules: Path) -> None:
    found = steps(rules, "GET", "/svc/", "-H", "x-user: user-1")
    assert [*found] == ["sent", "enabled", "lane", "choice", "lists", "drain", "layer", "holdout", "audience", "sticky"]
    assert [name for name, (mark, _) in found.items() if mark == "+"] == ["sticky"]
    assert found["lists"] == ("-", "header:x-user is in no list")
    found = steps(rules, "GET", "/svc/", "-H", "x-user: anna")
    assert found["lists"] == ("+", "list:always, by header:x-user")
    assert found["sticky"] == ("-", "not reached")
    found = steps(rules, "GET", "/svc/", "-H", "x-gray: always")
    assert found["choice"] == ("-", "the peer is not trusted (header x-gray)")
    assert found["sticky"] == ("+", "no key: stable")
    found = steps(rules, "GET", "/svc/", "-H", "x-gray: always", "--trusted")
    assert found["choice"] == ("+", "the header asks for gray")
    found = steps(rules, "GET", "/svc/", "-H", "x-canary-lane: r=gray", "--trusted")
    assert found["lane"] == ("+", "x-canary-lane has an entry for r")


def test_explain_prints_ranges_and_effective_shares(rules: Path) -> None:
    output = run("explain", rules, "GET", "/svc/").output
    assert "gray: [0, 500000) of 1000000, 45 % of all" in output
    assert "stable: the rest, 55 % of all" in output
    assert "release r: stable (missing)" in output


def test_explain_says_that_steps_raise_the_weights(rules: Path) -> None:
    said = "the weights are 0 until a server begins with the first of the steps"
    assert said not in run("explain", rules, "GET", "/svc/").output
    rules.write_text(RULES.replace("weight: 50, always", "share: 1, always") + "steps: auto\n")
    assert said in run("explain", rules, "GET", "/svc/").output


def test_explain_takes_user_session_and_predicates(rules: Path) -> None:
    audience = "audience: {user: {org.plan: pro}, session: {a: 1}, predicate: beta}\n"
    rules.write_text(RULES.replace("sticky:", f"{audience}sticky:"), "utf-8")
    given = (rules, "GET", "/svc/", "-H", "x-user: user-1")
    assert steps(*given)["audience"] == ("+", "not in the audience")
    everything = ("--user", "org.plan=pro", "--session", "a=1", "--predicate", "beta=true")
    assert steps(*given, *everything)["audience"] == ("-", "in the audience")
    assert steps(*given, *everything[:4])["audience"] == ("+", "not in the audience: predicate beta has no answer")
    assert steps(*given, *everything[:4], "--predicate", "beta=false")["audience"][0] == "+"
    for wrong in (("--user", "plan"), ("--predicate", "beta"), ("--user", "a=1", "--user", "a.b=2")):
        assert run("explain", *given, *wrong).exit_code == 2


def test_a_batch_reads_files_of_ids(rules: Path) -> None:
    requests = [{"method": "GET", "path": "/svc/", "headers": {"x-user": user}} for user in ("anna", "bob")]
    outcome = run("explain", "--batch", rules, given=json.dumps({"requests": requests}) + "\n")
    assert outcome.exit_code == 0
    (anna, bob) = json.loads(outcome.output)["results"]
    assert (anna["release"]["reason"], bob["release"]["reason"]) == ("list:always", "sticky")
