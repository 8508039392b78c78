"""Server processes: started, watched, ended, and asked what they cost."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from shutil import which

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START = 60.0
_END = 10.0
ROOT = Path(__file__).parent.parent


class Missing(Exception):
    """A program that a row needs is not installed; the text says what to install."""


class Failed(Exception):
    """A server does not do what it was started for."""


def in_short(trouble: Exception) -> str:
    """On one line: what is wrong, and the last line of the log that shows it."""
    first, *log = str(trouble).strip().splitlines() or [type(trouble).__name__]
    return f"{first} {log[-1].strip()}" if log else first


def program(name: str, package: str) -> str:
    """Path of a program.

    Raises:
        Missing: it is not there.
    """
    path = which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"{name} is missing; on Debian: apt-get install {package}")
    return path


def allow_open_files() -> None:
    """As many as the system lets us open: thousands of connections are held here and in every server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def running(
    name: str, command: Sequence[str], port: int, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A server until the end of the block; yields its process id as soon as it answers on `port`.

    Raises:
        Failed: it ended, or did not answer in time; with the end of its log.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**inherited(), **(environ or {})},
            start_new_session=True,
        )
    try:
        _wait(name, process, port, log)
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END)
    # Workers of a server that did not end by itself; the group is ours alone.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def inherited() -> dict[str, str]:
    """Our environment without settings of the proxy: they would be measured with it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CANARY_MW_")}


def _wait(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError, HTTPException):
            get(port, "/")
            return
        time.sleep(0.05)
    text = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise Failed(f"{name} does not answer (exit status {process.poll()}); its log ends with:\n{text}")


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body of one request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time that processes used so far, with that of their children, ended or not."""
    return sum(_cpu_ticks(pid) for pid in pids) / _TICKS


def _cpu_ticks(pid: int) -> int:
    # The name in parentheses may hold blanks; utime, stime, cutime, cstime are fields 14 to 17 of proc(5).
    values = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, values[11:15])) + sum(_cpu_ticks(child) for child in children(pid))


def resident(pids: Sequence[int]) -> int:
    """Bytes of memory that processes and their children hold now; pages that two of them share count twice."""
    return sum(_resident_pages(pid) for pid in pids) * _PAGE


def _resident_pages(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages + sum(_resident_pages(child) for child in children(pid))


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text(encoding="utf-8").split()]
