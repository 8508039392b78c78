"""Tokens for commands: a file with a line `SCOPE TOKEN [NAME]` each, read at each command.

So a token that leaves the file counts no more from then on. Errors and log lines name lines, and never a token.
"""

import logging
import os
from collections.abc import Iterator
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from canary_mw.exceptions import ConfigError
from canary_mw.host import HostLogger

logger = HostLogger(logging.getLogger("canary_mw.admin"))

Scope = Literal["operate", "stop", "peer"]
# What `openssl rand -hex 32` makes is longer; less can be guessed.
_SHORTEST = 16
_SHORT = f"a token of less than {_SHORTEST} characters can be guessed: make one with openssl rand -hex 32"
_MOST_BYTES = 65536


class Token(NamedTuple):
    """A token of the file.

    Attributes:
        digest: SHA-256 of the token.
        subject: who has it: the name behind it, or its scope and line.
    """

    scope: Scope
    digest: bytes
    subject: str


class Reading(NamedTuple):
    """What is in the file.

    Attributes:
        errors: what is wrong with the lines that do not count.
        warnings: what should be otherwise in lines that do.
    """

    tokens: tuple[Token, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class TokenFile:
    """The tokens of a file, as it is now.

    Args:
        path: None for no tokens.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = None if path is None else os.fspath(path)
        self._said: tuple[str, ...] = ()

    def read(self) -> tuple[Token, ...]:
        """All tokens. Of a file that cannot be read there are none; the log says once what is wrong with it."""
        if self._path is None:
            return ()
        try:
            found = _read(self._path)
        except ConfigError as exc:
            found = Reading(errors=(str(exc),))
        said = found.errors + found.warnings
        if said != self._said:
            self._said = said
            for each in said:
                logger.warning("%s", each)
        return found.tokens


def checked(path: str | os.PathLike[str]) -> None:
    """Read a file of tokens, so that its mistakes are known at start.

    Raises:
        ConfigError: it cannot be read, has a line that does not count, or none that does.
    """
    found = _read(os.fspath(path))
    if found.errors:
        raise ConfigError(found.errors[0])
    if not found.tokens:
        raise ConfigError("there is no token", file=os.fspath(path), hint="write a line: operate TOKEN")


def token_of(tokens: tuple[Token, ...], given: bytes) -> Token | None:
    """The token that somebody shows. How long it takes tells nothing of those of the file."""
    digest, found = sha256(given).digest(), None
    for each in tokens:
        if compare_digest(each.digest, digest):
            found = each
    return found


def _read(path: str) -> Reading:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"the tokens for commands cannot be read: {exc.strerror}", file=path) from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"the file of tokens has more than {_MOST_BYTES} bytes", file=path)
    tokens: list[Token] = []
    errors: list[str] = []
    warnings: list[str] = []
    for number, words in _lines(data):
        scope = next((each for each in get_args(Scope) if each.encode() == words[0]), None)
        if scope is None or len(words) == 1:
            errors.append(str(ConfigError(_problem(scope), file=path, line=number)))
            continue
        if len(words[1]) < _SHORTEST:
            warnings.append(str(ConfigError(_SHORT, file=path, line=number)))
        name = words[2].decode("utf-8", "replace").strip() if len(words) == 3 else f"{scope}, line {number}"
        tokens.append(Token(scope, sha256(words[1]).digest(), name))
    return Reading(tuple(tokens), tuple(errors), tuple(warnings))


def _lines(data: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """The words of each line, at most three; empty lines and # comments are skipped."""
    for number, line in enumerate(data.splitlines(), 1):
        words = line.split(None, 2)
        if words and not words[0].startswith(b"#"):
            yield number, words


def _problem(scope: Scope | None) -> str:
    if scope is None:
        return f"a line of tokens begins with {', '.join(get_args(Scope)[:-1])} or {get_args(Scope)[-1]}"
    return f"there is no token behind {scope}"
