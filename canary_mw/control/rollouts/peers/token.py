"""The token by which pods know each other: a file that is read again when it has changed."""

import os
from pathlib import Path

from canary_mw.exceptions import ConfigError

_SCOPE = b"peer"
_SCOPES = (b"operate", b"stop", _SCOPE)
_MOST_BYTES = 65536
_HINT = "write the token into it, or a line: peer TOKEN"

Stamp = tuple[int, int, int]


class PeerToken:
    """The token of a file: the first line `peer TOKEN`, or a line that is a token alone.

    Errors name the file, and never a token.

    Args:
        path: None where none is configured.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = None if path is None else os.fspath(path)
        self._known: tuple[Stamp, str] | None = None

    def read(self) -> str:
        """The token.

        Raises:
            ConfigError: there is none.
        """
        if self._path is None:
            hint = "set --peer-token-file, and a line peer TOKEN with the same token in the file of --admin-token-file"
            raise ConfigError("there is no token for the other pods", hint=hint)
        try:
            found = os.stat(self._path)
            stamp = found.st_ino, found.st_size, found.st_mtime_ns
            if self._known is None or self._known[0] != stamp:
                self._known = stamp, self._token(self._path)
        except OSError as exc:
            raise ConfigError(f"the token of peers cannot be read: {exc.strerror}", file=self._path) from None
        return self._known[1]

    def _token(self, path: str) -> str:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES)
        lines = [line.split() for line in data.splitlines() if line.strip() and not line.startswith(b"#")]
        named = [words[1] for words in lines if len(words) > 1 and words[0] == _SCOPE]
        alone = [words[0] for words in lines if len(words) == 1 and words[0] not in _SCOPES]
        for token in (*named, *alone):
            if token.isascii() and token.decode().isprintable():
                return token.decode()
        raise ConfigError("there is no token of peers", file=path, hint=_HINT)
