"""Files of ids that releases name: one id a line, read with the rules and followed like them."""

import os
import stat
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

from canary_mw.control.sources.kubernetes_url import is_kubernetes_url
from canary_mw.exceptions import ConfigError
from canary_mw.rules.id_list import IdList

MAX_IDS = 1_000_000
_MAX_BYTES = 128 * 1024 * 1024

# What tells one state of a file from another; None for a file that cannot be read.
_State = tuple[int, int, int, int] | None


class _Known(NamedTuple):
    state: _State
    inline: IdList
    ids: IdList


class IdFiles:
    """The files of one reading of the rules.

    Args:
        previous: those of the last reading; a file that did not change is not read again.
    """

    def __init__(self, previous: "IdFiles | None" = None) -> None:
        self._previous = previous._known if previous else {}
        self._known: dict[tuple[str, IdList], _Known] = {}
        self._states: dict[str, _State] = {}

    def read(self, rules_file: str, path: str, inline: IdList) -> IdList:
        """The ids of a file, and those that stand in the rules.

        Args:
            rules_file: the file of the rules; a relative path begins at its directory.

        Raises:
            ConfigError: the file cannot be read, or has too many ids.
        """
        if is_kubernetes_url(rules_file):
            # Whoever may annotate a Service must not read the files of this process.
            hint = "list the ids in the release, or keep the release in a file"
            raise ConfigError("is not read: a release of a cluster names no file", hint=hint)
        place = os.path.join(os.path.dirname(rules_file), path)
        state = self._states[place] = _state_of(place)
        known = self._previous.get((place, inline)) or self._known.get((place, inline))
        if known is None or state is None or known.state != state:
            known = _Known(state, inline, IdList(_ids(_read(place), inline)))
        self._known[place, inline] = known
        return known.ids

    def changed(self) -> bool:
        """Whether a file differs from what was read."""
        return any(_state_of(place) != state for place, state in self._states.items())


def _state_of(path: str) -> _State:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: str) -> bytes:
    try:
        # Opening a FIFO or a device could wait.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError("is no file", hint="name a text file with one id a line")
            data = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        hint = "the path is relative to the file of the rules"
        raise ConfigError(f"cannot be read: {exc.strerror}", hint=hint) from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"is larger than {_MAX_BYTES >> 20} MiB", hint="use a predicate for so many users")
    return data


def _ids(data: bytes, inline: IdList) -> Iterator[bytes]:
    """The ids, one after the other, so that no other thread waits long for the interpreter lock."""
    yield from inline
    number = 0
    for line in BytesIO(data.removeprefix(b"\xef\xbb\xbf")):
        each = line.strip()
        if each and not each.startswith(b"#"):
            number += 1
            if number > MAX_IDS:
                raise ConfigError(f"has more than {MAX_IDS:,} ids", hint="use a predicate for so many users")
            yield each
