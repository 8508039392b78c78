"""The evidence of releases, from the figures of the workers."""

from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import GrayRelease


class NoEvidence:
    """Where nothing is counted."""

    def of(self, document: GrayRelease, state: ReleaseState) -> ReleaseEvidence | None:
        """See `Evidence.of`."""
        return None

    def newest_attempt(self, name: str) -> int:
        """See `Evidence.newest_attempt`."""
        return 0

    def exported(self, name: str, attempt: int) -> bytes:
        """See `Evidence.exported`."""
        return b""

    def restore(self, data: bytes) -> None:
        """See `Evidence.restore`."""
