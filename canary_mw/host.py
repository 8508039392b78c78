"""What threads of this package call of their host: handlers of log records, observers, transports.

Where gevent has patched `threading`, the locks of the host are gevent's. A thread of the system that waits for one may
wait for ever, and every greenlet that needs the lock with it. Such a thread leaves the call to a greenlet of its host.
"""

import logging
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
        # Behind this function, `call_host` and `log`.
        self.logger.log(level, msg, *args, **{"stacklevel": 4, **kwargs})
