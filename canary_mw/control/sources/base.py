"""The interface of a source of rules."""

import threading
from collections.abc import Iterator
from typing import Protocol

from canary_mw.config.document import Document


class ConfigSource(Protocol):
    """A source of rules; `load` and `changes` are each called from one thread at a time."""

    def load(self) -> list[Document]:
        """All documents as they are now, in a stable order.

        A document that cannot be read has its `error` set, so that the others are taken.

        Raises:
            SourceError: the source as a whole cannot be read.
        """

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """Block, and yield whenever the documents may have changed; return once `stop` is set.

        The first yield comes after the watch is set up, so that a `load` after it misses no change. It runs in a thread
        of the system. Where gevent has patched `threading`, `stop` is the one event that such a thread may wait for.
        """
