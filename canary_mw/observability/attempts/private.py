"""Evidence in the memory of one process, where no folder is shared: it outlives the process by a checkpoint alone."""

from collections.abc import Mapping as Dict

from canary_mw.observability.attempts import checkpoint
from canary_mw.observability.attempts.register import Attempts
from canary_mw.observability.attempts.writer import EvidenceWriter
from canary_mw.observability.figures.writer import FiguresWriter


class PrivateEvidence:
    """What a process has counted for itself.

    Attributes:
        restored: the evidence of before a restart, as a file of figures; None without.
    """

    def __init__(self, figures: FiguresWriter, writer: EvidenceWriter) -> None:
        self.restored: memoryview | None = None
        self._figures = figures
        self._writer = writer
        self._resets = figures.resets

    @property
    def counts(self) -> bool:
        """Whether this process counts in private memory."""
        storage = self._figures.storage
        return self._figures.open_folder() is None or (storage is not None and not storage.name)

    @property
    def attempts(self) -> Attempts:
        """Those of the releases in force."""
        return self._writer.attempts

    def follow_states(self) -> None:
        """Find no thresholds of releases with steps in this process: their states say them."""
        self._writer.finds_limits = False

    def settle(self, name: str, attempt: int, limits: Dict[str, float]) -> None:
        """Judge an attempt by these thresholds, where its state has this number."""
        known = self._writer.attempts.get(name)
        if known is not None and known.stored == attempt:
            self._writer.add_limits(name, known.number, limits)

    def contents(self) -> list[memoryview]:
        """What was counted, as files of figures."""
        self._begin_anew()
        with self._figures.lock:
            storage = self._figures.storage
            own = storage.content() if storage is not None else None
        return [each for each in (self.restored, own) if each is not None]

    def _begin_anew(self) -> None:
        """In a forked child, forget what the parent has restored."""
        if self._resets != self._figures.resets:
            self._resets, self.restored = self._figures.resets, None

    def newest_attempt(self, name: str) -> int:
        """The highest attempt that this process has counted; 0 for none."""
        known = self._writer.attempts.get(name)
        return known.stored if known is not None else 0

    def exported(self, name: str, attempt: int) -> bytes:
        """See `checkpoint.exported`."""
        known = self._writer.attempts.get(name)
        if known is None or known.stored != attempt:
            return b""
        return checkpoint.packed(self.contents(), name, known)

    def restore(self, data: bytes) -> bool:
        """Go on with evidence, once; see `checkpoint.restore`."""
        found = checkpoint.unpacked(data)
        if found is None:
            return True
        name, before, content = found
        now = self._writer.attempts.get(name)
        if now is None or now.stored != before.stored:
            return False
        self._begin_anew()
        known = [self.restored] if self.restored is not None else []
        if not any(checkpoint.holds(each, name, now.number) for each in known):
            self.restored = checkpoint.joined([*known, checkpoint.renumbered(content, name, now.number)])
            self._writer.add_limits(name, now.number, before.limits)
        return True
