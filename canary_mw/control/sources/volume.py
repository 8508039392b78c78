"""What is to be known of the volume that holds rules: which update of it is seen, and whether any will be."""

import os
import re
from contextlib import suppress
from time import time

from canary_mw.control.sources.directory import DATA_LINK
from canary_mw.control.sources.text_file import printable, read_link

_MOUNTS = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")


def mount_points() -> frozenset[str]:
    """The mount points that this process sees; none where the system does not tell."""
    with suppress(OSError), open(_MOUNTS, "rb") as file:
        fields = (line.split(b" ") for line in file)
        return frozenset(os.fsdecode(_OCTAL.sub(_octal, each[4])) for each in fields if len(each) > 4)
    return frozenset()


def _octal(match: re.Match[bytes]) -> bytes:
    """A blank or a backslash of a path, which the system writes as an octal number."""
    return bytes((int(match[1], 8) & 0xFF,))


def is_deleted(path: str) -> bool:
    """Whether a file is deleted where it came from, as one mounted by `subPath` is after an update of its volume."""
    try:
        return os.stat(path).st_nlink == 0
    except OSError:
        return False


def volume_line(path: str, mounts: frozenset[str]) -> str | None:
    """The update of a volume of Kubernetes that a directory shows, or that a file is mounted alone; else None."""
    link = os.path.join(path, DATA_LINK)
    update = read_link(link)
    if update is None:
        return "mounted alone (subPath): never updated" if is_deleted(path) or is_mounted_alone(path, mounts) else None
    with suppress(OSError):
        age = max(0.0, time() - os.lstat(link).st_mtime)
        return f"update {printable(update)} of the volume, {age:.0f} s old"
    return None


def is_mounted_alone(path: str, mounts: frozenset[str]) -> bool:
    """Whether a file is a mount point: what is put in its place outside never arrives here."""
    return os.path.realpath(path) in mounts and os.path.isfile(path)
