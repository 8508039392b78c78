"""The worker processes of a `canary-mw serve --workers`, as /proc shows them."""

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def workers(parent: int) -> set[int]:
    """The processes that serve for a `canary-mw serve --workers`; Python's resource tracker is a child too."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(child) for child in children if b"spawn_main" in _command_of(child)}


def _command_of(pid: str) -> bytes:
    """What a process was started as, b"" when it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
