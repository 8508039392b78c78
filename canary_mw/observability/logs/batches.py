"""Lines that a thread writes together, so that no request waits for whoever reads them."""

import logging
import os
import select
from collections.abc import Callable
from contextlib import suppress
from stat import S_ISREG
from weakref import WeakSet

from canary_mw.forking import JOIN_TIMEOUT, SystemThread, after_fork, ensure_forked_hooks, start_thread
from canary_mw.host import HostLogger
from canary_mw.locks import new_lock

logger = HostLogger(logging.getLogger("canary_mw.access_log"))

# Seconds that a line waits for others, and the bytes at which they wait no longer.
INTERVAL = 0.1
BATCH_BYTES = 64 * 1024
# Bytes that wait for a reader who is slow; more lines are dropped.
MAX_BYTES = 8 * 1024 * 1024
# A write of this many bytes to a pipe is whole, whatever other workers write to it (POSIX: PIPE_BUF). A write to a file
# is always whole: workers have its position in common.
_PIPE_BYTES = 4096


class BatchWriter:
    """Writes lines to a file descriptor, in a thread that is started with the first of them.

    Args:
        fd: is written to, and never closed.
        on_dropped: is called for each line that is dropped, because too many wait or none can be written.
    """

    def __init__(self, fd: int, on_dropped: Callable[[], object]) -> None:
        self._fd = fd
        # How much is written at once.
        self._whole_bytes = BATCH_BYTES if S_ISREG(os.fstat(fd).st_mode) else _PIPE_BYTES
        self._on_dropped = on_dropped
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        """Create the state of this process."""
        self._lock = new_lock()
        # Held while there is nothing to do; released to wake the thread.
        self._gate = new_lock()
        self._gate.acquire()
        self._lines: list[str] = []
        self._size = self._in_writing = 0
        self._ended = self._failed = False
        self._thread: SystemThread | None = None

    def add(self, line: str) -> None:
        """Write a line soon."""
        ensure_forked_hooks()
        with self._lock:
            # Of a line that is not ASCII the bytes are more: a bound need not be exact.
            size = self._size + len(line) + 1
            dropped = size + self._in_writing > MAX_BYTES
            if not dropped:
                self._lines.append(line)
                first, full = not self._size, self._size < BATCH_BYTES <= size
                self._size = size
                if self._thread is None:
                    self._start()
                elif first or full:
                    self._wake()
        if dropped:
            self._on_dropped()

    def _start(self) -> None:
        self._ended = False
        self._thread = start_thread(self._run, "canary-mw-access-log", stop=self._end)
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):
            self._gate.release()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Write what is left, within the time that a thread has to end; a later line starts a new thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._end()
            thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        while not self._ended:
            self._gate.acquire()
            if not self._ended and self._size < BATCH_BYTES:
                self._gate.acquire(timeout=INTERVAL)
            self._write_batch()
        self._write_batch()

    def _write_batch(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            self._in_writing, self._size = self._size, 0
        try:
            self._write(lines)
        finally:
            self._in_writing = 0

    def _write(self, lines: list[str]) -> None:
        """Write whole lines, so that those of several workers do not mix."""
        data = "\n".join((*lines, "")).encode()
        begin, whole = 0, self._whole_bytes
        while begin < len(data):
            end = len(data)
            if end - begin > whole:
                # A longer line is a part of its own.
                end = data.rfind(b"\n", begin, begin + whole) + 1 or data.find(b"\n", begin) + 1
            self._write_part(data[begin:end])
            begin = end

    def _write_part(self, part: bytes) -> None:
        data = memoryview(part)
        try:
            while data:
                data = data[self._write_some(data) :]
        except OSError as exc:
            for _ in range(part.count(b"\n")):
                self._on_dropped()
            if not self._failed:
                self._failed = True
                logger.warning("the access log cannot be written, and its lines are dropped: %s", exc)

    def _write_some(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                # Whoever has started us made the descriptor non-blocking.
                select.select((), (self._fd,), (), INTERVAL)


_writers: "WeakSet[BatchWriter]" = WeakSet()


def _after_fork() -> None:
    for each in list(_writers):
        each._reset()


after_fork(_after_fork)
