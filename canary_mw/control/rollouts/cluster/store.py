"""A `StateStore` in a cluster.

One process of a pod speaks with the API for all of its workers, the one that holds the lock of the run folder; the
others read what it knows. Whoever writes does so by itself, and by the version that was read.
"""

import asyncio
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Literal

from canary_mw.control.rollouts.cluster.address import Cluster
from canary_mw.control.rollouts.cluster.mirror import Entry, Known, Mirror
from canary_mw.control.rollouts.cluster.names import identity_in
from canary_mw.control.rollouts.cluster.objects import reading_of, text_in, version_in
from canary_mw.control.rollouts.cluster.speaker import Speaker
from canary_mw.control.rollouts.cluster.writer import PATIENCE, Wish, Writer
from canary_mw.control.rollouts.settings import is_stopped
from canary_mw.control.rollouts.store import Row, Stored
from canary_mw.exceptions import StoreAway
from canary_mw.locks import Latch, wait_for
from canary_mw.rollout.state import ReleaseState, to_json
from canary_mw.run_folder.folder import Folder
from canary_mw.upstreams.loop_thread import LoopThread

# Seconds beyond what is waited for in the event loop, and for the end.
_MORE, _END = 0.15, 1.0
_PAUSE = 0.02
# Seconds for which what this process has found counts, though the one that speaks does not know it yet.
_LATELY = 5.0
_UNANSWERED = "the API server has not answered yet"
_UNTOLD = "the process that asks the API for this pod has not said yet what it has answered"

Role = Literal["speaks", "listens", "reads"]


class ClusterStore:
    """States in ConfigMaps.

    Args:
        folder: the run folder that the workers of this pod share; without one this process is a pod of its own.
        releases: returns the releases that are asked for, each with whether it has steps; the same object as long as
            they are the same.
    """

    def __init__(self, cluster: Cluster, folder: Folder | None, releases: Callable[[], Dict[str, bool]]) -> None:
        self._cluster, self._folder, self._releases = cluster, folder, releases
        self._mirror = Mirror(folder, cluster.key)
        self._writer = Writer(cluster)
        self._thread, self._ending = LoopThread(), _Ending(self._writer)
        self._thread.on_end = self._ending.run
        self._speaker: Speaker | None = None
        self._role: Role = "reads"
        self._followed: Dict[str, bool] = {}
        self._waited = False
        self._seen: object = None
        # What the one that spoke before has known.
        self._before: Dict[str, Entry] = {}
        self._has_answered = False
        # What this process has found when it wrote, and when that was; one that speaks needs none.
        self._found: dict[str, tuple[Entry, float]] = {}

    def contend(self, *, speaks: bool) -> bool:
        """See `StateStore.contend`."""
        # Where the one that speaks was stopped, this process asks for itself, and raises nothing.
        role: Role = "speaks" if speaks else "listens" if self._mirror.silent else "reads"
        if role != self._role:
            if self._speaker is not None:
                self.close()
            self._begin(role)
        return self._speaker is not None and self._speaker.leads

    def _begin(self, role: Role) -> None:
        self._role = role
        if role == "reads":
            return
        speaks = role == "speaks"
        mirror = self._mirror if speaks else Mirror(None, self._cluster.key)
        identity = identity_in(self._folder if speaks else None)
        self._before = self._told().entries
        self._speaker = self._ending.speaker = Speaker(self._cluster, identity, mirror, stands=speaks)
        self._waited, self._followed = not speaks, self._releases()
        self._thread.call(self._speaker.begin, self._followed)

    @property
    def heard(self) -> float | None:
        """See `StateStore.heard`."""
        return self._speaker.heard if self._speaker is not None else None

    @property
    def controller(self) -> str:
        """See `StateStore.controller`."""
        holder = self._speaker.holder if self._speaker is not None else self._told().holder
        return f"pod {holder}" if holder else ""

    @property
    def problems(self) -> tuple[str, ...]:
        """See `StateStore.problems`."""
        found = self._speaker.problem if self._speaker is not None else self._told().problem
        return (found,) if found else ()

    def _told(self) -> Known:
        return self._mirror.read() or Known()

    def load(self) -> Stored:
        """See `StateStore.load`."""
        self._follow()
        self._wait()
        self._seen = self._mark()
        wanted, known = self._followed, self._entries()
        if not self._has_answered and wanted and not any(each.answered or each.text for each in known.values()):
            raise StoreAway(_UNANSWERED if self._speaker is not None else _UNTOLD)
        self._has_answered = True
        return _stored(known, wanted, self._cluster.key, stopped=self._is_stopped())

    def _follow(self) -> None:
        """Follow the releases as they are written now."""
        releases = self._releases()
        if releases is not self._followed:
            self._followed = releases
            if self._speaker is not None:
                self._thread.call(self._speaker.follow, releases)

    def _wait(self) -> None:
        """Wait for the first answer, once."""
        limit = monotonic() + (0.0 if self._waited else PATIENCE)
        self._waited = True
        if self._speaker is not None:
            wait_for(self._speaker.answered, max(0.0, limit - monotonic()))
            return
        while self._mirror.stamp() is None and monotonic() < limit:
            wait_for(Latch(), _PAUSE)

    def _entries(self) -> dict[str, Entry]:
        """What is known of the releases."""
        now = self._speaker.entries if self._speaker is not None else self._told().entries
        return {name: self._newest(name, now.get(name, Entry(answered=False))) for name in self._followed}

    def _newest(self, name: str, entry: Entry) -> Entry:
        if not entry.text and (not entry.answered or entry.problem):
            # As long as nothing is known, what was known counts.
            before = self._before.get(name, Entry(answered=False))
            entry = replace(
                before, answered=entry.answered, problem=entry.problem or (_UNANSWERED if before.text else "")
            )
        found = self._found_lately().get(name, entry)
        return found if found.version > entry.version else entry

    def _found_lately(self) -> dict[str, Entry]:
        if self._speaker is not None:
            return {}
        return {name: entry for name, (entry, at) in list(self._found.items()) if monotonic() - at < _LATELY}

    def has_changed(self) -> bool:
        """See `StateStore.has_changed`."""
        self._follow()
        return self._mark() != self._seen

    def _mark(self) -> object:
        changes = self._speaker.changes if self._speaker is not None else self._mirror.read()
        found = {name: entry.version for name, entry in self._found_lately().items()}
        return id(self._followed), self._speaker is None, changes, found, self._is_stopped()

    def _is_stopped(self) -> bool:
        try:
            return self._folder is not None and is_stopped(self._folder)
        except OSError as exc:
            raise StoreAway(f"the run folder cannot be read: {exc}") from exc

    def compare_and_set(self, name: str, state: ReleaseState, version: int | None) -> int | None:
        """See `StateStore.compare_and_set`."""
        try:
            return self._thread.run(self._write(name, Wish(to_json(state), version)), PATIENCE + _MORE)
        except TimeoutError as exc:
            raise StoreAway(str(exc)) from exc

    async def _write(self, name: str, wish: Wish) -> int | None:
        speaker = self._speaker
        item, version = await self._writer.write(name, speaker.item(name) if speaker is not None else None, wish)
        if speaker is not None:
            speaker.take(name, item)
        else:
            self._found[name] = Entry(text=text_in(item), version=version_in(item) or 0), monotonic()
        return version

    def checkpoint(self, name: str, data: bytes) -> None:
        """See `StateStore.checkpoint`: this pod knows it at once, others within half a minute."""
        if self._speaker is not None:
            self._thread.call(self._speaker.keep, name, data)

    def checkpoints(self) -> Dict[str, bytes]:
        """See `StateStore.checkpoints`."""
        if self._speaker is not None:
            return self._speaker.evidence()
        return {name: each.progress.encode() for name, each in self._told().entries.items() if each.progress}

    def close(self) -> None:
        """See `StateStore.close`."""
        self._speaker, self._role = None, "reads"
        self._thread.stop()


class _Ending:
    """What the event loop does last, also where the process ends: it leaves the Lease to others."""

    def __init__(self, writer: Writer) -> None:
        self.speaker: Speaker | None = None
        self._writer = writer

    async def run(self) -> None:
        """Do it, in a second at most."""
        speaker, self.speaker = self.speaker, None
        with suppress(TimeoutError):
            async with asyncio.timeout(_END):
                await self._writer.reset()
                if speaker is not None:
                    await speaker.end()


def _stored(known: Dict[str, Entry], wanted: Dict[str, bool], identity: str, *, stopped: bool) -> Stored:
    states: dict[str, Row] = {}
    newer: set[str] = set()
    for name, entry in known.items():
        reading = reading_of(name, entry.text, entry.version)
        if reading.row is not None:
            states[name] = reading.row
        if reading.newer:
            newer.add(name)
    return Stored(
        states=states,
        stopped=stopped,
        newer=frozenset(newer),
        unreadable=dict(_problems(known, wanted)),
        awaited=frozenset(name for name, each in known.items() if not each.answered and not each.text),
        identity=identity,
    )


def _problems(known: Dict[str, Entry], wanted: Dict[str, bool]) -> Iterator[tuple[str, str]]:
    """Why the newest state of a release may not be known."""
    for name, entry in known.items():
        problem = reading_of(name, entry.text, entry.version).unreadable or entry.problem
        # One without steps needs no object before somebody aborts it.
        if problem and (entry.text or (wanted[name] and entry.answered)):
            yield name, problem
