"""A command as it comes over HTTP: who gives it, which one it is, and for which version of the state."""

import json
import re
from collections.abc import Mapping as Dict
from typing import Any, NamedTuple

from starlette.requests import Request

from canary_mw.admin.commands.tokens import Scope, Token, token_of
from canary_mw.admin.errors import Refused
from canary_mw.admin.parameters import json_body
from canary_mw.rollout.commands import COMMANDS, CommandName

# What a token of a scope may do.
ALLOWED: dict[Scope, tuple[CommandName, ...]] = {
    "operate": COMMANDS,
    "stop": ("abort", "pause"),
    "peer": (),
}
_VERSION = re.compile(r'(?:W/)?"?(\d{1,18})"?')
_TRUE, _FALSE = frozenset(("true", "1", "yes")), frozenset(("false", "0", "no"))
_CHALLENGE = "Bearer"


class Asked(NamedTuple):
    """A command that somebody gives.

    Attributes:
        weight: of `set-weight`, percent of all gray variants together.
        full: of `promote`: to the end.
        version: that the state must have, None for any.
    """

    release: str
    command: CommandName
    weight: float | None
    full: bool
    version: int | None


def permitted(tokens: tuple[Token, ...], request: Request, command: str) -> Token:
    """Who gives a command.

    Raises:
        Refused: nobody may, or not with this token, or not without one.
    """
    token = _shown(tokens, request)
    if command in COMMANDS and command not in ALLOWED[token.scope]:
        raise _out_of_scope(token, "give this command")
    return token


def permitted_peer(tokens: tuple[Token, ...], request: Request) -> Token:
    """Which pod asks or tells something; raises as `permitted`."""
    token = _shown(tokens, request)
    if token.scope != "peer":
        raise _out_of_scope(token, "belong to a pod: that needs the scope peer")
    return token


def _out_of_scope(token: Token, what: str) -> Refused:
    headers = {"www-authenticate": f'{_CHALLENGE} error="insufficient_scope"'}
    return Refused(403, "wrong-scope", f"a token of the scope {token.scope} does not {what}", headers)


def _shown(tokens: tuple[Token, ...], request: Request) -> Token:
    """The token that a request shows."""
    given = request.headers.get("authorization")
    if not tokens:
        raise Refused(403, "read-only", "this admin port has no token for commands: it only reads (--admin-token-file)")
    if given is None:
        raise Refused(403, "no-token", "commands need a token: send authorization: Bearer TOKEN")
    scheme, _, text = given.partition(" ")
    token = token_of(tokens, text.strip().encode("latin-1")) if scheme.lower() == "bearer" else None
    if token is None:
        headers = {"www-authenticate": f'{_CHALLENGE} error="invalid_token"'}
        raise Refused(401, "wrong-token", "this token is not one of this admin port", headers)
    return token


async def asked(request: Request) -> Asked:
    """The command that a request gives.

    Raises:
        Refused: it is none, or something in it is not understood.
    """
    name, command = path_of(request)
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise Refused(404, "unknown-command", f"there is no such command: there are {known}")
    fields = {**request.query_params, **await _fields(request)}
    takes = {"promote": ("full",), "set-weight": ("weight",)}.get(command, ())
    for field in fields:
        if field not in takes:
            raise Refused(
                400, "unknown-field", f"{command} takes {' and '.join(takes) or 'nothing'}, not {field!r:.60}"
            )
    weight = _weight(fields.get("weight")) if command == "set-weight" else None
    return Asked(name, command, weight, _flag(fields.get("full", False)), _version(request))


def path_of(request: Request) -> tuple[str, str]:
    """The release and the command of a path; a name may hold slashes."""
    name, _, command = str(request.path_params["path"]).rpartition("/")
    return name, command


async def _fields(request: Request) -> Dict[str, Any]:
    found = await json_body(request, '{"weight": 25}', nothing={})
    if not isinstance(found, dict):
        raise Refused(400, "bad-request", 'the body is no object: write {"weight": 25}, or none')
    return found


def _weight(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 100:
        raise Refused(400, "bad-weight", "set-weight takes a weight from 0 to 100 percent, as ?weight=25")
    return number


def _flag(value: Any) -> bool:
    text = str(value).lower()
    if text not in _TRUE | _FALSE:
        raise Refused(400, "bad-full", "full must be true or false")
    return text in _TRUE


def _version(request: Request) -> int | None:
    """The version of If-Match; None where it is left out, or is "*"."""
    given = request.headers.get("if-match", "*").strip()
    if given == "*":
        return None
    found = _VERSION.fullmatch(given)
    if found is None:
        raise Refused(400, "bad-version", 'If-Match must be the ETag of the release, as "7"')
    return int(found[1])


def etag(version: int) -> str:
    """The ETag of a state."""
    return json.dumps(str(version))
