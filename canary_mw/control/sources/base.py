"""The interface of a source of rules."""

import threading
from collections.abc import Iterator
from typing import Protocol

from canary_mw.config.document import Document
from canary_mw.exceptions import SourceError


class EmptySource(SourceError):
    """A directory exists and is readable, but contains no rule file.

    Attributes:
        documents: what the other paths of the source contain.
    """

    def __init__(self, directory: str, documents: list[Document]) -> None:
        hint = "put a .yaml file with Mappings into it"
        super().__init__("the directory is empty: it holds no rule file", file=directory, hint=hint)
        self.documents = documents


class ConfigSource(Protocol):
    """A source of rules; `load` and `changes` are each called from one thread at a time."""

    def load(self) -> list[Document]:
        """All documents as they are now, in a stable order.

        Raises:
            SourceError: a document is unreadable or missing, or there is none (`EmptySource`).
        """

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """Block, and yield whenever the documents may have changed; return once `stop` is set.

        The first yield comes after the watch is set up, so that a `load` after it misses no change.
        """
