"""A request that somebody asks about: from the fields of a form, or from JSON."""

import json
from collections.abc import Mapping as Dict
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from canary_mw.admin.models.explain import ExplainRequest
from canary_mw.exceptions import ClientError
from canary_mw.http.messages import RequestHead
from canary_mw.routing.person import Person

NO_REQUEST: ExplainRequest = {
    "method": "GET",
    "url": "",
    "client": "",
    "headers": "",
    "cookies": "",
    "user": "",
    "session": "",
}
_FIELDS = frozenset(NO_REQUEST)
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "method": ((str,), "a text"),
    "url": ((str,), "a text"),
    "client": ((str,), "a text"),
    "cookies": ((str,), "a text"),
    "headers": ((str, dict, list), "a text, an object of texts, or a list of [name, value]"),
    "predicates": ((dict,), "an object of true and false"),
    "peer_trusted": ((bool,), "true or false"),
}


class BadQuestion(ValueError):
    """What is asked cannot be read; the text says why, and what to write."""


class ExplainQuestion(NamedTuple):
    """A request, and who sends it.

    Attributes:
        shown: the fields of the form with the same meaning.
    """

    head: RequestHead
    person: Person
    shown: ExplainRequest


def shown_fields(fields: Dict[str, str]) -> ExplainRequest:
    """The fields of the form, as far as they are given."""
    known: Any = {name: fields.get(name, default) for name, default in NO_REQUEST.items()}
    shown: ExplainRequest = known
    return shown


def question_of_form(fields: Dict[str, str]) -> ExplainQuestion:
    """The request of a form.

    Raises:
        BadQuestion: a field cannot be read.
    """
    shown = shown_fields(fields)
    headers = [_header(line) for line in shown["headers"].splitlines() if line.strip()]
    user, session = _json("user", shown["user"]), _json("session", shown["session"])
    return _question(shown, headers, Person(user, session, {}, fields.get("peer_trusted") in ("1", "true", "on")))


def question_of_json(message: Any) -> ExplainQuestion:
    """The request of a JSON object.

    Raises:
        BadQuestion: it is none, or a value has another type.
    """
    if not isinstance(message, dict):
        raise BadQuestion('the body is no JSON object: write {"method": "GET", "url": "https://shop.example/"}')
    for name, value in message.items():
        types, text = _TYPES.get(name, ((object,), ""))
        if not isinstance(value, types):
            raise BadQuestion(f"{name} must be {text}")
    predicates = message.get("predicates", {})
    if not all(isinstance(each, bool) for each in predicates.values()):
        raise BadQuestion("predicates must be an object of true and false")
    headers = _pairs(message.get("headers", []))
    texts = {name: message[name] for name in ("method", "url", "client", "cookies") if name in message}
    texts |= {name: json.dumps(message[name]) for name in ("user", "session") if message.get(name) is not None}
    shown = shown_fields({**texts, "headers": "\n".join(f"{name}: {value}" for name, value in headers)})
    person = Person(message.get("user"), message.get("session"), predicates, message.get("peer_trusted", False))
    return _question(shown, headers, person)


def _pairs(headers: Any) -> list[tuple[str, str]]:
    if isinstance(headers, str):
        return [_header(line) for line in headers.splitlines() if line.strip()]
    pairs = [*headers.items()] if isinstance(headers, dict) else headers
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(each, str) for each in pair)):
            raise BadQuestion(f"headers must be {_TYPES['headers'][1]}")
    return [(name, value) for name, value in pairs]


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.strip().partition(":")
    if not colon or not name.strip():
        raise BadQuestion(f"header {line.strip()!r}: write name: value")
    return name.strip(), value.strip()


def _json(name: str, text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadQuestion(f'{name} is no JSON: write an object, as {{"id": 42}}') from None


def _question(shown: ExplainRequest, headers: list[tuple[str, str]], person: Person) -> ExplainQuestion:
    scheme, host, target = _target(shown["url"].strip())
    names = {name.lower() for name, _ in headers}
    if host and "host" not in names:
        headers = [("host", host), *headers]
    if shown["cookies"].strip():
        headers = [*headers, ("cookie", shown["cookies"].strip())]
    client = shown["client"].strip() or "127.0.0.1"
    try:
        head = RequestHead(shown["method"].strip() or "GET", target, headers, client=client, scheme=scheme)
    except ClientError as exc:
        text = f"such a request is answered {exc.status_hint}, before any rule: {exc}"
        raise BadQuestion(text) from None
    except (UnicodeError, ValueError):
        raise BadQuestion("a header holds characters that no header can have: escape them") from None
    return ExplainQuestion(head, person, shown)


def _target(url: str) -> tuple[str, str, str]:
    """Scheme, host and request target of a URL or path."""
    if not url:
        raise BadQuestion("url is missing: write a URL, as https://shop.example/checkout/, or a path")
    if url.startswith("/"):
        return "http", "localhost", url
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError as exc:
        raise BadQuestion(f"url: {exc}") from None
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.netloc:
        raise BadQuestion("url: write https://HOST/PATH, or a path that begins with /")
    query = f"?{parts.query}" if parts.query else ""
    return parts.scheme.replace("ws", "http"), parts.netloc.rpartition("@")[2], (parts.path or "/") + query
