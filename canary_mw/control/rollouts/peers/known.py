"""What is known of the other pods: where they are, when each was heard last, and what is wrong with it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from canary_mw.control.rollouts.inputs import Heard
from canary_mw.control.rollouts.peers.addresses import Address, Pod, text_of

# Seconds within which all pods that get requests have to be heard for a raise, and beyond which their evidence is lost.
RAISE_WITHIN, LOST_AFTER = 6.0, 10.0
# Findings that are shown; more pods say the same.
_MOST_SHOWN = 5


@dataclass(slots=True)
class KnownPod:
    """A pod.

    Attributes:
        since: when it was seen first.
        heard_at: when its evidence was known last; None before.
        cursor: of that evidence.
        is_own: whether it is this one.
        error: why it is not heard, "" where it is.
    """

    ready: bool
    since: float
    heard_at: float | None = None
    cursor: str = ""
    is_own: bool = False
    error: str = ""

    def silence(self, now: float, asked_since: float) -> float:
        """Seconds for which nothing was heard of it, since it is asked."""
        return now - max(self.since, asked_since, self.heard_at or 0.0)


class KnownPods:
    """The pods of a Service. One thread changes it, and any may ask.

    Attributes:
        pods: by their addresses.
        error: why their list is not known, or may be old, "" where it is as of now.
        denied_since: since when the list may not be read any more; None where it may.
        listed_at: when the list was known first; None before.
        asked_since: since when all pods are asked.
    """

    def __init__(self, now: float) -> None:
        self.pods: dict[Address, KnownPod] = {}
        self.error = "the list of pods was not read yet"
        self.listed_at: float | None = None
        self.denied_since: float | None = None
        self.asked_since = self._none_since = now

    def adopt(self, found: Sequence[Pod], now: float) -> None:
        """These are all pods now."""
        pods = {}
        for address, ready in found:
            known = self.pods.get(address) or KnownPod(ready, now)
            known.ready = ready
            pods[address] = known
        if self.pods and not pods:
            self._none_since = now
        self.pods, self.error = pods, ""
        self.listed_at = now if self.listed_at is None else self.listed_at

    def note_right(self, now: float, *, denied: bool) -> None:
        """Whether the list may be read, and watched."""
        self.denied_since = (self.denied_since or now) if denied else None

    def _is_old(self, now: float, most: float) -> bool:
        """Whether there may be pods that are not in the list.

        Where the API is away, so is the Lease, and nobody raises: that needs no second answer here.
        """
        return self.denied_since is not None and now - self.denied_since > most

    def heard(self, now: float) -> Heard:
        """How many report; each of them was heard within 10 seconds."""
        pods = list(self.pods.values())
        times = [now - each.heard_at for each in pods if each.heard_at is not None]
        reporting = sum(each.is_own or _is_heard(each, now) for each in pods)
        # This one may be behind another Service, or may not be listed yet.
        missing = 0 if any(each.is_own for each in pods) else 1
        return Heard(reporting + missing, len(pods) + missing, min(times, default=None))

    def is_fresh(self, now: float) -> bool:
        """Whether the evidence of all pods that get requests is known, as of a moment ago.

        Where there is no pod, not even this one, another Service is asked about than that of these pods.
        """
        if not self.pods or self._is_old(now, RAISE_WITHIN):
            return False
        needed = [each for each in self.pods.values() if each.ready and not each.is_own]
        return all(each.heard_at is not None and now - each.heard_at <= RAISE_WITHIN for each in needed)

    def is_lost(self, now: float) -> bool:
        """Whether evidence of a pod that gets requests is missing for long."""
        if not self.pods:
            return now - max(self.asked_since, self._none_since) > LOST_AFTER
        if self._is_old(now, LOST_AFTER):
            return True
        needed = [each for each in self.pods.values() if each.ready and not each.is_own]
        return any(each.silence(now, self.asked_since) > LOST_AFTER for each in needed)

    def findings(self, now: float) -> Iterator[str]:
        """What keeps evidence from being known, in words."""
        if self.error:
            yield self.error
        silent = [(address, each) for address, each in self.pods.items() if each.error and not each.is_own]
        for address, each in silent[:_MOST_SHOWN]:
            kept = "" if each.heard_at is None else f"; what it has seen until {now - each.heard_at:.0f} s ago counts"
            yield f"the pod {text_of(address)} {each.error}{kept}"
        if len(silent) > _MOST_SHOWN:
            yield f"{len(silent) - _MOST_SHOWN} more pods do not report either"


def _is_heard(pod: KnownPod, now: float) -> bool:
    return pod.heard_at is not None and now - pod.heard_at <= LOST_AFTER


class Noted(NamedTuple):
    """How it goes with the pods, as the workers of a pod tell each other.

    Attributes:
        pods: how many there are.
        at: monotonic time of the host, of the last question to all of them; 0 for none.
        newest_at: the same of the last answer, None for none.
    """

    pods: int
    reporting: int = 0
    known: int = 0
    at: float = 0.0
    newest_at: float | None = None
    findings: tuple[str, ...] = ()

    def is_fresh(self, now: float) -> bool:
        """Whether it is of now; the clock begins anew with the host."""
        return bool(self.at) and 0 <= now - self.at <= LOST_AFTER

    def heard(self, now: float) -> Heard:
        """See `KnownPods.heard`."""
        return Heard(self.reporting, self.known, None if self.newest_at is None else max(now - self.newest_at, 0.0))


def noted_of(known: KnownPods, now: float, *, asks: bool) -> Noted:
    """What is told of the pods.

    Args:
        asks: whether this process asks all of them.
    """
    if not asks:
        return Noted(len(known.pods))
    reporting, count, newest = known.heard(now)
    newest_at = None if newest is None else now - newest
    return Noted(len(known.pods), reporting, count, now, newest_at, tuple(known.findings(now)))


def noted_in(text: bytes) -> Noted | None:
    """What was told; None where that cannot be read."""
    try:
        found = Noted(*json.loads(text))
        return found._replace(findings=tuple(map(str, found.findings)), pods=int(found.pods), at=float(found.at))
    except (ValueError, TypeError):
        return None
