"""A volume of Kubernetes, written as kubelet's AtomicWriter does (pkg/volume/util/atomic_writer.go).

Two orders are in the field: "modern" ones swap `..data` and then link new keys, "legacy" ones (1.20) link them first.
"""

import os
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Literal

Style = Literal["modern", "legacy"]

_SHORT = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r", 34: r"\"", 92: r"\\"}
_serial = count()


class Volume:
    """One mounted ConfigMap or downward API volume.

    Args:
        root: the mount point; made by the first write.
        on_step: called with a name after each operation on the file system; raising acts out a kubelet that dies there.
    """

    def __init__(
        self, root: Path, style: Style = "modern", on_step: Callable[[str], None] = lambda _step: None
    ) -> None:
        self.root = root
        self.style = style
        self.on_step = on_step

    def current(self) -> dict[str, str]:
        """Keys and values as they are now; a key with a slash is an `items[].path`."""
        base = self.root / "..data"
        files = sorted(path for path in base.rglob("*") if path.is_file()) if base.is_dir() else []
        return {str(path.relative_to(base)): path.read_text() for path in files}

    def update(self, data: Mapping[str, str]) -> None:
        """Add or replace keys."""
        self.set({**self.current(), **data})

    def delete(self, *keys: str) -> None:
        """Drop keys."""
        self.set({key: value for key, value in self.current().items() if key not in keys})

    def annotations(self, annotations: Mapping[str, str], path: str = "annotations") -> None:
        """The file of `fieldPath: metadata.annotations`: sorted lines of key and Go's `%q`, no newline at the end."""
        self.set({path: "\n".join(f"{key}={go_quote(annotations[key])}" for key in sorted(annotations))})

    def set(self, data: Mapping[str, str]) -> None:
        """Make these the only keys; nothing is written when they are that already."""
        self.root.mkdir(parents=True, exist_ok=True)
        link = self.root / "..data"
        old = os.readlink(link) if link.is_symlink() else None
        if old is not None and data == self.current():
            return
        gone = {key.split("/")[0] for key in self.current()} - {key.split("/")[0] for key in data}
        fresh = self._write(data)
        if self.style == "legacy":
            self._link(data)
        os.symlink(fresh, self.root / "..data_tmp")
        self.on_step("link ..data_tmp")
        os.rename(self.root / "..data_tmp", link)
        self.on_step("rename ..data")
        if self.style == "modern":
            self._link(data)
        for name in sorted(gone):
            os.unlink(self.root / name)
            self.on_step(f"unlink {name}")
        if old is not None:
            shutil.rmtree(self.root / old)
            self.on_step("remove old")

    def _write(self, data: Mapping[str, str]) -> str:
        fresh = self.root / f"..2026_11_22_07_50_12.{next(_serial)}"
        fresh.mkdir(0o700)
        fresh.chmod(0o755)
        self.on_step("make directory")
        for key, value in data.items():
            (fresh / key).parent.mkdir(parents=True, exist_ok=True)
            (fresh / key).write_text(value)
            (fresh / key).chmod(0o644)
            self.on_step(f"write {key}")
        return fresh.name

    def _link(self, data: Mapping[str, str]) -> None:
        for name in sorted({key.split("/")[0] for key in data}):
            if not os.path.lexists(self.root / name):
                os.symlink(f"..data/{name}", self.root / name)
                self.on_step(f"link {name}")


def go_quote(text: str) -> str:
    """What Go's `%q` prints."""
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(char: str) -> str:
    code = ord(char)
    if code in _SHORT:
        return _SHORT[code]
    if char == " " or unicodedata.category(char)[0] in "LMNPS":
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
