"""Observers of requests and reloads: for metrics, tracing, an access log."""

import logging
from collections.abc import Sequence
from typing import Protocol

from canary_mw.host import HostLogger
from canary_mw.observability.events import Decided, Finished, Reloaded

logger = HostLogger(logging.getLogger("canary_mw.observers"))


class Observer(Protocol):
    """Receives events; a subclass overrides the methods of the events that it needs.

    `decided` and `finished` are called while a request is handled and must not block. `reloaded` is called in the
    thread that reloads the rules; under gevent in a greenlet.
    """

    # Each method has a statement, since type checkers treat empty methods of a Protocol as abstract.

    def decided(self, record: Decided) -> None:
        """A request was matched."""
        return

    def finished(self, record: Finished) -> None:
        """An exchange ended."""
        return

    def reloaded(self, record: Reloaded) -> None:
        """Rules were replaced, or could not be replaced."""
        return


_METHODS: dict[type, str] = {Decided: "decided", Finished: "finished", Reloaded: "reloaded"}
# Holds references to the observers, so that no later object gets the same id.
_failed: dict[int, Observer] = {}


def notify(observers: Sequence[Observer], record: Decided | Finished | Reloaded) -> None:
    """Pass `record` to every observer; an exception is logged once per observer and never raised."""
    for observer in observers:
        try:
            getattr(observer, _METHODS[type(record)])(record)
        except Exception:
            if id(observer) not in _failed:
                _failed[id(observer)] = observer
                logger.exception("%r failed on %r; later failures of this observer are not logged", observer, record)
