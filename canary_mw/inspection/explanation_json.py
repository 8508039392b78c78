"""Explanations and findings as JSON values, and the lines of `canary-mw explain --batch`."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from canary_mw.config.canary.resolution import ReadIds
from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.parser import parse
from canary_mw.exceptions import ClientError
from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.http.headers import HOP_BY_HOP_HEADERS
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import Candidate, Explanation, explain
from canary_mw.inspection.lint import lint_variables
from canary_mw.routing.assignment import Assigned, CompiledRelease
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable
from canary_mw.rules.cors import with_cors_headers
from canary_mw.rules.header_templates import HeaderTemplate
from canary_mw.rules.mapping import DEFAULT_TIMEOUT_MS, Mapping

# Headers that forwarding adds to or removes from every request, whatever the rules are.
_NOT_LISTED = HOP_BY_HOP_HEADERS.union(b"host content-length expect via x-request-id forwarded x-real-ip".split())


def explain_batch(
    message: dict[str, Any],
    environ: Dict[str, str],
    documents: Sequence[Document] = (),
    ambassador_id: str = "default",
    read_ids: ReadIds | None = None,
) -> dict[str, Any]:
    """Handle one line of `canary-mw explain --batch`.

    Args:
        message: rules and requests as JSON values.
        environ: variables that replace `$NAME` in the rules, as `canary-mw serve` replaces them.
        documents: the rules of a message without any.
        ambassador_id: documents for another id are passed over.
        read_ids: reads the files of ids that releases name.

    Returns:
        Findings and results as JSON values.
    """
    texts = (Document(message["rules"], "rules"),) if "rules" in message else tuple(documents)
    middleware = message.get("mode") == "middleware"
    table, found = _table(texts, frozenset(environ.items()), ambassador_id, middleware, message.get("local"), read_ids)
    return {
        "diagnostics": [diagnostic_json(d) for d in found],
        "results": [_request_json(table, request) for request in message["requests"]],
    }


# The lines of a batch usually have the same rules, and to read them takes longer than all the rest.
@lru_cache(maxsize=2)
def _table(
    documents: tuple[Document, ...],
    environ: frozenset[tuple[str, str]],
    ambassador_id: str,
    middleware: bool,
    local: str | None,
    read_ids: ReadIds | None,
) -> tuple[RouteTable, tuple[Diagnostic, ...]]:
    """The table of some rules, and the findings about them."""
    variables = dict(environ)
    rules = parse(documents, environ=variables, ambassador_id=ambassador_id, middleware=middleware, read_ids=read_ids)
    names, settings = [local] if local else (), rules.shared.settings
    table = RouteTable.build(
        rules.mappings, local=names, middleware=middleware, settings=settings, releases=rules.releases
    )
    return table, (*rules.diagnostics, *table.diagnostics, *lint_variables(rules, variables))


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
        return {"candidates": [_candidate(None, 100.0, exc.status_hint)], "considered": [], "release": None}
    person = Person(
        request.get("user"), request.get("session"), request.get("predicates") or {}, bool(request.get("peer_trusted"))
    )
    return explanation_json(table, explain(table, head, person))


def explanation_json(table: RouteTable, explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON values."""
    return {
        "candidates": [_candidate_json(table, explanation.head, c) for c in explanation.candidates],
        "considered": [{"group": c.group, "matched": c.matched, "why": c.why} for c in explanation.considered],
        "release": _release_json(explanation.release, explanation.assigned),
    }


def _release_json(release: CompiledRelease | None, assigned: Assigned | None) -> dict[str, Any] | None:
    """What a release decides; variant and slot are None where the request alone does not settle them."""
    if release is None or assigned is None:
        return None
    return {
        "name": assigned.name,
        "variant": assigned.variant,
        "reason": assigned.reason,
        "key": assigned.key,
        "slot": assigned.slot,
        "cookie": "set" if assigned.reason == "new" else None,
        "ranges": {name: [list(each) for each in ranges] for name, ranges in release.claims.ranges.items()},
        "shares": release.effective_shares(),
    }


def _candidate(decision: Decision | None, percent: float, status: int) -> dict[str, Any]:
    return {
        "mapping": (decision and decision.mapping.name) or None,
        "service": decision and decision.mapping.service.text,
        "variant": decision and decision.variant,
        "assigned": decision and decision.release and decision.release.variant,
        "weight_percent": percent,
        "status": status,
        "upstream": None,
        "redirect": None,
        "response": None,
        "shadow": None,
        "attributes": attributes_of(decision.mapping) if decision else {},
    }


def attributes_of(mapping: Mapping) -> dict[str, Any]:
    """The attributes of a Mapping that are kept as written; most of them have no effect yet."""
    return {name: _json_value(value) for name, value in mapping.extras.items()}


def _json_value(value: Any) -> Any:
    """A YAML value as a JSON value; types that JSON does not have become text."""
    if isinstance(value, dict):
        return {str(name): _json_value(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _candidate_json(table: RouteTable, head: RequestHead, candidate: Candidate) -> dict[str, Any]:
    decision, outcome = candidate.decision, candidate.outcome
    status = outcome.status if isinstance(outcome, Reply) else 0
    result = _candidate(decision, candidate.percent, status)
    if table.filters is not None:
        result["asks"] = list(candidate.asks)
    if decision is None:
        return result if outcome is not None else {**result, "service": "app"}
    if isinstance(outcome, Reply) and outcome.headers and outcome.headers[0][0] == b"location":
        result["redirect"] = {"status": status, "location": _text(outcome.headers[0][1])}
    if isinstance(outcome, Reply) and status == 200:
        added = {_text(name): [_text(value)] for name, value in outcome.headers or () if name not in _NOT_LISTED}
        result["response"] = {"headers_added": added, "headers_removed": [], "headers_changed": {}}
    if isinstance(outcome, UpstreamRequest):
        mapping = decision.mapping
        result["upstream"] = _upstream_json(outcome, head, mapping)
        result["response"] = _response_json(mapping, head)
        result["shadow"] = _shadow_json(decision, outcome.shadow)
    return result


def _upstream_json(request: UpstreamRequest, head: RequestHead, mapping: Mapping) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": _text(request.target),
        "host": _text(request.headers[0][1]),
        **changed_headers(request, head),
        "timeout_ms": DEFAULT_TIMEOUT_MS if mapping.timeout_ms is None else mapping.timeout_ms,
    }


def changed_headers(request: UpstreamRequest, head: RequestHead) -> dict[str, Any]:
    """What the rules change in the headers of a request."""
    before, after = _by_name(head.headers), _by_name(request.headers)
    return {
        "headers_added": {name: values for name, values in after.items() if name not in before},
        "headers_removed": [name for name in before if name not in after],
        "headers_changed": {n: values for n, values in after.items() if n in before and values != before[n]},
    }


def _by_name(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name not in _NOT_LISTED and not name.startswith(b"x-forwarded-"):
            found.setdefault(_text(name), []).append(_text(value))
    return found


def _response_json(mapping: Mapping, head: RequestHead) -> dict[str, Any]:
    """Changes to the headers of every response; templates such as `%RESP(x)%` are shown as written."""
    added: dict[str, list[str]] = {}
    changed: dict[str, list[str]] = {}
    for name, value, append in mapping.add_response_headers:
        text = value.text if isinstance(value, HeaderTemplate) else _text(value)
        (added if append else changed).setdefault(_text(name), []).append(text)
    if mapping.cors is not None:
        for name, value in with_cors_headers(mapping.cors, head, []):
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
