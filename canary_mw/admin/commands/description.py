"""Commands in the description of the API."""

from typing import Any

from canary_mw.admin.models.common import ErrorAnswer
from canary_mw.admin.models.releases import CommandAnswer
from canary_mw.admin.schemas import schema_of
from canary_mw.rollout.commands import COMMANDS

PATH = "releases/{name}/{command}"
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


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
