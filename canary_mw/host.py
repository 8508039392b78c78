"""What threads of this package call of their host: handlers of log records, observers, transports.

Where gevent has patched `threading`, the locks of the host are gevent's. A thread of the system that waits for one may
wait for ever, and every greenlet that needs the lock with it. Such a thread leaves the call to a greenlet of its host.

Most servers configure no handler for the loggers of a library, and Python then drops INFO. After `speak` such records
go to stderr. No logger and no handler of the host is changed for that: a handler, a level or a filter that the host
sets decides, from the next record on.
"""

import logging
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from canary_mw.locks import system_ident, system_threads


def call_host(function: Callable[..., object], *args: object) -> None:
    """Call a function of the host, now; in a thread of ours among greenlets, soon and in a greenlet of the host."""
    loop = system_threads.get(system_ident())
    if loop is None:
        function(*args)
        return
    import gevent

    # A hub that is gone takes no calls.
    with suppress(ValueError):
        loop.run_callback_threadsafe(gevent.spawn, function, *args)


class HostLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose handlers and levels are the host's; see `call_host`."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger, {})

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log, with the caller's place and exception."""
        if system_threads.get(system_ident()) is not None and kwargs.get("exc_info") is True:
            kwargs["exc_info"] = sys.exc_info()
        call_host(self._emit, level, msg, args, kwargs)

    def _emit(self, level: int, msg: object, args: tuple[object, ...], kwargs: Mapping[str, Any]) -> None:
        if not _is_unheard(self.logger):
            # Behind this function, `call_host` and `log`.
            self.logger.log(level, msg, *args, **{"stacklevel": 4, **kwargs})
        elif level >= _threshold(self.logger):
            _write(self.logger, level, msg, args, kwargs.get("exc_info"))


class _Stderr(logging.Handler):
    """Writes to what is `sys.stderr` at the moment, as `logging.lastResort` does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - the handler reports it, as those of `logging` do
            self.handleError(record)


_stderr: _Stderr | None = None


def speak() -> None:
    """From now on, records that no handler of the host would get are written to stderr: INFO and above, if the host
    sets no other level."""
    global _stderr
    if _stderr is None:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"))
        _stderr = handler


def _is_unheard(logger: logging.Logger) -> bool:
    """Whether a record would be left to `logging.lastResort`; a host that has removed that wants silence."""
    return _stderr is not None and logging.lastResort is not None and not logger.hasHandlers()


def _threshold(logger: logging.Logger) -> float:
    """The lowest level that is written: that of the host, else INFO. Without a level the root logger has WARNING."""
    if logger.disabled:
        return math.inf
    own: logging.Logger | None = logger
    while own is not None and own.parent is not None and not own.level:
        own = own.parent
    level = logging.INFO if own is None or (own.level == logging.WARNING and own.parent is None) else own.level
    return max(level, logger.manager.disable + 1)


def _write(logger: logging.Logger, level: int, msg: object, args: tuple[object, ...], exc_info: Any) -> None:
    error = sys.exc_info() if exc_info is True else exc_info or None
    record = logger.makeRecord(logger.name, level, "", 0, msg, args, error)
    if _stderr is not None and logger.filter(record):
        _stderr.handle(record)
