"""Only skips that are listed: with the name of a list in the variable ALLOWED_SKIPS, any other one fails the run.

A line of the list is `FILE | REASON` or `FILE::START OF THE TEST'S NAME | REASON`, with the reason as pytest shows it;
`*` in a reason stands for any text. Empty lines and lines that begin with `#` count for nothing.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

VARIABLE = "ALLOWED_SKIPS"


class AllowedSkip(NamedTuple):
    """One line of the list."""

    where: str
    reason: str

    def covers(self, nodeid: str, reason: str) -> bool:
        """Whether it allows this skip."""
        pattern = ".*".join(map(re.escape, self.reason.split("*")))
        same_file = self.where.partition("::")[0] == nodeid.partition("::")[0]
        return same_file and nodeid.startswith(self.where) and re.fullmatch(pattern, reason, re.DOTALL) is not None


def read(path: Path) -> list[AllowedSkip]:
    """The list in a file.

    Raises:
        pytest.UsageError: no such file, or a line without a reason.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as exc:
        raise pytest.UsageError(f"{VARIABLE}: {exc}") from exc
    return [_entry(line) for line in lines if line and not line.startswith("#")]


def _entry(line: str) -> AllowedSkip:
    where, _, reason = (part.strip() for part in line.partition(" | "))
    if not where or not reason:
        raise pytest.UsageError(f"{VARIABLE}: {line!r} is not FILE | REASON")
    return AllowedSkip(where, reason)


def skips(reports: Iterable[Any]) -> list[tuple[str, str]]:
    """Node id and reason of each skip; each process of pytest-xdist reports those of the collection."""
    return list(dict.fromkeys((report.nodeid, str(report.longrepr[2]).removeprefix("Skipped: ")) for report in reports))


def _not_allowed(config: pytest.Config) -> list[tuple[str, str]]:
    path = os.environ.get(VARIABLE)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    # Processes of pytest-xdist have no terminal; the one that started them sees their skips.
    if not path or reporter is None or hasattr(config, "workerinput"):
        return []
    allowed = read(config.rootpath / path)
    found = skips(reporter.stats.get("skipped", ()))
    return [skip for skip in found if not any(each.covers(*skip) for each in allowed)]


def pytest_configure(config: pytest.Config) -> None:
    """Find a mistake in the list before any test runs."""
    if path := os.environ.get(VARIABLE):
        read(config.rootpath / path)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that is good so far."""
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and _not_allowed(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the skips that failed the run."""
    if found := _not_allowed(config):
        terminalreporter.section(f"skips that are not in {os.environ[VARIABLE]}", red=True)
        for nodeid, reason in found:
            terminalreporter.write_line(f"{nodeid} | {reason}")
