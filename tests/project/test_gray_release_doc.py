"""docs/gray-release.md: its rules load without findings that it does not show, and its commands print what it shows."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from installation import ROOT

from canary_mw import RouteTable
from canary_mw.cli.main import main

PAGE = (ROOT / "docs" / "gray-release.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
# The line that stands for any others.
SKIPPED = "..."


class Example(NamedTuple):
    """The rules of the page at one place, the commands that follow, and what they print."""

    rules: str
    commands: str = ""
    printed: str = ""


def examples() -> Iterator[Example]:
    """Each block of YAML with what is run on it. A GrayRelease alone stands beside the Mappings before it."""
    mappings = ""
    for at, (language, text) in enumerate(BLOCKS):
        if language == "yaml":
            documents = text.split("---\n")
            mappings = "---\n".join(each for each in documents if "kind: Mapping" in each) or mappings
            release = [each for each in documents if "kind: GrayRelease" in each]
            shell, output = [*BLOCKS[at + 1 :], ("", ""), ("", "")][:2]
            run = (shell[1], output[1]) if shell[0] == "shell" else ()
            yield Example("---\n".join([mappings, *release]), *run)


EXAMPLES = list(examples())


def run(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "canary-mw"
    outcome = CliRunner().invoke(main, arguments)
    return outcome.stdout or outcome.stderr


def pattern(printed: str) -> str:
    """What is shown as a regex: a line of dots is any number of lines."""
    lines = [r"(?:.*\n)*?" if line == SKIPPED else re.escape(f"{line}\n") for line in printed.splitlines()]
    return "".join(lines)


def test_every_block_is_rules_or_what_is_run_on_them() -> None:
    kinds = " ".join(language for language, _ in BLOCKS)
    assert re.sub(r"yaml( shell text)?", "example", kinds) == " ".join(["example"] * len(EXAMPLES))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_rules_are_clean_or_have_the_findings_that_are_shown(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = EXAMPLES[number]
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(example.rules, encoding="utf-8")
    told = run("canary-mw check rules.yaml")
    assert "check" in example.commands or re.fullmatch(r"\d Mappings: clean\n", told), told


@pytest.mark.parametrize("number", [at for at, each in enumerate(EXAMPLES) if each.commands])
def test_commands_print_what_is_shown(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES[number]
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(example.rules, encoding="utf-8")
    told = "".join(run(command) for command in example.commands.splitlines())
    assert re.fullmatch(pattern(example.printed), told), told


def test_the_settings_that_are_spelled_out_are_the_defaults() -> None:
    (spelled,) = [each.rules for each in EXAMPLES if "budget:" in each.rules]
    short = re.sub(r"^fallback:\n(  .*\n)+", "fallback: {}\n", spelled, flags=re.M)
    assert short != spelled
    both = [RouteTable.from_yaml(rules).releases["shop-2026-11"].document.fallback for rules in (spelled, short)]
    assert both[0] == both[1]
