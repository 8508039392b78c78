"""The evidence of releases, from the figures of the workers."""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from canary_mw.control.store import RuleStore
from canary_mw.observability.attempts import checkpoint, register
from canary_mw.observability.attempts.private import PrivateEvidence
from canary_mw.observability.attempts.release_evidence import EvidenceRead, release_evidence
from canary_mw.observability.counters import RequestCounters
from canary_mw.observability.figures.storage import OpenedFolder
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import GrayRelease

# Seconds for which what was read counts: for the releases of one tick.
_FRESH = 0.03


class FiguresEvidence:
    """The evidence in the figures of all workers, or in those of this process.

    Args:
        counters: gives those of this process, None where there are none.
    """

    def __init__(self, counters: Callable[[], RequestCounters | None]) -> None:
        self._counters = counters
        self._read: EvidenceRead | None = None
        self._read_at = 0.0

    def of(self, document: GrayRelease, state: ReleaseState) -> ReleaseEvidence | None:
        """See `Evidence.of`."""
        counters = self._counters()
        if counters is None:
            return None
        if self._read is None or monotonic() - self._read_at > _FRESH:
            self._read, self._read_at = counters.evidence(), monotonic()
        return release_evidence(self._read, document, state.attempt, state.visit, state.step)

    def _folder(self) -> OpenedFolder | None:
        """The folder that the workers share; None where this process counts for itself, or does not count."""
        counters = self._counters()
        return None if counters is None or counters.private.counts else counters.figures.open_folder()

    def _private(self) -> PrivateEvidence | None:
        counters = self._counters()
        return None if counters is None else counters.private

    def tick(self, rules: RuleStore) -> None:
        """See `Evidence.tick`."""
        counters = self._counters()
        if counters is not None and counters.tick not in rules.ticks:
            counters.tick()

    def newest_attempt(self, name: str) -> int:
        """See `Evidence.newest_attempt`."""
        folder, private = self._folder(), self._private()
        if folder is None:
            return private.newest_attempt(name) if private is not None else 0
        known = register.read(folder.descriptor).get(name)
        return known.stored if known is not None else 0

    def exported(self, name: str, attempt: int) -> bytes:
        """See `Evidence.exported`."""
        folder, private = self._folder(), self._private()
        if folder is None:
            return private.exported(name, attempt) if private is not None else b""
        with suppress(OSError):
            checkpoint.hold(folder.descriptor, name, attempt)
            return checkpoint.exported(folder.descriptor, name, attempt)
        return b""

    def restore(self, data: bytes) -> bool:
        """See `Evidence.restore`."""
        folder, private = self._folder(), self._private()
        with suppress(OSError, ValueError, KeyError, TypeError):
            if folder is None:
                return private.restore(data) if private is not None else True
            return checkpoint.restore(folder.descriptor, data)
        return True
