"""The evidence of releases, from the figures of the workers."""

import logging
from collections.abc import Callable, Collection, Sequence
from collections.abc import Mapping as Dict
from contextlib import suppress
from functools import partial
from time import monotonic

from canary_mw.control.rollouts.inputs import Given
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import EvidenceRefused
from canary_mw.host import HostLogger
from canary_mw.observability.attempts import checkpoint, register
from canary_mw.observability.attempts.measures import measures_of
from canary_mw.observability.attempts.private import PrivateEvidence
from canary_mw.observability.attempts.register import Attempts
from canary_mw.observability.attempts.release_evidence import EvidenceRead, no_more, release_evidence
from canary_mw.observability.attempts.union import times_in
from canary_mw.observability.attempts.writer import limits_by
from canary_mw.observability.counters import RequestCounters
from canary_mw.observability.figures.storage import OpenedFolder
from canary_mw.observability.peers.kept import PeerEvidence
from canary_mw.observability.peers.wire import exports_of, new_pod, packed, pod_of, stamp_of, unpacked
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import GrayRelease

logger = HostLogger(logging.getLogger("canary_mw.rollouts"))

# Seconds for which what was read counts: for the releases of one tick.
_FRESH = 0.03
# Bytes of what is stored of all pods: a ConfigMap has 1 MiB, and base64 takes a third more.
_MOST_STORED = 376 << 10


class FiguresEvidence:
    """The evidence in the figures of all workers, or in those of this process.

    Args:
        counters: gives those of this process, None where there are none.
        shared: whether other pods see requests of the same releases.
    """

    def __init__(self, counters: Callable[[], RequestCounters | None], *, shared: bool = False) -> None:
        self._counters = counters
        self.pods = PeerEvidence(self._folder) if shared else None
        self._own = new_pod()
        self._settled: dict[str, object] = {}
        self._read: EvidenceRead | None = None
        self._read_at = 0.0

    def of(self, document: GrayRelease, state: ReleaseState) -> ReleaseEvidence | None:
        """See `Evidence.of`."""
        counters = self._counters()
        if counters is None:
            return None
        if self._read is None or monotonic() - self._read_at > _FRESH:
            more = no_more if self.pods is None else self.pods.contents
            self._read, self._read_at = counters.evidence(more), monotonic()
        return release_evidence(self._read, document, state.attempt, state.visit, state.step)

    def forget(self) -> None:
        """Read it anew."""
        self._read = None

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
        if counters is not None and self.pods is not None:
            counters.private.follow_states()
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
        if self.pods is not None:
            return self._of_all_pods(self.pods, name, attempt)
        folder, private = self._folder(), self._private()
        if folder is None:
            return private.exported(name, attempt) if private is not None else b""
        with suppress(OSError):
            checkpoint.hold(folder.descriptor, name, attempt)
            return checkpoint.exported(folder.descriptor, name, attempt)
        return b""

    def restore(self, data: bytes) -> bool:
        """See `Evidence.restore`."""
        if self.pods is not None:
            return self._restore_pods(self.pods, data)
        folder, private = self._folder(), self._private()
        with suppress(OSError, ValueError, KeyError, TypeError):
            if folder is None:
                return private.restore(data) if private is not None else True
            return checkpoint.restore(folder.descriptor, data)
        return True

    def _restore_pods(self, pods: PeerEvidence, data: bytes) -> bool:
        try:
            pods.restore(unpacked(data)[1], self._pod())
        except OSError:
            return False
        except EvidenceRefused as exc:
            logger.warning("the stored evidence of other pods is not gone on with: %s", exc)
        return True

    def _pod(self) -> str:
        """What tells this pod from the others; raises OSError."""
        folder = self._folder()
        return self._own if folder is None else pod_of(folder.descriptor)

    def _counted(self) -> tuple[Sequence[memoryview], Attempts]:
        folder, private = self._folder(), self._private()
        if folder is not None:
            return checkpoint.counted(folder.descriptor)
        return (private.contents(), private.attempts) if private is not None else ((), {})

    def _of_all_pods(self, pods: PeerEvidence, name: str, attempt: int) -> bytes:
        """The evidence of an attempt, by pod: after a restart only that of pods that are gone is taken of it."""
        with suppress(OSError):
            pod, (contents, known) = self._pod(), self._counted()
            present = {each: found for each, found in known.items() if each == name and found.stored == attempt}
            return packed(pod, [*exports_of(pod, contents, present), *pods.exports(name, attempt)], _MOST_STORED)
        return b""

    def thresholds(self, document: GrayRelease, state: ReleaseState) -> Dict[str, float]:
        """See `Evidence.thresholds`."""
        if self.pods is None or document.plan is None:
            return {}
        stages = document.plan.stages
        analysis = stages[min(state.step, len(stages) - 1)].analysis
        measures = [each for each in measures_of(analysis) if each.quantile and each.name not in state.limits]
        if analysis is None or not measures:
            return {}
        contents, attempts = self._counted()
        attempt = attempts.get(state.name)
        if attempt is None or attempt.stored != state.attempt:
            return {}
        everything = [*contents, *self.pods.contents(attempts)]
        place = state.name, str(attempt.number)
        return limits_by({each.times: times_in(everything, (*place, each.times)) for each in measures}, measures)

    def settle(self, state: ReleaseState) -> None:
        """See `Evidence.settle`."""
        place = state.attempt, *state.limits.items()
        if self.pods is None or not state.limits or self._settled.get(state.name) == place:
            return
        known = self._attempts().get(state.name)
        if known is None or known.stored != state.attempt:
            return
        if known.limits.items() >= state.limits.items():
            self._settled[state.name] = place
        else:
            self._settle(state)

    def _attempts(self) -> Attempts:
        folder, private = self._folder(), self._private()
        if folder is not None:
            return register.read(folder.descriptor)
        return private.attempts if private is not None else {}

    def _settle(self, state: ReleaseState) -> None:
        folder, private = self._folder(), self._private()
        step = partial(register.settled, name=state.name, stored=state.attempt, limits=state.limits)
        with suppress(OSError):
            if folder is not None:
                register.change(folder.descriptor, step)
            elif private is not None:
                private.settle(state.name, state.attempt, state.limits)

    def give(self, names: Collection[str], cursor: str) -> Given:
        """See `Evidence.give`."""
        pod, (contents, known) = self._pod(), self._counted()
        attempts = {name: each for name, each in known.items() if name in names and each.stored}
        stamp = stamp_of(pod, contents, attempts)
        return Given(stamp, None if stamp == cursor else packed(pod, exports_of(pod, contents, attempts)))

    def take(self, data: bytes) -> bool:
        """See `Evidence.take`."""
        pod, exports = unpacked(data)
        own = self._pod()
        if any(each.pod != pod for each in exports):
            raise EvidenceRefused("it is that of another pod")
        if pod == own:
            return True
        if self.pods is not None:
            self.pods.take(exports, own)
            self.forget()
        return False
