"""What pages and the API say of services that are asked before a request goes on."""

from typing import Any

import pytest
from auth_rules import auth_service
from rules import read_rules

from canary_mw.admin.answers import asked
from canary_mw.admin.answers.asked import asked_services
from canary_mw.observability.figures.values import Figures
from canary_mw.routing.table import RouteTable

AUTH = auth_service(service="auth:3000", add_auth_headers="{x-api: s3cret}")


def table(text: str, local: str = "shop") -> RouteTable:
    """A table of a text, with errors or without."""
    return RouteTable.build((), local=[local], middleware=True, settings=read_rules(text).shared.settings)


@pytest.mark.parametrize(
    ("results", "state"),
    [({"allowed": 90, "denied": 7, "error": 3}, "asked"), ({"allowed": 1, "failed_open": 4}, "failing"), ({}, "asked")],
)
def test_the_last_minutes_of_a_service(monkeypatch: pytest.MonkeyPatch, results: dict[str, int], state: str) -> None:
    counters: dict[Any, int] = {("auth", "auth:3000", name): count for name, count in results.items()}
    counters["auth_seconds", "auth:3000"] = 2_000_000
    monkeypatch.setattr(asked, "counters_in", lambda *_: (300.0, counters))
    (found,) = asked_services(table(AUTH), Figures())
    total = sum(results.values())
    assert (found["asked"], found["denied"], found["state"]) == (total, results.get("denied", 0), state)
    assert found["failed"] == results.get("error", 0) + results.get("failed_open", 0)
    assert found["mean_ms"] == (2000 / total if total else None)
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("text", "local", "state"),
    [(AUTH, "auth", "local"), (auth_service(timeout_ms="x"), "shop", "in_error"), ("", "shop", None)],
)
def test_a_service_that_nobody_asks(text: str, local: str, state: str | None) -> None:
    assert [each["state"] for each in asked_services(table(text, local), Figures())] == ([state] if state else [])
