"""The run folder of this process: opened at first use, so after a fork, and once."""

import logging
import os
from contextlib import suppress
from functools import cache

from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.host import HostLogger
from canary_mw.locks import Mutex
from canary_mw.run_folder.folder import Folder, remove_folder
from canary_mw.run_folder.place import is_stale, name_of, parents, server_name

logger = HostLogger(logging.getLogger("canary_mw.run_folder"))


def run_folder(named: str | None) -> Folder | None:
    """The folder that this process shares with the other workers of its server; None where it shares nothing.

    A folder that is gone is made anew. One that cannot be used is given up with one warning: the process goes on with
    what it has in its own memory.

    Args:
        named: the setting; without it, the place is told from the server that this process is a worker of.
    """
    ensure_forked_hooks()
    with _opening:
        if named in _opened:
            folder = _opened[named]
            if folder is None or not folder.lost:
                return folder
        folder = _opened[named] = _open(named)
        return folder


def make_run_folder() -> str | None:
    """Make the folder of a server whose first process this is; returns its path, None where that cannot be done."""
    name = name_of(os.getpid())
    folder = None if name is None else _open_in_parents(name)
    return None if folder is None else folder.path


def give_up(folder: Folder, error: OSError) -> None:
    """Stop using a folder in which something failed that did work before; one that is gone is left to `run_folder`."""
    with _opening:
        for named, each in _opened.items():
            if each is folder and not folder.lost:
                _opened[named] = None
                _warn(folder.path, error)


def _open(named: str | None) -> Folder | None:
    if named is None:
        name = _server_name()
        return None if name is None else _open_in_parents(name)
    try:
        return Folder(named)
    except OSError as exc:
        _warn(named, exc)
        return None


@cache
def _server_name() -> str | None:
    # Kept: later the first process of the server may be gone.
    return server_name()


def _open_in_parents(name: str) -> Folder | None:
    errors: list[tuple[str, OSError]] = []
    for parent in parents():
        path = os.path.join(parent, name)
        try:
            folder = Folder(path)
        except OSError as exc:
            errors.append((path, exc))
            continue
        _remove_stale(parent)
        return folder
    if errors:
        _warn(*errors[-1])
    return None


def _remove_stale(parent: str) -> None:
    """Remove the folders of servers that have ended: not every server removes its own, and none that is killed."""
    with suppress(OSError):
        for name in filter(is_stale, os.listdir(parent)):
            remove_folder(os.path.join(parent, name))


def _warn(path: str, error: OSError) -> None:
    text = "the run folder %s is not used: %s; each process goes on by itself. Let --run-dir name a folder of this user"
    logger.warning(text, path, error.strerror or error)


_opening = Mutex()
_opened: dict[str | None, Folder | None] = {}


def _after_fork() -> None:
    global _opening
    _opening = Mutex()
    _opened.clear()
    _server_name.cache_clear()


after_fork(_after_fork)
