"""The slowest test files, shown after a run that has a budget of time: `pytest --budget MINUTES`.

A run that exceeds its budget is told so and does not fail, since the machine may be busy with something else.
"""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

SHOWN = 10
_began: list[float] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--budget", type=float, metavar="MINUTES", help="show the slowest files; warn of a longer run")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say the budget before the first test."""
    minutes = config.getoption("budget")
    return None if minutes is None else f"budget: {minutes:g} minutes on two cores"


def pytest_sessionstart() -> None:
    """Note when the run began."""
    _began[:] = [time.monotonic()]


def by_file(reports: Iterable[Any]) -> Counter[str]:
    """Seconds of each file, set-up and clean-up included, over all processes that run tests."""
    seconds: Counter[str] = Counter()
    for report in reports:
        if hasattr(report, "duration"):
            seconds[report.nodeid.partition("::")[0]] += report.duration
    return seconds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the files, and whether the budget was kept."""
    minutes = config.getoption("budget")
    if minutes is None:
        return
    taken = time.monotonic() - _began[0]
    terminalreporter.section("slowest files")
    for name, seconds in by_file(each for some in terminalreporter.stats.values() for each in some).most_common(SHOWN):
        terminalreporter.write_line(f"{seconds:8.1f} s  {name}")
    terminalreporter.write_line(f"the run took {taken:.0f} s of {minutes * 60:.0f} s")
    if taken > minutes * 60:
        what = "WARNING: this run exceeded its budget; mark what takes long as slow, or make it quicker"
        terminalreporter.write_line(what, yellow=True, bold=True)
