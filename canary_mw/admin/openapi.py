"""The description of the API, by OpenAPI 3.1."""

from functools import lru_cache
from typing import Any

from canary_mw import __version__
from canary_mw.admin.commands import description
from canary_mw.admin.events import ReloadChange, Tick, Transition, VerdictChange, WorkerChange
from canary_mw.admin.models.common import ErrorAnswer
from canary_mw.admin.models.counts import FiguresAnswer
from canary_mw.admin.models.explain import ExplainAnswer
from canary_mw.admin.models.operations import AboutAnswer, EndpointsAnswer, ReloadsAnswer, TrafficAnswer
from canary_mw.admin.models.release import ReleaseAnswer
from canary_mw.admin.models.releases import Overview, ReleasesAnswer
from canary_mw.admin.models.rules import RulesAnswer
from canary_mw.admin.schemas import schema_of

_TEXT = {"type": "string"}
_WINDOW = {"type": "string", "enum": ["1m", "5m", "15m", "1h"], "default": "5m"}
_QUESTION = ("method", "url", "client", "headers", "cookies", "user", "session")
# By path: what it answers, in words, its model, and its parameters.
_PATHS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "overview": ("All releases, the most urgent first.", Overview, {"window": _WINDOW}),
    "releases": ("How far the releases are, by name.", ReleasesAnswer, {}),
    "releases/{name}": ("One release.", ReleaseAnswer, {"window": _WINDOW}),
    "rules": (
        "The rules in the order in which they are tried, and what is wrong with them.",
        RulesAnswer,
        {
            "q": _TEXT,
            "state": {"type": "string", "enum": ["live", "last_good", "never_reached", "ignored"]},
            "release": _TEXT,
            "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
            "after": {"type": "integer", "minimum": 0, "default": 0},
        },
    ),
    "explain": (
        "What would happen to a request, by the code that routes. Nothing is sent.",
        ExplainAnswer,
        dict.fromkeys(_QUESTION, _TEXT),
    ),
    "traffic": (
        "The last decisions, newest first: a sample.",
        TrafficAnswer,
        {
            "q": _TEXT,
            "release": _TEXT,
            "variant": _TEXT,
            "outcome": {"type": "string", "enum": ["answered", "failed", "fallback"]},
        },
    ),
    "reloads": ("The last changes of the rules, newest first.", ReloadsAnswer, {}),
    "figures": ("The raw counts, added up over the workers.", FiguresAnswer, {}),
    "endpoints": ("The addresses of services.", EndpointsAnswer, {}),
    "about": ("The process, its workers and its settings.", AboutAnswer, {}),
}
_EXPLAIN_BODY = {
    "type": "object",
    "required": ["url"],
    "properties": {
        "method": _TEXT,
        "url": _TEXT,
        "client": _TEXT,
        "headers": {
            "anyOf": [
                {"type": "object", "additionalProperties": _TEXT},
                {"type": "array", "items": {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}},
                _TEXT,
            ]
        },
        "cookies": _TEXT,
        "user": {},
        "session": {},
        "predicates": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "peer_trusted": {"type": "boolean"},
    },
}


@lru_cache(maxsize=1)
def openapi() -> dict[str, Any]:
    """The description of the API."""
    components: dict[str, Any] = {}
    paths = {f"/api/v1/{path}": _path(path, components) for path in _PATHS}
    paths["/api/v1/events"] = _events(components)
    paths[f"/api/v1/{description.PATH}"] = description.described(components)
    paths[f"/api/v1/{description.EVIDENCE_PATH}"] = description.evidence(components)
    paths[f"/api/v1/{description.ROLLED_BACK_PATH}"] = description.rolled_back(components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "canary-mw admin port", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": description.SECURITY_SCHEMES,
        },
    }


def _path(path: str, components: dict[str, Any]) -> dict[str, Any]:
    summary, model, parameters = _PATHS[path]
    answers = {
        "200": _response("The answer.", schema_of(model, components)),
        "default": _response("What is wrong.", schema_of(ErrorAnswer, components)),
    }
    listed = [
        {"name": name, "in": "query", "required": path == "explain" and name == "url", "schema": schema}
        for name, schema in parameters.items()
    ]
    if "{name}" in path:
        listed.append({"name": "name", "in": "path", "required": True, "schema": _TEXT})
    name = "release" if path == "releases/{name}" else path
    operations: dict[str, Any] = {
        "get": {"operationId": name, "summary": summary, "parameters": listed, "responses": answers}
    }
    if path == "explain":
        body = {"required": True, "content": {"application/json": {"schema": _EXPLAIN_BODY}}}
        operations["post"] = {
            "operationId": "explainJSON",
            "summary": summary,
            "requestBody": body,
            "responses": answers,
        }
    return operations


def _events(components: dict[str, Any]) -> dict[str, Any]:
    """The stream: its messages are no JSON as a whole, but the data of each is."""
    for model in (Tick, VerdictChange, Transition, ReloadChange, WorkerChange):
        schema_of(model, components)
    names = "tick (Tick), verdict (VerdictChange), release (Transition), reload (ReloadChange), worker (WorkerChange)"
    text = f"Server-sent events {names}. The first ones tell what there is. It ends when the server shuts down."
    answers = {
        "200": {"description": text, "content": {"text/event-stream": {"schema": _TEXT}}},
        "default": _response("What is wrong.", schema_of(ErrorAnswer, components)),
    }
    return {"get": {"operationId": "events", "summary": "What changes.", "parameters": [], "responses": answers}}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
