"""Where there are no other pods."""

from collections.abc import Sequence

from canary_mw.control.rollouts.inputs import Heard
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.state import ReleaseState


class NoPeers:
    """A `Peers` without any."""

    @property
    def pods(self) -> int:
        """See `Peers.pods`."""
        return 1

    def weighed(self, evidence: ReleaseEvidence) -> ReleaseEvidence:
        """See `Peers.weighed`."""
        return evidence

    def watch(self) -> None:
        """See `Peers.watch`."""

    def pull(self) -> None:
        """See `Peers.pull`."""

    def heard(self) -> Heard | None:
        """See `Peers.heard`."""
        return None

    def findings(self) -> Sequence[str]:
        """See `Peers.findings`."""
        return ()

    def tell_lowered(self, state: ReleaseState) -> None:
        """See `Peers.tell_lowered`."""

    def stop(self) -> None:
        """See `Peers.stop`."""
