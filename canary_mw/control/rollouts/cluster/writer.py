"""Writes of states, in an event loop: nobody waits long for one, and one that takes long is not begun twice."""

import asyncio
from functools import partial
from typing import NamedTuple

from canary_mw.control.rollouts.cluster.access import Access
from canary_mw.control.rollouts.cluster.address import Cluster
from canary_mw.control.rollouts.cluster.objects import Object, text_in, version_in, with_state
from canary_mw.exceptions import StoreAway

# Seconds that a call waits for the server, and where that has just not answered in time.
PATIENCE, _SHORT_PATIENCE = 0.8, 0.05


class Wish(NamedTuple):
    """A state that is to be written in place of one of this version, None for none."""

    text: str
    version: int | None


class Written(NamedTuple):
    """What has come of it.

    Attributes:
        version: after it; None where somebody else was faster.
    """

    item: Object
    version: int | None


class Writer:
    """Writes states."""

    def __init__(self, cluster: Cluster) -> None:
        self._server = cluster.connection.server
        self._access = Access(cluster)
        self._under_way: dict[str, tuple[Wish, asyncio.Task[Written]]] = {}
        # Whose outcome is not known: the answer may be what got lost.
        self._unsure: dict[str, Wish] = {}
        self._patience = PATIENCE

    async def reset(self) -> None:
        """Close the connection."""
        await self._access.reset()

    async def write(self, release: str, known: Object | None, wish: Wish) -> Written:
        """Write a state; a write that is not answered in time goes on, and the next call asks for it.

        Raises:
            StoreAway: it is not written, as far as is known.
        """
        task = self._task(release, known, wish)
        done, _ = await asyncio.wait({task}, timeout=self._patience)
        self._patience = PATIENCE if done else _SHORT_PATIENCE
        if not done:
            raise StoreAway(f"the API server {self._server} does not answer in time")
        del self._under_way[release]
        return task.result()

    def _task(self, release: str, known: Object | None, wish: Wish) -> asyncio.Task[Written]:
        before = self._under_way.get(release)
        if before is not None and before[0] == wish:
            return before[1]
        if before is not None and not before[1].done():
            raise StoreAway(f"the API server {self._server} has not answered to the write before")
        task = asyncio.get_running_loop().create_task(self._write(release, known, wish))
        # Nobody may be left to ask for it.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._under_way[release] = wish, task
        return task

    async def _write(self, release: str, known: Object | None, wish: Wish) -> Written:
        again = self._unsure.get(release) == wish
        self._unsure[release] = wish
        item, written = await self._access.change(release, known, partial(_next, wish=wish))
        del self._unsure[release]
        version = (wish.version or 0) + 1
        is_ours = again and (text_in(item), version_in(item)) == (wish.text, version)
        return Written(item, version if written or is_ours else None)


def _next(item: Object, wish: Wish) -> Object | None:
    """The object with the state, None where that is another one by now."""
    return with_state(item, wish.text, (wish.version or 0) + 1) if version_in(item) == wish.version else None
