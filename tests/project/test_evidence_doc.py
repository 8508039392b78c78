"""docs/evidence.md: its examples answer what it shows, its script runs, and it lists every kind of question."""

import json
import re
import shlex
import subprocess
from typing import Any

import pytest
from click.testing import CliRunner
from installation import ROOT

from canary_mw.cli.main import main
from canary_mw.rollout.batch.answers import answer_line

PAGE = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```shell\n(.*?)\n```\n\n```json\n(.*?)\n```$", PAGE, re.M | re.S)
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def evidence(stdin: str) -> str:
    return CliRunner().invoke(main, ["evidence", "--batch"], input=stdin).stdout


@pytest.mark.parametrize(("command", "answer"), EXAMPLES)
def test_an_example_answers_what_is_shown(command: str, answer: str) -> None:
    echo, _, program = command.partition(" | ")
    assert program == "canary-mw evidence --batch"
    assert json.loads(evidence(shlex.split(echo)[1])) == pytest.approx(json.loads(answer))


def test_every_kind_is_listed() -> None:
    # The error for an unknown kind lists them all.
    known = answer_line(1, b'{"kind": ""}')["error"].partition("use one of ")[2]
    listed = set(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", PAGE, re.M))
    assert listed == set(re.findall(r"\w+", known))


def test_the_script_finds_no_harm_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answered(arguments: list[str], *, input: str, **options: Any) -> Any:
        assert arguments == ["canary-mw", "evidence", "--batch"]
        return subprocess.CompletedProcess(arguments, 0, evidence(input))

    monkeypatch.setattr(subprocess, "run", answered)
    exec(compile(SCRIPT.replace("range(50)", "range(5)"), "docs/evidence.md", "exec"), {})
    assert capsys.readouterr().out == "0 of 50\n"
