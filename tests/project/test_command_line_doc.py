"""docs/command-line.md: its examples print what it shows, and it lists every code of a finding and no other."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from installation import ROOT

from canary_mw.cli.main import main
from canary_mw.config.document import EMPTY_DIRECTORY, UNREACHABLE_CLUSTER, UNREADABLE_FILE
from canary_mw.config.variables import VARIABLE_CODES

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
README = (ROOT / "README.md").read_text(encoding="utf-8")
RELEASE, PLAIN = re.findall(r"^```yaml\n(.*?)^```$", README, re.M | re.S)
# The stable Mapping of the first one, and the gray ones that need no release.
RULES = f"---\n{RELEASE.partition('---')[0]}---\n{PLAIN}"
CODE = re.compile(r"[a-z]+(-[a-z0-9]+)*")
SEVERITIES = {"error", "warning", "notice"}
# What makes a finding, and the position of its code among the arguments.
POSITIONS = {
    **dict.fromkeys(("DocumentRefused", "RawDiagnostic", "_warning", "_notice", "FieldError", "_release_finding"), 0),
    **dict.fromkeys(("report", "_finding", "_about_option", "mapping_finding"), 1),
    "AttributeDiagnostic": 2,
    "_no_effect": -1,
}


def codes(tree: ast.AST) -> Iterator[str]:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        position = POSITIONS.get(ast.unparse(call.func), -1)
        keywords = [each.value for each in call.keywords if each.arg == "code"]
        for node in [*call.args[position : position + 1 or None], *keywords] if position >= 0 else keywords:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def written() -> set[str]:
    """The codes in the source."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "canary_mw").rglob("*.py")]
    found = {code for tree in trees for code in codes(tree) if CODE.fullmatch(code)}
    return found - SEVERITIES | {EMPTY_DIRECTORY, UNREACHABLE_CLUSTER, UNREADABLE_FILE} | VARIABLE_CODES


def test_every_code_of_a_finding_is_listed_with_its_meaning() -> None:
    _, section = PAGE.split("## The findings\n")
    listed = {
        code
        for row in re.findall(r"^\| (`.*?) \| .* \| .* \|$", section, re.M)
        for code in re.findall(r"`([^`]+)`", row)
    }
    assert listed == written()


def block(language: str, holding: str) -> str:
    (found,) = [text for kind, text in BLOCKS if kind == language and holding in text]
    return str(found)


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """rules.yaml of README without the release, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = Path("rules.yaml")
    path.write_text(RULES)
    return path


def run(command: str, stdin: str | None = None) -> Result:
    program, *arguments = shlex.split(command)
    assert program == "canary-mw"
    return CliRunner().invoke(main, arguments, input=stdin)


def test_the_finding_is_printed_as_shown(rules: Path) -> None:
    rules.write_text(RULES.replace("weight: 20", "weight: 20%"))
    assert run(block("shell", "check rules.yaml")).stdout == block("text", "wrong-type")


@pytest.mark.usefixtures("rules")
def test_the_explanation_is_printed_as_shown() -> None:
    assert run(block("shell", "explain rules.yaml GET")).stdout == block("text", "groups, in the order")


@pytest.mark.usefixtures("rules")
def test_the_line_of_a_batch_is_answered() -> None:
    echo, _, command = block("shell", "--batch").partition(" | ")
    answer = json.loads(run(command, stdin=shlex.split(echo)[1]).stdout)
    ((candidate,),) = [result["candidates"] for result in answer["results"]]
    assert candidate["variant"] == "gray"


def test_the_pipe_is_read_as_shown() -> None:
    _, _, command = block("shell", "kustomize").splitlines()[0].partition(" | ")
    assert run(command, stdin=RULES).stderr == "3 Mappings: clean\n"


def test_keys_are_assigned_as_shown(rules: Path) -> None:
    rules.write_text(RELEASE)
    _, _, command = block("shell", " assign ").partition(" | ")
    assert run(command, stdin="1\n").stdout == block("text", "key,variant")


def test_every_command_is_listed() -> None:
    assert set(re.findall(r"^\| \[?`canary-mw (\w+)", PAGE, re.M)) == set(main.commands)


@pytest.mark.parametrize("command", ["check", "explain"])
def test_every_option_is_listed(command: str) -> None:
    options = {option for each in main.commands[command].params for option in each.opts if option.startswith("--")}
    assert options <= set(re.findall(r"`(--[a-z-]+)[ `]", PAGE))


@pytest.mark.parametrize("line", block("shell", "_CANARY_MW_COMPLETE").splitlines())
def test_the_shell_is_one_for_which_there_is_completion(line: str) -> None:
    (variable,) = re.findall(r"_CANARY_MW_COMPLETE=\w+", line)
    outcome = CliRunner().invoke(main, env=dict([variable.split("=")]), prog_name="canary-mw")
    assert (outcome.exit_code, "_CANARY_MW_COMPLETE" in outcome.stdout) == (0, True)
