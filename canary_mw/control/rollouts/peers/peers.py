"""The other pods of a deployment: who controls asks all of them for their evidence, and who rolls back tells them.

Everything waits in an event loop of its own, in a thread that starts when a release is driven: neither a tick nor a
request waits for a pod. The pods are those of the EndpointSlices of one Service.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from weakref import WeakMethod, WeakSet

from canary_mw.control.rollouts.inputs import Heard
from canary_mw.control.rollouts.peers.known import KnownPods, noted_in
from canary_mw.control.rollouts.peers.session import Place, Session
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.state import ReleaseState
from canary_mw.upstreams.loop_thread import LoopThread

# How many pods there are taken to be where that was never known: more evidence is asked for then, and never less.
UNKNOWN = 64
# Seconds for which pods are asked after the last wish.
_WANTED = 2.5


class Peers:
    """The other pods. Any thread may call it; nothing waits.

    Args:
        token: gives the token by which pods know each other; raises ConfigError where there is none.
        take: takes over what a pod gave, and returns whether it is this pod; raises EvidenceRefused. It is kept weakly.
        note: keeps how it goes with the pods, for the other workers of this one.
        noted: returns what was kept last.
    """

    def __init__(
        self,
        place: Place,
        token: Callable[[], str],
        take: Callable[[bytes], bool],
        note: Callable[[bytes], object],
        noted: Callable[[], bytes],
    ) -> None:
        self._place, self._token, self._note, self._noted = place, token, note, noted
        self._take = WeakMethod(take)
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._known = KnownPods(monotonic())
        self._thread = LoopThread()
        self._session: Session | None = None

    def watch(self) -> None:
        """Know where the pods are, from now on."""
        ensure_forked_hooks()
        if self._session is None:
            session = Session(self._place, self._token, self._take, self._note, self._known)
            self._session = session
            self._thread.on_end = session.aclose
            self._thread.call(session.start)

    def pull(self) -> None:
        """Ask all pods for their evidence, each 2 seconds for as long as this is called again and again."""
        self.watch()
        if not self._asks:
            # Who controls since a moment ago has asked nobody before.
            self._known.asked_since = monotonic()
        if self._session is not None:
            self._session.wanted_until = monotonic() + _WANTED

    def heard(self) -> Heard | None:
        """How many pods report to the worker of this pod that asks them; None where none does."""
        now = monotonic()
        if self._asks:
            return self._known.heard(now)
        noted = noted_in(self._noted())
        return noted.heard(now) if noted is not None and noted.is_fresh(now) else None

    @property
    def _asks(self) -> bool:
        return self._session is not None and self._session.wanted_until > monotonic()

    @property
    def pods(self) -> int:
        """How many pods there are, with this one, or were when that was known last."""
        if self._known.pods:
            return len(self._known.pods)
        noted = noted_in(self._noted())
        return noted.pods if noted is not None and noted.pods > 0 else UNKNOWN

    def weighed(self, evidence: ReleaseEvidence) -> ReleaseEvidence:
        """Evidence that is not readable while some of it is missing for long, nor complete while it is for a moment."""
        now = monotonic()
        readable = evidence.readable and not self._known.is_lost(now)
        return replace(evidence, readable=readable, complete=self._known.is_fresh(now))

    def findings(self) -> Sequence[str]:
        """What is wrong with the other pods, in words."""
        now = monotonic()
        if self._asks:
            return [f"other pods: {each}" for each in self._known.findings(now)]
        noted = noted_in(self._noted())
        fresh = noted is not None and noted.is_fresh(now)
        return [f"other pods: {each}" for each in noted.findings] if noted is not None and fresh else []

    def tell_lowered(self, state: ReleaseState) -> None:
        """Tell all pods that a release was rolled back, or aborted, again and again for some time."""
        self.watch()
        session = self._session
        if session is not None:
            self._thread.call(session.tell, state)

    def stop(self) -> None:
        """Ask nobody any more."""
        self._session = None
        self._thread.stop()


_all: WeakSet[Peers] = WeakSet()
# Of a parent, in a forked child. They are never freed: that would close connections in the event loop of the parent.
_inherited: list[Session] = []


def _after_fork() -> None:
    for peers in _all:
        peers._thread.reset_after_fork()
        if peers._session is not None:
            _inherited.append(peers._session)
        peers._reset()


after_fork(_after_fork)
