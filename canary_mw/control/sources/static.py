"""Rules from a text that never changes."""

import threading
from collections.abc import Iterator

from canary_mw.config.document import Document


class StaticSource:
    """A text that never changes.

    Args:
        name: its name in diagnostics.
    """

    def __init__(self, text: str, name: str = "rules") -> None:
        self._document = Document(text, name)
        self.name = name

    def load(self) -> list[Document]:
        """The text."""
        return [self._document]

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """Wait for `stop`."""
        stop.wait()
        yield from ()
