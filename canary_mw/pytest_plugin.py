"""The plugin of pytest: fixtures for the tests of an app and of its rules.

Every run of pytest loads it. It imports nothing else of the package until a fixture is used, so that the coverage of a
run sees the imports of its tests.
"""

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from os import PathLike
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from canary_mw.routing.table import RouteTable


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--canary-update`."""
    group = parser.getgroup("canary-mw")
    group.addoption("--canary-update", action="store_true", help="Write the files of `canary_golden` anew.")


@pytest.fixture
def all_stable() -> Iterator[None]:
    """Make every decision of the middlewares stable during a test."""
    from canary_mw.testing.overrides import all_stable

    with all_stable():
        yield


@pytest.fixture
def gray_answered_by() -> Iterator[Callable[[Any], ExitStack]]:
    """A function that has an app answer for gray versions to the end of the test, or of its `with` block."""
    from canary_mw.testing.overrides import gray_answered_by

    with ExitStack() as stack:

        def answered_by(app: Any) -> ExitStack:
            # Closed by `with`, or else by the outer one; a second time it does nothing.
            block = stack.enter_context(ExitStack())
            block.enter_context(gray_answered_by(app))
            return block

        yield answered_by


@pytest.fixture
def canary_golden(
    request: pytest.FixtureRequest,
) -> "Callable[[str | PathLike[str], RouteTable, Iterable[str | Mapping[str, Any]]], None]":
    """A function that compares decisions with a file, whose path begins at the folder of the test."""
    from canary_mw.testing.golden import check_golden

    def golden(file: "str | PathLike[str]", rules: "RouteTable", requests: Iterable[str | Mapping[str, Any]]) -> None:
        __tracebackhide__ = True
        check_golden(request.path.parent / file, rules, requests, update=request.config.getoption("--canary-update"))

    return golden


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Show where a failed test explains itself: the last routes that it asked for."""
    outcome = yield
    assertions = sys.modules.get("canary_mw.testing.assertions")
    if assertions is None:
        return
    report = outcome.get_result()
    if report.failed:
        report.sections += [("canary_mw.testing.route", str(each)) for each in assertions.recent_routes]
    if report.when == "teardown":
        assertions.recent_routes.clear()
