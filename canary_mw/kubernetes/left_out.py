"""Mapping objects that a selector leaves out, although they belong to others that are read."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Set
from dataclasses import replace

from canary_mw.host import HostLogger
from canary_mw.kubernetes.credentials import Connection
from canary_mw.kubernetes.kinds import MAPPINGS
from canary_mw.kubernetes.reflector import Reflector
from canary_mw.kubernetes.watch import Follower

logger = HostLogger(logging.getLogger("canary_mw.sources"))

Key = tuple[str, str]  # namespace, name

# Argo Rollouts cuts the name of the base to this length before it adds its ending.
_MAX_BASE, _ENDING = 246, "-canary"
# Seconds after a change: the watch with the selector may be later than the one without.
_LOOK_AFTER = 0.5
_NAMES = replace(MAPPINGS, metadata_only=True)


class LeftOut:
    """Follows the names of all Mapping objects, and warns of canaries of those that are read.

    Argo Rollouts copies no labels to the canary Mapping, so that a selector by label leaves it out: the release would
    have no effect, and nobody would say so.

    Args:
        source: what the log calls the source.
        known: the Mapping objects that the selector takes.
    """

    def __init__(
        self, source: str, connection: Connection, namespaces: Iterable[str], known: Callable[[], Set[Key]]
    ) -> None:
        self._source, self._known = source, known
        self._reflectors = [Reflector(_NAMES, each, optional=True, keep=lambda _: True) for each in namespaces]
        self._followers = [Follower(each, connection, "", self.look_soon) for each in self._reflectors]
        self._timer: asyncio.TimerHandle | None = None
        self._warned: Set[Key] = frozenset()

    def start(self) -> list[asyncio.Task[None]]:
        """Begin, in the running event loop."""
        loop = asyncio.get_running_loop()
        return [loop.create_task(each.run()) for each in self._followers]

    def look_soon(self) -> None:
        """Something has changed, here or in what the selector takes."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_AFTER, self._look)

    def _look(self) -> None:
        self._timer = None
        found = canaries_without_selector({key for each in self._reflectors for key in each.objects}, self._known())
        for namespace, name in sorted(found - self._warned):
            text = (
                "%s: the Mapping %s in %s is left out by the selector, and the Mapping that it belongs to is read:"
                " a release by Argo Rollouts, which copies no labels, has no effect; select by namespace only"
            )
            logger.warning(text, self._source, name, namespace)
        self._warned = found


def canaries_without_selector(everything: Set[Key], known: Set[Key]) -> Set[Key]:
    """Those of all objects that are named as canaries of known ones, and are not known themselves."""
    canaries = {(namespace, name[:_MAX_BASE] + _ENDING) for namespace, name in known}
    return (canaries & everything) - known
