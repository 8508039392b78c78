"""What would happen to a request, told by the code that routes: `decide`, `exchange` and `forwarding` themselves.

Shares are exact: the draws between two neighbouring thresholds all lead to the same decision, so one draw of each
interval is decided and its width added up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .ambassador import parse
from .cors import marked
from .decision import Decision, decide, rest_bounds
from .exceptions import ClientError
from .exchange import exchange
from .forwarding import Hop
from .headervalues import Template
from .mapping import Mapping
from .messages import Diagnostic, Document, Reply, RequestHead, UpstreamRequest
from .table import RouteTable

_HOP = Hop(b"canary-mw", trusted=False, new_id=lambda: b"")
# What every forwarded request gets or loses, whatever the rules say.
_NOT_LISTED = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings proxy-authenticate"
    b" proxy-authorization host content-length expect via x-request-id forwarded x-real-ip".split()
)


@dataclass(frozen=True, slots=True)
class Considered:
    """A group whose prefix and host could match, and the first test that failed, or why it takes the request."""

    group: str
    matched: bool
    why: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that can happen.

    Attributes:
        decision: None when no Mapping takes the request.
        percent: exact share in (0, 100].
        outcome: the request to send, or our own answer; None when the wrapped app answers.
    """

    decision: Decision | None
    percent: float
    outcome: UpstreamRequest | Reply | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that can happen to a request; the shares of the candidates add up to 100.

    Attributes:
        head: the request as it came, before the Module's demands changed it.
    """

    head: RequestHead
    candidates: list[Candidate] = field(default_factory=list)
    considered: list[Considered] = field(default_factory=list)


def explain(table: RouteTable, head: RequestHead) -> Explanation:
    """Tell what routing does with a request, without doing it."""
    try:
        admitted = table.admit(head)
    except ClientError as exc:
        return Explanation(head, [Candidate(None, 100.0, Reply(exc.status_hint))])
    shares: dict[Decision | None, float] = {}
    for low, high in pairwise(_bounds(table, admitted)):
        decision = decide(table, admitted, (low + high) / 2)
        shares[decision] = shares.get(decision, 0.0) + high - low
    candidates = [Candidate(d, percent, _outcome(table, d, admitted)) for d, percent in shares.items()]
    return Explanation(head, candidates, [_considered(group, admitted) for group in table.candidates(admitted)])


def _bounds(table: RouteTable, head: RequestHead) -> list[float]:
    """Every draw at which the decision may change, with 0 and 100."""
    matching = [group for group in table.candidates(head) if group.mismatch(head) is None]
    bounds = {0.0, 100.0}
    for group in matching:
        bounds.update(share.bound for share in group.shares if 0 < share.bound < 100)
    reached = max((group.reach(head) for group in matching), default=100.0)
    leftover = next((group for group in matching if group.reach(head) > 0), None)
    if leftover is not None and reached < 100:
        bounds.update(bound for bound, _ in rest_bounds(leftover, head, reached))
    return sorted(bounds)


def _considered(group: Any, head: RequestHead) -> Considered:
    failed = group.mismatch(head)
    if failed is not None:
        return Considered(group.name, False, f"not: {failed.text}")
    return Considered(group.name, True, ", ".join(test.text for test in group.tests))


def _outcome(table: RouteTable, decision: Decision | None, head: RequestHead) -> UpstreamRequest | Reply | None:
    if decision is None:
        return None if table.middleware else Reply(404)
    if decision.local and table.middleware:
        return None
    try:
        return next(exchange(decision, head, _HOP))
    except StopIteration as stop:
        reply: Reply = stop.value
        return reply
    except ClientError as exc:
        return Reply(exc.status_hint)


def explain_batch(message: dict[str, Any], environ: dict[str, str]) -> dict[str, Any]:
    """One line of `canary-mw explain --batch`: rules and requests in, findings and results out, all as JSON values."""
    middleware = message.get("mode") == "middleware"
    local = message.get("local")
    rules = parse([Document(message["rules"], "rules")], environ=environ)
    table = RouteTable.build(
        rules.mappings, local=[local] if local else (), middleware=middleware, settings=rules.surroundings.globals
    )
    found = (*rules.diagnostics, *table.diagnostics)
    return {
        "diagnostics": [diagnostic_json(d) for d in found],
        "results": [_request_json(table, request) for request in message["requests"]],
    }


def diagnostic_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """A finding as JSON values."""
    hint = f" ({diagnostic.hint})" if diagnostic.hint else ""
    return {
        "severity": diagnostic.severity,
        "file": diagnostic.file,
        "line": diagnostic.line,
        "mapping": diagnostic.mapping,
        "code": diagnostic.code,
        "message": diagnostic.message + hint,
    }


def _request_json(table: RouteTable, request: dict[str, Any]) -> dict[str, Any]:
    given = request.get("headers") or {}
    headers = list(given.items()) if isinstance(given, dict) else [(name, value) for name, value in given]
    if request.get("host") is not None:
        headers.insert(0, ("host", request["host"]))
    try:
        client = request.get("client", "127.0.0.1")
        head = RequestHead(request["method"], request["path"], headers, client=client)
    except ClientError as exc:
        return {"candidates": [_candidate(None, 100.0, exc.status_hint)], "considered": []}
    return explanation_json(table, explain(table, head))


def explanation_json(table: RouteTable, explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON values."""
    return {
        "candidates": [_candidate_json(table, explanation.head, c) for c in explanation.candidates],
        "considered": [{"group": c.group, "matched": c.matched, "why": c.why} for c in explanation.considered],
    }


def _candidate(decision: Decision | None, percent: float, status: int) -> dict[str, Any]:
    return {
        "mapping": decision and decision.mapping.name,
        "service": decision and decision.mapping.service.text,
        "variant": decision and decision.variant,
        "weight_percent": percent,
        "status": status,
        "upstream": None,
        "redirect": None,
        "response": None,
        "shadow": None,
        "attributes": attributes_of(decision.mapping) if decision else {},
    }


def attributes_of(mapping: Mapping) -> dict[str, Any]:
    """The attributes that are kept as they were written, for those who read the rules; most have no effect yet."""
    return {name: _plain(value) for name, value in mapping.extras.items()}


def _plain(value: Any) -> Any:
    """A value of a document as JSON has it: YAML knows more types."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _candidate_json(table: RouteTable, head: RequestHead, candidate: Candidate) -> dict[str, Any]:
    decision, outcome = candidate.decision, candidate.outcome
    status = outcome.status if isinstance(outcome, Reply) else 0
    told = _candidate(decision, candidate.percent, status)
    if decision is None:
        return told if outcome is not None else {**told, "service": "app"}
    if isinstance(outcome, Reply) and outcome.headers and outcome.headers[0][0] == b"location":
        told["redirect"] = {"status": status, "location": _text(outcome.headers[0][1])}
    if isinstance(outcome, Reply) and status == 200:
        added = {_text(name): [_text(value)] for name, value in outcome.headers or () if name not in _NOT_LISTED}
        told["response"] = {"headers_added": added, "headers_removed": [], "headers_changed": {}}
    if isinstance(outcome, UpstreamRequest):
        mapping = decision.mapping
        told["upstream"] = _upstream_json(outcome, head, mapping)
        told["response"] = _response_json(mapping, head)
        told["shadow"] = _shadow_json(decision, outcome.shadow)
    return told


def _upstream_json(request: UpstreamRequest, head: RequestHead, mapping: Mapping) -> dict[str, Any]:
    before, after = _by_name(head.headers), _by_name(request.headers)
    return {
        "method": request.method,
        "path": _text(request.target),
        "host": _text(request.headers[0][1]),
        "headers_added": {name: values for name, values in after.items() if name not in before},
        "headers_removed": [name for name in before if name not in after],
        "headers_changed": {n: values for n, values in after.items() if n in before and values != before[n]},
        "timeout_ms": mapping.timeout_ms,
    }


def _by_name(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name not in _NOT_LISTED and not name.startswith(b"x-forwarded-"):
            found.setdefault(_text(name), []).append(_text(value))
    return found


def _response_json(mapping: Mapping, head: RequestHead) -> dict[str, Any]:
    """What happens to the headers of any answer; the values of `%RESP%` and the like stay as they are written."""
    added: dict[str, list[str]] = {}
    changed: dict[str, list[str]] = {}
    for name, value, append in mapping.add_response_headers:
        text = value.text if isinstance(value, Template) else _text(value)
        (added if append else changed).setdefault(_text(name), []).append(text)
    if mapping.cors is not None:
        for name, value in marked(mapping.cors, head, []):
            changed[_text(name)] = [_text(value)]
    removed = [_text(name) for name in mapping.remove_response_headers]
    return {"headers_added": added, "headers_removed": removed, "headers_changed": changed}


def _shadow_json(decision: Decision, copy: UpstreamRequest | None) -> dict[str, Any] | None:
    if decision.shadow is None or copy is None:
        return None
    return {
        "service": copy.service,
        "path": _text(copy.target),
        "host": _text(copy.headers[0][1]),
        "percent": 100 if decision.shadow.weight is None else decision.shadow.weight,
    }


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")
