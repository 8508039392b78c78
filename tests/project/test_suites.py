"""The suites of the examples, as users run theirs: pytest in a process of its own, and no network."""

import subprocess
import sys

import pytest
from installation import ROOT, environ

pytestmark = pytest.mark.slow
SUITES = ROOT / "examples" / "tests"
APPS = ["test_fastapi_app.py", "test_flask_app.py", "test_django_app.py"]


def run(files: list[str], *options: str, **variables: str) -> tuple[int, str]:
    """Run suites with the plugin and nothing else; the status, and the line that counts the tests."""
    plugins = ("-p", "no:cacheprovider", "-p", "canary_mw.pytest_plugin")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--disable-warnings", *plugins, *options, *files]
    more = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), **variables}
    outcome = subprocess.run(command, cwd=SUITES, env=environ(**more), capture_output=True, text=True, check=False)
    return outcome.returncode, outcome.stdout[-3000:] + outcome.stderr


def test_suites_pass_with_all_stable() -> None:
    status, told = run(APPS, "-o", "usefixtures=all_stable")
    assert (status, "15 passed" in told) == (0, True), told


def test_suites_pass_where_the_middlewares_are_off() -> None:
    status, told = run(APPS, CANARY_MW_ENABLED="0")
    assert (status, "15 passed" in told) == (0, True), told


def test_suites_may_bring_a_gray_version_along() -> None:
    status, told = run(["test_gray.py"])
    assert (status, "8 passed" in told) == (0, True), told


def test_a_suite_with_nothing_of_this_fails_because_it_needs_the_network() -> None:
    status, told = run(["test_flask_app.py"])
    assert (status, "2 failed" in told) == (1, True), told
