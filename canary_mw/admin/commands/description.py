"""Commands in the description of the API."""

from typing import Any

from canary_mw.admin.models.common import ErrorAnswer
from canary_mw.admin.models.releases import CommandAnswer, RolledBackAnswer
from canary_mw.admin.schemas import schema_of
from canary_mw.rollout.commands import COMMANDS
from canary_mw.rollout.state import LATCHED

PATH = "releases/{name}/{command}"
EVIDENCE_PATH, ROLLED_BACK_PATH = "evidence", "releases/{name}/rolled-back"
SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of the file of --admin-token-file."}
}
_WEIGHT = {"type": "number", "minimum": 0, "maximum": 100}
_PARAMETERS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("name", "path", {"type": "string"}, "Of a GrayRelease."),
    ("command", "path", {"enum": list(COMMANDS)}, "What to do."),
    ("weight", "query", _WEIGHT, "Of set-weight: percent of all gray variants together."),
    ("full", "query", {"type": "boolean", "default": False}, "Of promote: past all steps."),
    ("If-Match", "header", {"type": "string"}, "The ETag of the release that was looked at; any without it."),
)
_ERRORS = {
    "401": "The token is not one of this admin port.",
    "403": "There is no token, or it does not give this command, or the port has none.",
    "404": "There is no such release or command.",
    "409": "The command does not fit the phase of the release. Nothing is changed.",
    "412": "The state has moved on since it was looked at. Nothing is changed.",
    "default": "What is wrong.",
}
_BODY = {
    "type": "object",
    "properties": {"weight": _WEIGHT, "full": {"type": "boolean"}},
    "additionalProperties": False,
}

_ROLLED_BACK = {
    "attempt": {"type": "integer", "minimum": 1},
    "phase": {"enum": list(LATCHED), "default": LATCHED[0]},
    "reason": {"type": "string"},
}


def described(components: dict[str, Any]) -> dict[str, Any]:
    """The operations of the path of commands; the schemas of what they answer are added to `components`."""
    answers = {"200": _response("What the release is then.", schema_of(CommandAnswer, components))}
    answers |= {status: _response(text, schema_of(ErrorAnswer, components)) for status, text in _ERRORS.items()}
    parameters = [
        {"name": name, "in": place, "required": place == "path", "schema": schema, "description": text}
        for name, place, schema, text in _PARAMETERS
    ]
    return {
        "post": {
            "operationId": "command",
            "summary": "Give a command to a release.",
            "parameters": parameters,
            "requestBody": {"required": False, "content": {"application/json": {"schema": _BODY}}},
            "responses": answers,
            "security": [{"bearer": []}],
        }
    }


def evidence(components: dict[str, Any]) -> dict[str, Any]:
    """The operations of the evidence of a pod."""
    octets = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    cursor = {"x-canary-mw-cursor": {"description": "Names this evidence.", "schema": {"type": "string"}}}
    text = "The evidence of all attempts in force, as other pods read it: 1 MiB at most, 16 MiB unpacked."
    answers: dict[str, Any] = {
        "200": {"description": text, "headers": cursor, "content": octets},
        "304": {"description": "It is that of the cursor.", "headers": cursor},
    }
    answers |= _peer_errors(components)
    since = {"name": "since", "in": "query", "required": False, "schema": {"type": "string"}}
    return {
        "get": {
            "operationId": "evidence",
            "summary": "What this pod has seen of its releases, for the pod that controls.",
            "parameters": [{**since, "description": "The cursor of what is known already."}],
            "responses": answers,
            "security": [{"bearer": []}],
        }
    }


def rolled_back(components: dict[str, Any]) -> dict[str, Any]:
    """The operations of telling a pod of a rollback."""
    answers = {"200": _response("It is believed.", schema_of(RolledBackAnswer, components))}
    refused = "There is no such release, or the attempt is far ahead."
    answers |= _peer_errors(components) | {"409": _response(refused, schema_of(ErrorAnswer, components))}
    body = {"type": "object", "required": ["attempt"], "properties": _ROLLED_BACK}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "post": {
            "operationId": "rolledBack",
            "summary": "Tell a pod that another one has rolled a release back, or aborted it.",
            "parameters": [{**name, "description": "Of a GrayRelease."}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": answers,
            "security": [{"bearer": []}],
        }
    }


def _peer_errors(components: dict[str, Any]) -> dict[str, Any]:
    texts = {each: _ERRORS[each] for each in ("401", "default")}
    texts["403"] = "There is no token, or it has not the scope peer, or the port has none."
    return {status: _response(text, schema_of(ErrorAnswer, components)) for status, text in texts.items()}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
