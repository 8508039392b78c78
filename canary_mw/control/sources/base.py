"""What a source of rules is."""

import threading
from collections.abc import Iterator
from typing import Protocol

from canary_mw.config.document import Document
from canary_mw.exceptions import SourceError


class EmptySource(SourceError):
    """A directory is there and can be read, but holds no rule file.

    Attributes:
        documents: what the other places of the source hold.
    """

    def __init__(self, directory: str, documents: list[Document]) -> None:
        hint = "put a .yaml file with Mappings into it"
        super().__init__("the directory is empty: it holds no rule file", file=directory, hint=hint)
        self.documents = documents


class ConfigSource(Protocol):
    """A place that holds rules; `load` and `changes` are called from one thread at a time."""

    def load(self) -> list[Document]:
        """All texts as they are now, in a stable order.

        Raises:
            SourceError: a text is unreadable or missing, or there is none at all (`EmptySource`).
        """

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """Block, and yield whenever the texts may have moved; return once `stop` is set.

        The first yield comes after the watch is in place: a `load` then misses nothing.
        """
