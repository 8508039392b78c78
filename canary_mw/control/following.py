"""The thread that follows a source of rules. Between two looks at the source it does what is due at other times."""

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast
from weakref import ReferenceType

from canary_mw.control.sources.base import ConfigSource
from canary_mw.host import HostLogger
from canary_mw.locks import Latch

if TYPE_CHECKING:
    import threading

logger = HostLogger(logging.getLogger("canary_mw.store"))
_RETRY_DELAY = 1.0
# Seconds until what has failed is due again.
_TICK_RETRY = 5.0

# Does what is due; returns the seconds until more is.
Tick = Callable[[], float]


class Followed(Protocol):
    """A rule store, as this thread sees it."""

    @property
    def ticks(self) -> Sequence[Tick]:
        """What is due at times of its own."""

    def reload(self) -> bool:
        """Read the source anew."""


class TickingLatch(Latch):
    """A latch whose waiting thread does what is due. It asks no more of a source than to wait for `stop`.

    Args:
        store: whose ticks these are. It is not kept: a store that nobody uses is collected.
    """

    def __init__(self, store: "ReferenceType[Followed]") -> None:
        super().__init__()
        self._store = store
        self._due = 0.0

    def is_set(self) -> bool:
        """See `Latch`; sources that wait in their own way ask again and again."""
        if monotonic() >= self._due:
            self._tick()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """See `Latch`."""
        limit = None if timeout is None else monotonic() + timeout
        while not self.is_set():
            rest = None if limit is None else limit - monotonic()
            if rest is not None and rest <= 0:
                break
            due = max(self._due - monotonic(), 0.0)
            super().wait(due if rest is None else min(rest, due))
        return super().is_set()

    def _tick(self) -> None:
        store = self._store()
        delays = [_delay(tick) for tick in (store.ticks if store is not None else ())]
        self._due = monotonic() + min(delays, default=_TICK_RETRY)


def _delay(tick: Tick) -> float:
    try:
        return max(tick(), 0.0)
    except Exception:
        logger.exception("what is due every few seconds failed; trying again")
        return _TICK_RETRY


def follow(store: "ReferenceType[Followed]", source: ConfigSource, stop: Latch) -> None:
    """Reload whenever the source has changed, until `stop` is set."""
    # A latch has what a source may use of an event, and blocks this thread also where `threading` is patched.
    event = cast("threading.Event", stop)
    while not stop.is_set():
        try:
            for _ in source.changes(event):
                _reload(store)
            return
        except Exception:
            logger.exception("following the rules failed; trying again")
            stop.wait(_RETRY_DELAY)


def _reload(reference: "ReferenceType[Followed]") -> None:
    store = reference()
    if store is not None:
        store.reload()
