"""What one process of a pod does for all of its workers: follow the objects, stand for election, keep evidence.

It lives in an event loop of its own; what others read of it is replaced as a whole.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Mapping as Dict
from functools import partial
from time import monotonic

from canary_mw.control.rollouts.cluster.access import Access
from canary_mw.control.rollouts.cluster.address import Cluster
from canary_mw.control.rollouts.cluster.election import Election
from canary_mw.control.rollouts.cluster.follower import Followed, Follower
from canary_mw.control.rollouts.cluster.mirror import BEAT, Entry, Known, Mirror
from canary_mw.control.rollouts.cluster.names import pod_of
from canary_mw.control.rollouts.cluster.objects import (
    MOST_EVIDENCE,
    Object,
    packed,
    progress_line,
    with_evidence,
)
from canary_mw.exceptions import StoreAway
from canary_mw.kubernetes.api import preload
from canary_mw.locks import Latch

# The module is imported before a server forks.
preload()

# Seconds between two writes of evidence.
KEPT_EVERY = 30.0


class Speaker:
    """Speaks with the cluster for a pod.

    Args:
        identity: who this pod is in the election.
        stands: whether this pod may be elected; else it is seen who is.

    Attributes:
        answered: set once the server has said of each release what there is.
        changes: counts what has changed; any thread may read it.
        entries: what is known of each release; replaced as a whole.
    """

    def __init__(self, cluster: Cluster, identity: str, mirror: Mirror, *, stands: bool = True) -> None:
        self.answered = Latch()
        self.changes = 0
        self.entries: Dict[str, Entry] = {}
        self._cluster, self._mirror, self._stands = cluster, mirror, stands
        self._election = Election(cluster, identity, self._may_stand, self._note)
        self._stood = False
        self._followers: dict[str, Follower] = {}
        self._others: list[asyncio.Task[None]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, bytes] = {}
        self._kept: dict[str, bytes] = {}
        self._kept_at: dict[str, float] = {}
        self._writing: set[asyncio.Task[None]] = set()

    # Of any thread.

    def item(self, release: str) -> Object | None:
        """The object of a release as it was read last."""
        follower = self._followers.get(release)
        return follower.known.item if follower is not None else None

    def evidence(self) -> dict[str, bytes]:
        """What a restart goes on with, by release."""
        found = {name: each.known.evidence for name, each in self._followers.items()}
        return {name: each for name, each in found.items() if each}

    @property
    def leads(self) -> bool:
        """Whether this pod may raise."""
        return self._election.leads and self._may_stand()

    @property
    def heard(self) -> float | None:
        """Seconds since a pod that raises was heard; None for never."""
        return self._election.heard

    @property
    def holder(self) -> str:
        """The pod that raises, "" where that is not known."""
        return pod_of(self._election.holder)

    @property
    def problem(self) -> str:
        """Why this pod cannot have the Lease."""
        return self._election.problem

    def _may_stand(self) -> bool:
        """Whether this pod knows enough to raise, and no newer version has written."""
        known = [each.known for each in self._followers.values()]
        knows = all(each.answered for each in known)
        return self._stands and knows and not any(each.reading.newer for each in known)

    # Of the event loop.

    def begin(self, releases: Dict[str, bool]) -> None:
        """Stand for election, and follow these releases."""
        self._others = [asyncio.get_running_loop().create_task(each) for each in (self._election.run(), self._beat())]
        self.follow(releases)

    async def _beat(self) -> None:
        """Let the workers of this pod see that this process goes on."""
        while True:
            await asyncio.sleep(BEAT)
            self._tell()

    def follow(self, releases: Dict[str, bool]) -> None:
        """Follow these releases and no others."""
        before = self._followers
        kept = {name: each for name, each in before.items() if releases.get(name) is each.needed}
        new = {
            name: Follower(self._cluster, name, self._note, before.get(name), needed=needed)
            for name, needed in releases.items()
            if name not in kept
        }
        for name in before.keys() - kept:
            self._tasks.pop(name).cancel()
        self._followers = kept | new
        for name, each in new.items():
            self._tasks[name] = asyncio.get_running_loop().create_task(each.run())
        self._note()

    def take(self, release: str, item: Object) -> None:
        """Note what was written here."""
        follower = self._followers.get(release)
        if follower is not None:
            follower.take(item)

    def _note(self) -> None:
        self.entries = {name: self._entry(name, each.known) for name, each in self._followers.items()}
        self._tell()
        self.changes += 1
        if all(each.answered for each in self.entries.values()):
            self.answered.set()
        if self._may_stand() != self._stood:
            self._stood = not self._stood
            self._election.hurry()

    def _tell(self) -> None:
        self._mirror.write(Known(entries=self.entries, holder=self.holder, problem=self.problem))

    def _entry(self, name: str, known: Followed) -> Entry:
        progress = self._progress.get(name) or progress_line(known.evidence)
        return Entry(
            text=known.reading.text,
            version=known.reading.version,
            progress=progress.decode("utf-8", "replace"),
            answered=known.answered,
            problem=known.problem,
        )

    def keep(self, release: str, data: bytes) -> None:
        """Keep what a restart goes on with: soon for this pod, and each half minute for all."""
        self._progress[release] = progress_line(data)
        self._kept[release] = data
        self._note()
        due = self._kept_at.setdefault(release, monotonic()) + KEPT_EVERY
        if monotonic() >= due:
            self._kept_at[release] = monotonic()
            task = asyncio.get_running_loop().create_task(self._write_kept(release))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write_kept(self, release: str) -> None:
        data, follower = self._kept.pop(release, b""), self._followers.get(release)
        if not data or follower is None or follower.known.item is None:
            return
        evidence = fitting(data)
        access = Access(self._cluster)
        try:
            item, _ = await access.change(release, follower.known.item, partial(with_evidence, evidence=evidence))
            self.take(release, item)
        except StoreAway:
            # What is newer is written in half a minute.
            self._kept.setdefault(release, data)
        finally:
            await access.reset()

    async def end(self) -> None:
        """Store what is kept, and give up the Lease."""
        led, tasks = self._election.leads, [*self._others, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if led:
            await asyncio.gather(*(self._write_kept(release) for release in list(self._kept)))
        await self._election.leave()


def fitting(data: bytes, pack: Callable[[bytes], str] = packed) -> str:
    """What a restart goes on with, as an object has room for it; without the evidence where that is too much."""
    whole = pack(data)
    return whole if len(whole) <= MOST_EVIDENCE else pack(progress_line(data))
