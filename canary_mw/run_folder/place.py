"""Where the run folder of a server lies: at the same place for all of its workers, and elsewhere for any other server.

Its name is made of the process that started the workers. That process is number 1 in every container, so the name holds
its start and the PID namespace too.
"""

import os
import sys
import tempfile

_PREFIX = "canary-mw"


def server_name() -> str | None:
    """The name of the folder of the server that this process is a worker of; None where nothing tells of a server.

    A child of `multiprocessing` is a worker, as those of uvicorn and hypercorn are, and so is one of gunicorn.
    """
    processes = sys.modules.get("multiprocessing.process")
    is_child = processes is not None and processes.parent_process() is not None
    return name_of(os.getppid()) if is_child or is_forked_worker() else None


def is_gunicorn() -> bool:
    """Whether this is a process of gunicorn, or one that such a process has started."""
    return os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")


def is_forked_worker() -> bool:
    """Whether this is a worker of gunicorn: a process that runs the same command as its parent, or has its title."""
    own = _command(os.getpid())
    return is_gunicorn() and bool(own) and (own.startswith(b"gunicorn: worker") or own == _command(os.getppid()))


def name_of(pid: int) -> str | None:
    """The name of the folder of a server, by its first process; None where the system has no /proc."""
    start, namespace = _start_time(pid), pid_namespace()
    return None if start is None or namespace is None else f"{own_prefix(namespace)}{pid}-{start}"


def own_prefix(namespace: int) -> str:
    """How the names of the folders of this user and PID namespace begin."""
    return f"{_PREFIX}-{os.geteuid()}-{namespace}-"


def is_stale(name: str) -> bool:
    """Whether a name is that of a server of this user and PID namespace that has ended."""
    namespace = pid_namespace()
    if namespace is None or not name.startswith(own_prefix(namespace)):
        return False
    pid, _, start = name.removeprefix(own_prefix(namespace)).partition("-")
    return pid.isdecimal() and start.isdecimal() and _start_time(int(pid)) != int(start)


def parents() -> list[str]:
    """The folders in which one is made; the first that works is used. The first ones are in memory."""
    found = (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm", tempfile.gettempdir())
    return [each for each in dict.fromkeys(found) if os.path.isabs(each) and os.path.isdir(each)]


def pid_namespace() -> int | None:
    """The number of the PID namespace of this process."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since the system did."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program stands in brackets, and may hold some itself.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
