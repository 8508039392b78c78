"""The answer about services that are asked before a request goes on: what they said, and how long that took."""

from collections.abc import Iterator
from collections.abc import Mapping as Dict
from typing import Any

from canary_mw.admin.models.rules import AskedService, AskedState
from canary_mw.observability.figures.values import Figures, counters_in
from canary_mw.routing.table import RouteTable
from canary_mw.rules.filters.limits import RateLimitPolicy

WINDOW = 300
LABELS: dict[AskedState, str] = {
    "asked": "Asked",
    "failing": "Failing",
    "in_error": "In error: answered 500",
    "local": "This process: nobody is asked",
}


def asked_services(table: RouteTable, figures: Figures) -> list[AskedService]:
    """The services of the rules in force, with the last 5 minutes."""
    filters = table.settings.filters
    if filters.auth is None and not filters.auth_in_error and filters.rate_limit is None:
        return []
    counted = counters_in(figures, WINDOW)[1]
    return [*_auth(table, counted), *_rate_limit(filters.rate_limit, counted)]


def _auth(table: RouteTable, counted: Dict[Any, int]) -> Iterator[AskedService]:
    filters = table.settings.filters
    if filters.auth is None and not filters.auth_in_error:
        return
    services = [each.text for each in filters.auth.services] if filters.auth is not None else []
    results = {name: _count(counted, services, name) for name in ("allowed", "denied", "error", "failed_open")}
    asked, failed = sum(results.values()), results["error"] + results["failed_open"]
    state = _state(table, failing=_is_failing(asked, failed))
    yield {
        "kind": "AuthService",
        "name": filters.auth.name if filters.auth is not None else filters.auth_in_error,
        "services": services,
        "state": state,
        "label": LABELS[state],
        "asked": asked,
        "denied": results["denied"],
        "failed": failed,
        "mean_ms": _mean(sum(counted.get(("auth_seconds", name), 0) for name in services), asked),
    }


def _rate_limit(policy: RateLimitPolicy | None, counted: Dict[Any, int]) -> Iterator[AskedService]:
    if policy is None:
        return
    results = {name: counted.get(("rate_limit", name), 0) for name in ("ok", "over_limit", "error")}
    asked = sum(results.values())
    state: AskedState = "failing" if _is_failing(asked, results["error"]) else "asked"
    yield {
        "kind": "RateLimitService",
        "name": policy.name,
        "services": [policy.service.text],
        "state": state,
        "label": LABELS[state],
        "asked": asked,
        "denied": results["over_limit"],
        "failed": results["error"],
        "mean_ms": _mean(counted.get(("rate_limit_seconds",), 0), asked),
    }


def _mean(micros: int, asked: int) -> float | None:
    return micros / 1000 / asked if asked else None


def _is_failing(asked: int, failed: int) -> bool:
    return failed > 0 and failed >= asked - failed


def _count(counted: Dict[Any, int], services: list[str], result: str) -> int:
    return sum(counted.get(("auth", name, result), 0) for name in services)


def _state(table: RouteTable, *, failing: bool) -> AskedState:
    if table.filters is None:
        return "local"
    if table.filters.auth is None:
        return "in_error"
    return "failing" if failing else "asked"
