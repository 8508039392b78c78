"""The plugin of pytest: its fixtures here, and what a run of a user sees."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import app_that_says, ask, end
from installation import ROOT, environ
from middlewares import Middleware, middleware
from servers import mapping

from canary_mw.control.sources.static import StaticSource
from canary_mw.testing import load_rules
from canary_mw.testing.golden import check_golden

RULES = mapping("stable", "/shop/", "shop-stable") + mapping("gray", "/shop/", "shop-gray", weight="20")
Runs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def served(interface: str) -> Iterator[Middleware]:
    """A middleware whose requests are all gray."""
    gray = {"shop-gray": app_that_says(interface, "gray")}
    rules = StaticSource(RULES)
    made = middleware(
        app_that_says(interface, "stable"), rules=rules, local="shop-stable", services=gray, roll=lambda: 0.0
    )
    yield made
    end(made)


@pytest.mark.usefixtures("all_stable")
def test_all_stable_counts_during_a_test(served: Middleware) -> None:
    assert ask(served) == (200, "stable /shop/")


def test_a_gray_app_answers_to_the_end_of_its_block_or_of_the_test(
    served: Middleware, interface: str, gray_answered_by: Callable[[Any], Any]
) -> None:
    assert ask(served) == (200, "gray /")
    with gray_answered_by(app_that_says(interface, "mine")):
        assert ask(served) == (200, "mine /")
    assert ask(served) == (200, "gray /")
    gray_answered_by(app_that_says(interface, "mine"))
    gray_answered_by(app_that_says(interface, "other"))
    assert ask(served) == (200, "other /")


def test_no_override_outlives_its_test(served: Middleware) -> None:
    assert ask(served) == (200, "gray /")


REQUESTS: list[Any] = [
    "/shop/",
    "POST /shop/?page=2",
    {"path": "/elsewhere", "headers": {"gray": "true"}, "client": "192.0.2.1"},
]


def test_a_golden_file_holds_one_decision_a_line(tmp_path: Path) -> None:
    rules, file = load_rules(RULES), tmp_path / "decisions" / "shop.json"
    check_golden(file, rules, REQUESTS, update=True)
    check_golden(file, rules, REQUESTS, update=False)
    lines = file.read_text().splitlines()
    assert lines[1] == (
        '  {"request": "/shop/", "variant": null, "mapping": null, "reason": "weight",'
        ' "shares": {"gray": 20.0, "stable": 80.0}},'
    )
    found = json.loads(file.read_text())
    assert [each["request"] for each in found] == REQUESTS
    assert [each["reason"] for each in found] == ["weight", "weight", "nobody"]


def test_a_changed_decision_is_shown_as_a_difference(tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    check_golden(file, load_rules(RULES), REQUESTS, update=True)
    before = file.read_text()
    with pytest.raises(AssertionError) as caught:
        check_golden(file, load_rules(RULES.replace("20", "30")), REQUESTS, update=False)
    told = str(caught.value).splitlines()
    assert "--canary-update" in told[0]
    assert [line[:2] for line in told if '"shares": {"gray": 20.0' in line] == ["- ", "- "]
    assert [line[:2] for line in told if '"shares": {"gray": 30.0' in line] == ["+ ", "+ "]
    assert file.read_text() == before


def test_a_missing_golden_file_is_an_error_that_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"shop.json is missing: `pytest --canary-update` writes it"):
        check_golden(tmp_path / "shop.json", load_rules(RULES), REQUESTS, update=False)


def test_the_fixture_finds_its_file_beside_the_test(canary_golden: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match=f"{Path(__file__).parent}/none.json is missing"):
        canary_golden("none.json", load_rules(RULES), REQUESTS)


@pytest.fixture
def run(tmp_path: Path) -> Runs:
    """Runs the tests of a text as those of a user, with no other plugin."""

    def run_tests(tests: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_user.py").write_text(tests)
        (tmp_path / "rules.yaml").write_text(RULES)
        plugins = ("-p", "canary_mw.pytest_plugin", "-p", "no:cacheprovider", *options)
        command = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-c", "/dev/null", *plugins, "."]
        variables = environ(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTHONPATH=str(ROOT))
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return run_tests


LOADED = """
import sys

def loaded():
    return sorted(name for name in sys.modules if name.partition(".")[0] == "canary_mw")

def test_first():
    assert loaded() == ["canary_mw", "canary_mw.pytest_plugin"]

def test_then(all_stable):
    assert "canary_mw.middleware.base" in loaded()
"""


@pytest.mark.slow
def test_the_plugin_imports_nothing_of_the_package_before_a_fixture_is_used(run: Runs) -> None:
    outcome = run(LOADED)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


COVERED = "def test_import():\n    import canary_mw.http.messages\n"


@pytest.mark.slow
def test_the_coverage_of_a_run_sees_the_imports_of_its_tests(run: Runs, tmp_path: Path) -> None:
    outcome = run(COVERED, "-p", "pytest_cov", "--cov=canary_mw.http", "--cov-report=json")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    files = json.loads((tmp_path / "coverage.json").read_text())["files"]
    (messages,) = (file for name, file in files.items() if name.endswith("http/messages.py"))
    # The imports of the module are seen, and what is missing lies in functions that nobody calls.
    assert messages["executed_lines"]
    assert messages["missing_lines"][0] > messages["executed_lines"][0]


FAILING = """
from canary_mw.testing import load_rules, route

def test_variant():
    rules = load_rules("rules.yaml")
    assert route(rules, "/elsewhere").reason == "nobody"
    assert route(rules, "/shop/", headers={"x-user": "42"}).variant == "gray"

def test_other():
    assert not "a failure without a route"

def test_golden(canary_golden):
    canary_golden("shop.json", load_rules("rules.yaml"), ["/shop/"])
"""


@pytest.mark.slow
def test_a_failing_assert_shows_the_explanation_and_an_option_writes_golden_files(run: Runs, tmp_path: Path) -> None:
    outcome = run(FAILING)
    assert "3 failed" in outcome.stdout
    first, second = outcome.stdout.partition("test_other ___")[::2]
    assert "80 %  stable  stable  -> shop-stable" in first
    assert "+ stable + gray: prefix /shop/" in first
    assert "explain" not in second
    assert "-> shop-stable" not in second.partition("test_golden ___")[0]
    assert "`pytest --canary-update` writes it" in second
    assert "2 failed, 1 passed" in run(FAILING, "--canary-update").stdout
    assert json.loads((tmp_path / "shop.json").read_text())[0]["request"] == "/shop/"
    assert "2 failed, 1 passed" in run(FAILING).stdout
