"""What keeps a page up to date: its region as HTML, made once a second at most for all who look at it."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import NamedTuple

from canary_mw.admin.streams import Messages, message

# Seconds between two regions. One that takes long to make is made less often: it takes 5 % of a processor at most.
_PAUSE = 1.0
_SHARE = 20
# Regions that are kept, each page with each query, and the seconds after which nobody looks at one any more.
_MOST = 64
_KEPT = 10
# Seconds by which a timer may come too early.
_EARLY = 0.05


class Region(NamedTuple):
    """A region, when it was made, and what that cost in seconds."""

    html: str
    now: str
    made_at: float
    cost: float

    @property
    def pause(self) -> float:
        """Seconds until another one may be made."""
        return max(_PAUSE, _SHARE * self.cost)


# Makes the HTML of a region, and says of when it is.
Make = Callable[[], Awaitable[tuple[str, str]]]


class Regions:
    """The regions of all pages that somebody looks at."""

    def __init__(self) -> None:
        self._made: dict[str, asyncio.Task[Region]] = {}

    async def get(self, key: str, make: Make) -> Region:
        """The region of a page, made again where it is too old."""
        task = self._made.get(key)
        if task is None or _is_stale(task):
            self._made = {each: task for each, task in self._made.items() if _age(task) < _KEPT}
            task = self._made[key] = asyncio.get_running_loop().create_task(_make(make))
            while len(self._made) > _MOST:
                del self._made[next(iter(self._made))]
        # A reader that leaves takes nothing from the others.
        return await asyncio.shield(task)


async def _make(make: Make) -> Region:
    started_at = monotonic()
    html, now = await make()
    made_at = monotonic()
    return Region(html, now, made_at, made_at - started_at)


def _failed(task: "asyncio.Task[Region]") -> bool:
    return task.cancelled() or task.exception() is not None


def _age(task: "asyncio.Task[Region]") -> float:
    """Seconds since a region was made; 0 while it is made."""
    if not task.done():
        return 0.0
    return inf if _failed(task) else monotonic() - task.result().made_at


def _is_stale(task: "asyncio.Task[Region]") -> bool:
    if not task.done():
        return False
    return _failed(task) or _age(task) >= task.result().pause - _EARLY


def updates(regions: Regions, key: str, make: Make) -> Messages:
    """The messages of a stream: the region where it has changed, and a tick with its time."""
    last, number = "", 0

    async def messages() -> tuple[list[str], float]:
        nonlocal last, number
        region = await regions.get(key, make)
        due = []
        if region.html != last:
            last, number = region.html, number + 1
            due.append(message(region.html, number=number))
        return [*due, message(region.now[11:19], "tick")], region.pause

    return messages
