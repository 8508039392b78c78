"""What Emissary's own compiler and a real Envoy did, recorded, and changed where we differ on purpose.

A case holds rules, requests, and for each request every answer that can come, with its share:

- from an upstream: `mapping`, `service`, `method`, `path` with the query, `host`, headers `added`, `removed` and
  `changed` by the proxy, `timeout_ms`, the headers of the answer if the upstream sends those of `ECHO`, and `shadow`;
- our own: `status`, and `location` of a redirect.

A field that is not there was not recorded. `errors` are findings that there must be, `silent` names Mappings about
which there may be no error.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from canary_mw.inspection.explanation_json import explain_batch

Json = dict[str, Any]

FILES = sorted(Path(__file__).parent.glob("*.json"))
CASES: list[Json] = [case for file in FILES for case in json.loads(file.read_text("utf-8"))]
ECHO = {"x-echo-a": ["one"], "x-echo-b": ["two"], "x-powered-by": ["echo"]}
FINDINGS = "findings"


def routed(candidate: Json) -> Json:
    """A candidate of `explain_batch` in the form of the recording."""
    share = candidate["weight_percent"]
    if candidate["status"]:
        redirect = candidate["redirect"]
        answer = {"share": share, "status": candidate["status"]}
        return {**answer, "location": redirect["location"]} if redirect else answer
    upstream, response = candidate["upstream"], candidate["response"]
    return {
        "share": share,
        "mapping": candidate["mapping"],
        "service": candidate["service"],
        **{name: upstream[name] for name in ("method", "path", "host", "timeout_ms")},
        "added": upstream["headers_added"],
        "removed": sorted(upstream["headers_removed"]),
        "changed": upstream["headers_changed"],
        "response": answered(response),
        "shadow": candidate["shadow"],
    }


def answered(changes: Json) -> dict[str, list[str]]:
    """The headers of the answer, after what a Mapping does to those of `ECHO`."""
    headers = {name: values for name, values in ECHO.items() if name not in changes["headers_removed"]}
    headers |= changes["headers_changed"]
    for name, values in changes["headers_added"].items():
        headers[name] = [*headers.get(name, []), *values]
    return headers


def merged(candidates: list[Json]) -> dict[tuple[Any, ...], Json]:
    """By what they are; the shares of equal ones add up. Which Mapping an answer of our own is due to, is left open."""
    found: dict[tuple[Any, ...], Json] = {}
    for candidate in candidates:
        key = tuple(candidate.get(name) for name in ("mapping", "service", "status", "location"))
        share = found[key]["share"] + candidate["share"] if key in found else candidate["share"]
        found[key] = {**candidate, "share": share}
    return found


def differences(wanted: list[Json], got: list[Json]) -> list[object]:
    """What differs between the candidates of a request, in words."""
    ours, theirs = merged(got), merged(wanted)
    if ours.keys() != theirs.keys():
        return [("candidates", [*theirs], [*ours])]
    found: list[object] = []
    for key, candidate in theirs.items():
        for name, value in candidate.items():
            same = abs(value - ours[key][name]) < 1e-6 if name == "share" else value == ours[key][name]
            found += [] if same else [(key[0], name, value, ours[key][name])]
    total = sum(candidate["share"] for candidate in got)
    return found if abs(total - 100) < 1e-6 else [*found, ("the shares add up to", total)]


def findings_missing(case: Json, diagnostics: list[Json]) -> list[object]:
    """What the findings should say and do not, and what they should not and do."""
    errors = [found for found in diagnostics if found["severity"] == "error"]
    missing: list[object] = [wanted for wanted in case["errors"] if not any(about(wanted, error) for error in errors)]
    return missing + [error for error in errors if error["mapping"] in case["silent"]]


def about(wanted: Json, error: Json) -> bool:
    """Whether an error is the one that is wanted: names the Mapping, or a line of its document."""
    if "mapping" not in wanted:
        return True
    line = error["line"] or 0
    return error["mapping"] == wanted["mapping"] or any(first <= line <= last for first, last in wanted["lines"])


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_rules_do_what_emissary_and_envoy_did(case: Json) -> None:
    message = {"rules": case["rules"], "source": case["source"], "mode": "standalone", "local": None}
    answer = json.loads(json.dumps(explain_batch({**message, "requests": case["requests"]}, {})))
    wrong: dict[int | str, list[object]] = {FINDINGS: findings_missing(case, answer["diagnostics"])}
    for number, (request, result) in enumerate(zip(case["requests"], answer["results"], strict=True)):
        wrong[number] = differences(request["expected"], [routed(candidate) for candidate in result["candidates"]])
    assert {place: found for place, found in wrong.items() if found} == {}


def test_no_case_got_lost() -> None:
    assert len(CASES) > 400
    assert sum(len(case["requests"]) for case in CASES) > 4100
