"""The lines of `canary-mw explain --batch`: a JSON object in, a JSON object out, whatever the line holds."""

import json
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict
from typing import Any

from canary_mw.config.canary.resolution import ReadIds
from canary_mw.config.document import Document
from canary_mw.exceptions import ConfigError
from canary_mw.inspection.explanation_json import explain_batch

_MODES = ("standalone", "middleware")
_EXAMPLE = '{"rules": "...", "requests": [{"method": "GET", "path": "/"}]}'


def answer_line(
    number: int,
    line: bytes,
    environ: Dict[str, str],
    documents: Sequence[Document] = (),
    ambassador_id: str = "default",
    read_ids: ReadIds | None = None,
) -> dict[str, Any]:
    """The answer to a line; an object with "line" and "error" for one that cannot be read.

    Args:
        number: of the line, 1-based.
        documents: the rules of a line that names none.
        read_ids: reads the files of ids that releases name.
    """
    try:
        message = _message(line, has_rules=bool(documents))
        return explain_batch(message, environ, documents, ambassador_id, read_ids)
    except ConfigError as exc:
        return {"line": number, "error": str(exc)}
    except UnicodeError:
        # JSON allows a half of a surrogate pair.
        return {"line": number, "error": "a text holds characters that cannot be encoded"}


def _message(line: bytes, *, has_rules: bool) -> dict[str, Any]:
    """The object of a line, with all values of the types that are used."""
    message = read_json(line)
    if not isinstance(message, dict):
        raise ConfigError("the line is no JSON object", hint=f"write {_EXAMPLE}")
    if not has_rules and "rules" not in message:
        raise ConfigError("rules are missing", hint='give a PATH, or write "rules": "..."')
    _check_types("", message, ("rules",))
    _check_types("", message, ("local",), nullable=True)
    if message.get("mode", _MODES[0]) not in _MODES:
        raise ConfigError(f"mode is {json.dumps(message['mode'])}", hint=f"use {' or '.join(_MODES)}")
    requests = message.get("requests")
    if not isinstance(requests, list):
        raise ConfigError("requests must be a list of objects", hint=f"write {_EXAMPLE}")
    for index, request in enumerate(requests):
        _check_request(f"requests[{index}]", request)
    return message


def read_json(line: bytes) -> Any:
    """The value of a line; raises ConfigError for what is no JSON."""
    try:
        return json.loads(line)
    except UnicodeDecodeError as exc:
        raise ConfigError(f"the line is not UTF-8 at byte {exc.start}") from exc
    except ValueError as exc:
        raise ConfigError(f"the line is not JSON: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError("the line is nested too deeply") from exc


def _check_request(place: str, request: Any) -> None:
    if not isinstance(request, dict):
        raise ConfigError(f"{place} must be an object", hint='write {"method": "GET", "path": "/"}')
    for name in ("method", "path"):
        if name not in request:
            raise ConfigError(f"{place}.{name} is missing")
    _check_types(f"{place}.", request, ("method", "path", "client"))
    _check_types(f"{place}.", request, ("host",), nullable=True)
    predicates = request.get("predicates") or {}
    if not isinstance(predicates, dict) or not all(isinstance(each, bool) for each in predicates.values()):
        raise ConfigError(f"{place}.predicates must be an object of true and false")
    if not isinstance(request.get("peer_trusted", False), bool):
        raise ConfigError(f"{place}.peer_trusted must be true or false")
    headers = request.get("headers") or {}
    pairs = headers.items() if isinstance(headers, dict) else headers
    if not isinstance(headers, dict | list) or not all(map(_is_pair, pairs)):
        raise ConfigError(f"{place}.headers must be an object of texts, or a list of [name, value]")


def _check_types(place: str, values: dict[str, Any], names: Iterable[str], *, nullable: bool = False) -> None:
    for name in names:
        value = values.get(name, "")
        if not (isinstance(value, str) or (nullable and value is None)):
            raise ConfigError(f"{place}{name} must be a text, not {json.dumps(value):.60}")


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
