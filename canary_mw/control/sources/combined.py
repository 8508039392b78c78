"""Several sources of rules as one."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from canary_mw.config.document import Diagnostic, Document
from canary_mw.control.sources.base import ConfigSource
from canary_mw.forking import start_thread
from canary_mw.host import HostLogger
from canary_mw.locks import Latch
from canary_mw.observability.source_status import SourceStatus

logger = HostLogger(logging.getLogger("canary_mw.sources"))

# Seconds between two looks whether to stop, and before a source that failed is followed again.
_LOOK = 0.25
_RETRY_DELAY = 1.0


class CombinedSource:
    """Sources in an order: of two Mappings with the same name, that of the later source counts.

    Attributes:
        name: those of all.
        namespace: that of this process in the first cluster, empty without one.
    """

    def __init__(self, sources: Sequence[ConfigSource]) -> None:
        self.sources = tuple(sources)
        self.namespace = next(filter(None, (getattr(each, "namespace", "") for each in sources)), "")
        self.name = ", ".join(str(getattr(each, "name", type(each).__name__)) for each in sources)

    def load(self) -> list[Document]:
        """The documents of all sources."""
        documents = [document for source in self.sources for document in source.load()]
        seen: Counter[str] = Counter()
        for index, document in enumerate(documents):
            seen[document.name] += 1
            if seen[document.name] > 1:
                # Two sources may read one namespace.
                documents[index] = replace(document, name=f"{document.name} [{seen[document.name]}]")
        return documents

    def status(self) -> list[SourceStatus]:
        """That of each source that has one."""
        return [each for source in self.sources for each in getattr(source, "status", list)()]

    def volume_lines(self) -> list[str]:
        """Those of each source that has any."""
        return [line for source in self.sources for line in getattr(source, "volume_lines", list)()]

    def applied(self, diagnostics: Sequence[Diagnostic]) -> None:
        """See `KubernetesSource.applied`."""
        for source in self.sources:
            getattr(source, "applied", bool)(diagnostics)

    def stop_watching(self) -> None:
        """End what `load` has begun."""
        for source in self.sources:
            getattr(source, "stop_watching", bool)()

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """See `ConfigSource`. Each source is followed in a thread of its own."""
        signal = _Signal()
        ended = Latch()
        moved = signal.latch
        threads = [
            start_thread(partial(_follow, source, ended, signal), "canary-mw-source", stop=ended.set)
            for source in self.sources
        ]
        try:
            while not stop.is_set():
                if moved.wait(_LOOK):
                    moved = signal.renew()
                    yield
        finally:
            ended.set()
            for thread in threads:
                thread.join(2 * _LOOK)


class _Signal:
    """Several threads wake one."""

    def __init__(self) -> None:
        self.latch = Latch()

    def set(self) -> None:
        self.latch.set()

    def renew(self) -> Latch:
        """The latch for the next time."""
        self.latch = Latch()
        return self.latch


def _follow(source: ConfigSource, ended: Latch, signal: _Signal) -> None:
    # A latch has what a source may use of an event.
    event = cast("threading.Event", ended)
    while not ended.is_set():
        try:
            for _ in source.changes(event):
                signal.set()
            return
        except Exception:
            logger.exception("following the rules failed; trying again")
            ended.wait(_RETRY_DELAY)
