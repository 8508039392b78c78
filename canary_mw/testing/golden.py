"""Files of decisions, which a change of rules shows as a difference."""

import json
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from difflib import unified_diff
from pathlib import Path
from typing import Any

from canary_mw.routing.table import RouteTable
from canary_mw.testing.assertions import Route, route


def check_golden(file: Path, rules: RouteTable, requests: Iterable[str | Dict[str, Any]], *, update: bool) -> None:
    """Assert that requests are decided as a file says.

    Args:
        file: one JSON object a request, in a list.
        requests: "GET /shop/", a path alone, or the arguments of `route`.
        update: write the file anew.

    Raises:
        AssertionError: the file is missing, or says something else.
    """
    __tracebackhide__ = True
    lines = [json.dumps(_entry(rules, request), ensure_ascii=False, default=str) for request in requests]
    now = "[\n" + ",\n".join(f"  {line}" for line in lines) + "\n]\n"
    if update:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(now, encoding="utf-8")
        return
    if not file.exists():
        raise AssertionError(f"{file} is missing: `pytest --canary-update` writes it")
    before = file.read_text(encoding="utf-8")
    if before != now:
        changes = unified_diff(before.splitlines(), now.splitlines(), str(file), "the rules", lineterm="", n=0)
        raise AssertionError("\n".join(("decisions have changed; `pytest --canary-update` writes them anew", *changes)))


def _entry(rules: RouteTable, request: str | Dict[str, Any]) -> dict[str, Any]:
    found = _routed(rules, request)
    entry = {"request": request, "variant": found.variant, "mapping": found.mapping, "reason": found.reason}
    return entry if len(found.shares) == 1 else {**entry, "shares": found.shares}


def _routed(rules: RouteTable, request: str | Dict[str, Any]) -> Route:
    if not isinstance(request, str):
        return route(rules, **request)
    method, _, path = request.rpartition(" ")
    return route(rules, path, method or "GET")
