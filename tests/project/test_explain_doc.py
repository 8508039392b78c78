"""docs/explain.md: the three ways give the answers that it shows."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from installation import ROOT
from servers import fetch, run, serving_app

from canary_mw.admin import create_admin
from canary_mw.cli.main import main
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.prometheus import Metrics

PAGE = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(block("yaml", "kind"), encoding="utf-8")


def block(language: str, word: str) -> str:
    (found,) = [text for each, text in BLOCKS if each == language and word in text]
    return found


def test_every_block_is_tested_here() -> None:
    assert [language for language, _ in BLOCKS] == ["yaml", "text", "shell", "text", "python"]


def test_the_command_prints_what_is_shown() -> None:
    program, *arguments = shlex.split(block("shell", "explain"))
    assert program == "canary-mw"
    told = CliRunner().invoke(main, arguments).stdout
    lines = block("text", "slot").splitlines()
    shown = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(f"{line}\n") for line in lines)
    assert re.fullmatch(shown, told), told


def test_the_tests_pass() -> None:
    names: dict[str, Any] = {}
    exec(block("python", "route"), names)
    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_page_says_the_same() -> None:
    store = RuleStore(StaticSource(Path("rules.yaml").read_text()))
    store.reload()

    async def main_() -> None:
        async with serving_app(create_admin(store, Metrics()), lifespan="off") as port:
            answer = await fetch(port, block("text", "diag").strip())
            assert answer.status == 200
            text = answer.body.decode()
            assert "shop-stable answers" in text
            assert "lies at 78.5798" in text
            assert "the peer is not trusted" in text

    run(main_())
    store.stop()
