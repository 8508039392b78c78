"""What is asked for: the parameters of a query."""

import json
from collections.abc import Mapping as Dict
from typing import Any, get_args

from starlette.requests import Request

from canary_mw.admin.answers.rules import MOST
from canary_mw.admin.errors import Refused
from canary_mw.admin.models.figures import WindowName
from canary_mw.admin.models.operations import Outcome, TrafficFilter
from canary_mw.admin.models.rules import RulesFilter, RuleState

# Bytes of the body of a question.
_MOST_BYTES = 65536
_EXPLAIN = '{"method": "GET", "url": "https://shop.example/"}'


def window_of(query: Dict[str, str]) -> WindowName:
    """The window of time.

    Raises:
        Refused: it is none of those that there are.
    """
    name: Any = query.get("window", "5m")
    if name not in get_args(WindowName):
        raise Refused(400, "bad-window", f"window must be one of {', '.join(get_args(WindowName))}")
    window: WindowName = name
    return window


def rules_filter(query: Dict[str, str]) -> RulesFilter:
    """The filter of the page of rules; raises as `window_of` does."""
    state: Any = query.get("state") or None
    if state is not None and state not in get_args(RuleState):
        raise Refused(400, "bad-state", f"state must be one of {', '.join(get_args(RuleState))}")
    return {
        "q": query.get("q", ""),
        "state": state,
        "release": query.get("release") or None,
        "limit": _number(query, "limit", 100, 1, MOST),
        "after": _number(query, "after", 0, 0, 10_000_000),
    }


def traffic_filter(query: Dict[str, str]) -> TrafficFilter:
    """The filter of the page of traffic; raises as `window_of` does."""
    outcome: Any = query.get("outcome") or None
    if outcome is not None and outcome not in get_args(Outcome):
        raise Refused(400, "bad-outcome", f"outcome must be one of {', '.join(get_args(Outcome))}")
    return {
        "q": query.get("q", ""),
        "release": query.get("release") or None,
        "variant": query.get("variant") or None,
        "outcome": outcome,
    }


def _number(query: Dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise Refused(400, f"bad-{name}", f"{name} must be a whole number, {low} to {high}")
    return int(text)


async def json_body(request: Request, example: str = _EXPLAIN, nothing: Any = ...) -> Any:
    """The body of a request as JSON.

    Args:
        example: of one, for errors.
        nothing: what a request without a body means; without it, an error.

    Raises:
        Refused: it is too long, or no JSON.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise Refused(413, "too-large", f"the body has more than {_MOST_BYTES} bytes")
    if not body and nothing is not ...:
        return nothing
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "bad-json", f"the body is no JSON: write {example}") from None
