"""Rules in a volume of Kubernetes, replaced as kubelet does: all keys at once, by one rename of a symbolic link."""

import os
import shutil
from pathlib import Path
from time import monotonic

from . import rules

_PER_KEY = 1_000


class Volume:
    """Mappings, 1,000 to a key; the service of single ones can be changed.

    Attributes:
        root: the mount point.
    """

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self._rules = rules.rules(count)
        self._serial = 0
        root.mkdir()
        self._keys = [f"rules-{number:03}.yaml" for number in range(len(range(0, count, _PER_KEY)))]
        (root / "..data").symlink_to(self._write())
        for key in self._keys:
            (root / key).symlink_to(f"..data/{key}")

    def prepare(self, number: int, service: str) -> Path:
        """Write the next state, with another service in one Mapping; nothing of it counts yet."""
        self._rules[number] = self._rules[number]._replace(service=service)
        link = self.root / "..data_tmp"
        link.symlink_to(self._write())
        return link

    def swap(self, link: Path) -> float:
        """Let the next state count; returns when that was, on the clock of `monotonic`."""
        old = os.readlink(self.root / "..data")
        began = monotonic()
        link.rename(self.root / "..data")
        shutil.rmtree(self.root / old)
        return began

    def _write(self) -> str:
        self._serial += 1
        fresh = self.root / f"..generation-{self._serial}"
        fresh.mkdir()
        for number, key in enumerate(self._keys):
            part = self._rules[number * _PER_KEY : (number + 1) * _PER_KEY]
            (fresh / key).write_text(rules.yaml(part), encoding="utf-8")
        return fresh.name
