"""What the process that speaks for a pod knows, for the other workers of the pod, and for the next one that speaks.

It is a file of the run folder, written as a whole by that process alone.
"""

import json
from collections.abc import Mapping as Dict
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any

from canary_mw.run_folder.folder import Folder

NAME = "cluster.json"
FORMAT = 1
# Seconds between two writes at most, and for which the others wait for one.
BEAT, SILENCE = 3.0, 10.0
_MAX_BYTES = 16 << 20

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of a release.

    Attributes:
        text: its state as it is written, "" for none.
        progress: what was counted since it was written.
        answered: whether the server has said what there is.
        problem: why the newest state may not be known.
    """

    text: str = ""
    version: int = 0
    progress: str = ""
    answered: bool = True
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a cluster.

    Attributes:
        holder: the pod that raises, "" where that is not known.
        problem: why this pod cannot have the Lease.
    """

    entries: Dict[str, Entry] = field(default_factory=dict)
    holder: str = ""
    problem: str = ""


class Mirror:
    """The file.

    Args:
        folder: None where no other process is told.
        key: that of the cluster; what is known of another one counts for nothing.
    """

    def __init__(self, folder: Folder | None, key: str) -> None:
        self._folder, self._key = folder, key
        # What was read last, of which file, and when it was seen that this was written.
        self._known: Known | None = None
        self._stamp: Stamp | None = None
        self._heard = monotonic()

    @property
    def silent(self) -> bool:
        """Whether the process that tells the others has told nothing for long: it may have been stopped."""
        self.read()
        return self._folder is not None and monotonic() - self._heard > SILENCE

    def write(self, known: Known) -> None:
        """Tell the others; one that cannot be told keeps what it knows."""
        if self._folder is not None:
            body = {"format": FORMAT, "key": self._key, **asdict(known)}
            with suppress(OSError):
                self._folder.replace(NAME, json.dumps(body).encode())

    def read(self) -> Known | None:
        """What was told; None where nothing was, or a newer version has written it."""
        stamp = self.stamp()
        if stamp != self._stamp:
            self._known, self._stamp, self._heard = self._read(), stamp, monotonic()
        return self._known

    def _read(self) -> Known | None:
        if self._folder is None:
            return None
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            body = json.loads(self._folder.read(NAME, _MAX_BYTES))
            return _known(body) if (body["format"], body["key"]) == (FORMAT, self._key) else None
        return None

    def stamp(self) -> Stamp | None:
        """What changes with each write."""
        with suppress(OSError):
            found = None if self._folder is None else self._folder.stat(NAME)
            return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
        return None


def _known(body: dict[str, Any]) -> Known:
    entries = {name: Entry(**each) for name, each in body["entries"].items()}
    return Known(entries=entries, holder=str(body["holder"]), problem=str(body["problem"]))
