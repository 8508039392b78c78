"""What the commands of `canary-mw release` share: options, questions to the admin port, and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from canary_mw.cli.admin_port import Refusal, Unreachable, ask_json
from canary_mw.cli.terminal import visible
from canary_mw.server.settings import variable

# The scopes of a file of tokens, the one that may do the most first.
_SCOPES = ("operate", "stop")
_MOST_BYTES = 65536


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option for the form of the output."""
    return click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of it."
    )(command)


def token_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option for the token."""
    return click.option(
        "--token-file",
        envvar=variable("admin_token_file"),
        show_envvar=True,
        metavar="FILE",
        help="File with a token, or with lines SCOPE TOKEN as the server has it.",
    )(command)


def path_of(name: str, command: str = "") -> str:
    """The path of a release, or of a command for it."""
    path = f"/api/v1/releases/{quote(name, safe='')}"
    return f"{path}/{command}" if command else path


def asked(admin: str, path: str) -> Any:
    """The answer to a question; raises ClickException where there is none."""
    try:
        return ask_json(admin, path)
    except (Unreachable, Refusal) as exc:
        raise click.ClickException(visible(str(exc))) from exc


def ordered(admin: str, path: str, token: str, version: int | None) -> Any:
    """The answer to a command; raises as `asked` does."""
    headers = {"authorization": f"Bearer {token}"}
    if version is not None:
        headers["if-match"] = f'"{version}"'
    try:
        return ask_json(admin, path, "POST", headers)
    except (Unreachable, Refusal) as exc:
        raise click.ClickException(visible(str(exc))) from exc


def read_token(path: str | None, scopes: tuple[str, ...] = _SCOPES) -> str:
    """The token of a file: the word of a line, or that of the line with the first of some scopes.

    Raises:
        ClickException: there is none; the message does not show what is in the file.
    """
    if path is None:
        hint = f"--token-file FILE, or {variable('admin_token_file')}"
        raise click.UsageError(f"this command needs a token of the server: {hint}")
    try:
        with Path(path).open("rb") as file:
            lines = [line.split() for line in file.read(_MOST_BYTES).decode("latin-1").splitlines()]
    except OSError as exc:
        raise click.ClickException(f"{path}: the token cannot be read: {exc.strerror}") from None
    lines = [words for words in lines if words and not words[0].startswith("#")]
    for scope in scopes:
        for words in lines:
            if len(words) > 1 and words[0] == scope:
                return words[1]
    if lines and len(lines[0]) == 1:
        return lines[0][0]
    raise click.ClickException(f"{path}: there is no token: write it alone, or as a line {scopes[0]} TOKEN")


def as_json(value: Any) -> str:
    """A value for programs. What a terminal could act on is escaped."""
    return json.dumps(value, indent=2)
