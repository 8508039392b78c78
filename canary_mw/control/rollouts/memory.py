"""States in the memory of one process: they end with it."""

from collections.abc import Mapping as Dict

from canary_mw.control.rollouts.store import LocalStore, Row, Stored
from canary_mw.locks import new_lock
from canary_mw.rollout.state import ReleaseState


class MemoryStore(LocalStore):
    """A `StateStore` that nobody else shares."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._rows: dict[str, Row] = {}
        self._checkpoints: dict[str, bytes] = {}

    def load(self) -> Stored:
        """See `StateStore.load`."""
        with self._lock:
            return Stored(states=dict(self._rows), identity="memory")

    def compare_and_set(self, name: str, state: ReleaseState, version: int | None) -> int | None:
        """See `StateStore.compare_and_set`."""
        with self._lock:
            known = self._rows.get(name)
            if (None if known is None else known.version) != version:
                return None
            self._rows[name] = Row(state, (version or 0) + 1)
            return self._rows[name].version

    def checkpoint(self, name: str, data: bytes) -> None:
        """See `StateStore.checkpoint`."""
        self._checkpoints[name] = data

    def checkpoints(self) -> Dict[str, bytes]:
        """See `StateStore.checkpoints`."""
        return dict(self._checkpoints)

    def has_changed(self) -> bool:
        """See `StateStore.has_changed`."""
        return False

    def close(self) -> None:
        """See `StateStore.close`."""
