"""What happened, as values for whoever watches: metrics, tracing, an access log."""

import logging
from collections.abc import Sequence
from typing import Protocol

from canary_mw.observability.events import Decided, Finished, Reloaded

logger = logging.getLogger("canary_mw.observers")


class Observer(Protocol):
    """Is told what happened; a subclass overrides what it wants to know.

    The first two are called on the path of a request and must not block; `reloaded` comes from the thread that reloads.
    """

    # Without a statement in them, type checkers would take these methods for abstract ones.

    def decided(self, record: Decided) -> None:
        """A request was matched."""
        return

    def finished(self, record: Finished) -> None:
        """An exchange ended."""
        return

    def reloaded(self, record: Reloaded) -> None:
        """Rules were replaced, or could not be."""
        return


_METHODS: dict[type, str] = {Decided: "decided", Finished: "finished", Reloaded: "reloaded"}
# Holds the observers themselves, so that an id is never that of a later object.
_failed: dict[int, Observer] = {}


def notify(observers: Sequence[Observer], record: Decided | Finished | Reloaded) -> None:
    """Hand `record` to every observer; what one raises is logged the first time and never reaches the caller."""
    for observer in observers:
        try:
            getattr(observer, _METHODS[type(record)])(record)
        except Exception:
            if id(observer) not in _failed:
                _failed[id(observer)] = observer
                logger.exception("%r failed on %r; later failures of this observer are not logged", observer, record)
