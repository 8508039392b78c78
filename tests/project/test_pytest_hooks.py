"""The hooks behind `make test` and `.ci/run`: only skips that are listed, and the slowest files of a run."""

import re
import subprocess
import sys
from pathlib import Path

import allowed_skips
import pytest
from allowed_skips import AllowedSkip
from installation import ROOT, environ

LISTED = ROOT / "tests" / "allowed_skips.txt"
TESTS = """
import pytest

def test_listed():
    pytest.skip("needs 3 files")

@pytest.mark.skip(reason="needs luck")
def test_not_listed():
    pass

@pytest.mark.xfail(reason="known")
def test_known():
    assert False

def test_good():
    pass
"""
WITHOUT_MODULE = 'import pytest\npytest.importorskip("no_such_module")\n'


def run(folder: Path, *options: str, listed: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the tests in a folder with the hooks, and with a list of skips if there is one."""
    variables = environ(PYTHONPATH=str(ROOT / "tests" / "support"), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    variables.pop(allowed_skips.VARIABLE, None)
    if listed is not None:
        (folder / "listed.txt").write_text(listed, encoding="utf-8")
        variables[allowed_skips.VARIABLE] = "listed.txt"
    plugins = ("-p", "allowed_skips", "-p", "file_durations", "-p", "xdist", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", "--rootdir", str(folder), *plugins, *options]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of tests."""
    (tmp_path / "test_some.py").write_text(TESTS, encoding="utf-8")
    return tmp_path


def test_without_a_list_every_skip_is_accepted(folder: Path) -> None:
    outcome = run(folder)
    assert (outcome.returncode, "1 passed, 2 skipped" in outcome.stdout) == (0, True), outcome.stdout


@pytest.mark.parametrize(
    "options", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)], ids=["one process", "two processes"]
)
def test_a_skip_that_is_not_listed_fails_the_run_by_name(folder: Path, options: tuple[str, ...]) -> None:
    outcome = run(folder, *options, listed="# comment\n\ntest_some.py::test_listed | needs * files\n")
    assert outcome.returncode == 1, outcome.stdout
    _, _, told = outcome.stdout.partition("skips that are not in listed.txt")
    assert "test_some.py::test_not_listed | needs luck\n" in told
    assert "needs 3 files" not in told


def test_listed_skips_leave_the_run_good(folder: Path) -> None:
    assert run(folder, listed="test_some.py | needs * files\ntest_some.py | needs luck\n").returncode == 0


@pytest.mark.slow
def test_a_file_that_is_skipped_as_a_whole_has_to_be_listed_too(folder: Path) -> None:
    (folder / "test_whole.py").write_text(WITHOUT_MODULE, encoding="utf-8")
    for options in ((), ("-n", "2")):
        outcome = run(folder, "test_whole.py", *options, listed="")
        assert (outcome.returncode, outcome.stdout.count("test_whole.py | could not import")) == (1, 1), outcome.stdout
    assert run(folder, listed="test_whole.py | could not import *\ntest_some.py | *\n").returncode == 0


@pytest.mark.parametrize("line", ["test_some.py", "test_some.py |", "| needs luck"])
def test_a_line_without_file_or_reason_ends_the_run_before_it_begins(folder: Path, line: str) -> None:
    outcome = run(folder, listed=line)
    assert outcome.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{line!r} is not FILE | REASON" in outcome.stderr


def test_a_skip_is_allowed_in_its_file_and_for_its_reason_only() -> None:
    entry = AllowedSkip("a.py::test_x", "needs (this)")
    assert entry.covers("a.py::test_x[1]", "needs (this)")
    assert not entry.covers("a.py::test_y", "needs (this)")
    assert not entry.covers("a.py::test_x", "needs this")
    assert not AllowedSkip("a.py", "*").covers("a.pyx::test_x", "any")


def test_the_list_of_this_project_names_tests_and_reasons_that_exist() -> None:
    # What many tests need is looked for by the modules that they share.
    shared = "".join(each.read_text(encoding="utf-8") for each in (ROOT / "tests/support").glob("*.py"))
    for entry in allowed_skips.read(LISTED):
        file, _, test = entry.where.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {test}" in text, entry
        assert all(part in text + shared for part in entry.reason.split("*")), entry


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_a_run_with_a_budget_shows_its_slowest_files(folder: Path, options: tuple[str, ...]) -> None:
    (folder / "test_slow.py").write_text("import time\n\ndef test_it():\n    time.sleep(0.3)\n", encoding="utf-8")
    shown = run(folder, *options, "--budget", "5").stdout
    assert "budget: 5 minutes on two cores" in shown.partition("test_some.py")[0]
    files = re.findall(r"^ +[0-9.]+ s  (\S+)$", shown, re.MULTILINE)
    assert files == ["test_slow.py", "test_some.py"]
    assert re.search(r"^the run took \d+ s of 300 s$", shown, re.MULTILINE)
    assert "exceeded" not in shown


def test_a_run_that_exceeds_its_budget_warns_and_passes(folder: Path) -> None:
    outcome = run(folder, "--budget", "0.0001")
    assert (outcome.returncode, "WARNING: this run exceeded its budget" in outcome.stdout) == (0, True)


def test_a_run_without_a_budget_shows_nothing(folder: Path) -> None:
    shown = run(folder).stdout
    assert "budget:" not in shown
    assert "slowest files" not in shown
