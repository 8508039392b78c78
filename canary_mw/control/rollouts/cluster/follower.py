"""The ConfigMap of one release, followed: it is read and then watched, by its name alone.

A watch is left after a minute, and the object is read again. So a connection that is cut without a word is found, and
whatever was missed is known a minute later at the latest.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from canary_mw.control.rollouts.cluster.access import Access
from canary_mw.control.rollouts.cluster.address import Cluster
from canary_mw.control.rollouts.cluster.names import config_map_name
from canary_mw.control.rollouts.cluster.objects import (
    Object,
    Reading,
    evidence_in,
    is_older,
    reading_of,
    resource_version,
    text_in,
    version_in,
)
from canary_mw.control.rollouts.cluster.problems import explained, missing_config_map
from canary_mw.exceptions import StoreAway
from canary_mw.kubernetes.api import Lines, Refused
from canary_mw.kubernetes.backoff import Backoff

# Seconds of a watch; beyond its end it is silent for this long at most.
_SECONDS, _SILENCE = (45, 60), 10.0
# A watch that ends sooner says nothing: the next one has to wait.
_SHORT = 1.0
# The longest delay after failures: what was taken back elsewhere has to be known soon.
LONGEST_DELAY = 5.0
# Seconds between two looks for an object that there seldom is.
_SELDOM = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What is known of the object of a release.

    Attributes:
        item: None where there is none.
        answered: whether the server has said what there is, or why it does not say.
        problem: why the newest state may not be known, "" where it is.
    """

    item: Object | None = None
    reading: Reading = field(default_factory=Reading)
    evidence: bytes = b""
    answered: bool = False
    problem: str = "the API server has not answered yet"


class Follower:
    """Follows the object of one release in an event loop.

    Args:
        changed: called after each change of `known`.
        before: who has followed it until now.
        needed: whether the release has steps. Without them it has an object only where somebody has aborted it.

    Attributes:
        known: what is known; any thread may read it.
    """

    def __init__(
        self,
        cluster: Cluster,
        release: str,
        changed: Callable[[], object],
        before: "Follower | None" = None,
        *,
        needed: bool = True,
    ) -> None:
        self.known: Followed = Followed() if before is None else before.known
        self.needed = needed
        self._cluster, self._release, self._changed = cluster, release, changed
        self._access = Access(cluster)
        self._backoff = Backoff(longest=LONGEST_DELAY)
        self._failures = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                began = monotonic()
                delay = await self._step()
                if not delay and monotonic() - began < _SHORT:
                    delay = self._backoff.after_failure()
                await asyncio.sleep(delay)
        finally:
            await self._access.reset()

    async def _step(self) -> float:
        """Read, and watch until the watch ends; returns the seconds to wait."""
        try:
            item = await self._access.read(self._release, make=self.needed)
            if item is None:
                self._miss()
                return LONGEST_DELAY if self.needed else _SELDOM
            self.take(item)
            await self._watch(item)
        except Exception as exc:  # noqa: BLE001 - whatever a server sends, it is asked again
            return await self._fail(exc)
        return 0.0

    async def _fail(self, error: Exception) -> float:
        """Note why the object is not known; returns the seconds to wait."""
        # Of an error of the server, or of the connection.
        refusal = error.__cause__ if isinstance(error, StoreAway) else error
        self._failures += 1
        problem = explained(error, self._cluster.connection, "configmaps", "", config_map_name(self._release))
        denied = isinstance(refusal, Refused) and refusal.code == 403
        if denied or self._failures > 1 or not self.known.answered:
            # A missing right is an answer: the other releases do not wait for it.
            self._note(replace(self.known, answered=self.known.answered or denied, problem=problem))
        if denied and not self.needed:
            return _SELDOM
        if isinstance(refusal, Refused):
            return self._backoff.after_failure(refusal.retry_after)
        await self._access.reset()
        return self._backoff.after_failure()

    def take(self, item: Object) -> None:
        """Note what was read, or written here."""
        before = self.known.item
        if before is item:
            return
        text, version = text_in(item), version_in(item)
        reading = self.known.reading
        if before is None or (text, version) != (text_in(before), version_in(before)):
            reading = reading_of(self._release, text, version or 0)
        evidence = self.known.evidence
        # Whether changes are heard, too, is not known before the next watch.
        problem = self.known.problem if self._failures else ""
        if before is None or before.get("binaryData") != item.get("binaryData"):
            evidence = evidence_in(item)
        self._note(Followed(item=item, reading=reading, evidence=evidence, answered=True, problem=problem))

    def _miss(self) -> None:
        """There is no object, and none can be made here. What was known stays so."""
        problem = missing_config_map(self._cluster.namespace, config_map_name(self._release))
        self._note(replace(self.known, item=None, answered=True, problem=problem))

    def _note(self, known: Followed) -> None:
        if known != self.known:
            self.known = known
            self._changed()

    async def _watch(self, item: Object) -> None:
        seconds = random.randint(*_SECONDS)
        lines = await self._access.watch(self._release, item, seconds)
        self._failures = 0
        self._note(replace(self.known, problem=""))
        async with aclosing(lines):
            await self._read(lines, seconds + _SILENCE)

    async def _read(self, lines: Lines, silence: float) -> None:
        """Take the events of a watch until it ends, or has to be left."""
        while True:
            events = await lines.next(silence)
            if events is None:
                return
            for event in events:
                if not self._take_event(event):
                    return

    def _take_event(self, event: Any) -> bool:
        """Take an event; False where the object has to be read again."""
        item = event.get("object") if isinstance(event, dict) else None
        if not isinstance(item, dict) or event.get("type") not in ("ADDED", "MODIFIED") or not resource_version(item):
            return False
        self._backoff.reset()
        # What was written here is known before the watch says so.
        if self.known.item is None or not is_older(item, self.known.item):
            self.take(item)
        return True
