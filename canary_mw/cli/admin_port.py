"""The admin port of a server, as its commands ask it."""

import http.client
import json
import socket
from collections.abc import Callable
from collections.abc import Mapping as Dict
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click

from canary_mw.server.settings import variable

DEFAULT = "http://127.0.0.1:8877"
# Seconds for connecting, and for each read.
_TIMEOUT = 5.0
_MOST_BYTES = 64 * 1024 * 1024


class Unreachable(Exception):
    """The admin port does not answer; the text says where, and why."""


class Refusal(Exception):
    """The admin port answers with an error; the text is its message.

    Attributes:
        status: of the answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Answer(NamedTuple):
    """What the admin port answers."""

    status: int
    body: bytes


def admin_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that names the admin port."""
    return click.option(
        "--admin",
        envvar=variable("admin"),
        default=DEFAULT,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        callback=_checked,
        help="Admin port of the server.",
    )(command)


def _checked(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise click.BadParameter(f"{value!r} is no URL of a server: write {DEFAULT}", context, parameter)
    return value.rstrip("/")


def ask(admin: str, path: str, method: str = "GET", headers: Dict[str, str] | None = None) -> Answer:
    """The answer to a request without a body.

    Raises:
        Unreachable: there is none.
    """
    parts = urlsplit(admin)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT)
    try:
        sent = {"accept": "application/json", "connection": "close", **(headers or {})}
        connection.request(method, parts.path + path, headers=sent)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(_MOST_BYTES))
    except (OSError, http.client.HTTPException) as exc:
        reason = "it does not answer in time" if isinstance(exc, socket.timeout) else str(exc) or type(exc).__name__
        raise Unreachable(f"{admin} cannot be reached: {reason}") from exc
    finally:
        connection.close()


def ask_json(admin: str, path: str, method: str = "GET", headers: Dict[str, str] | None = None) -> Any:
    """The value of an answer of the API.

    Raises:
        Unreachable: there is none, or it is that of another server.
        Refusal: it is an error.
    """
    answer = ask(admin, path, method, headers)
    try:
        value = json.loads(answer.body)
        if answer.status == 200 and isinstance(value, dict):
            return value
        raise Refusal(value["error"]["message"], answer.status)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unreachable(f"{admin} is no admin port of canary-mw: {path} is answered with {answer.status}") from None
