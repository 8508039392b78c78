"""Events about objects whose rules are in error, as `kubectl describe` shows them. They are written if asked for."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from canary_mw.host import HostLogger
from canary_mw.kubernetes.api import Api, Refused
from canary_mw.kubernetes.credentials import Connection

logger = HostLogger(logging.getLogger("canary_mw.sources"))

# Seconds between two Events about one object for one reason.
INTERVAL = 600.0
# Events that wait to be written, and pairs of object and reason that are remembered.
_MAX_WAITING, _MAX_KNOWN = 100, 10_000
# Characters of a message and of a name that a server takes, with some room.
_MAX_MESSAGE, _MAX_NAME = 1000, 200
_RULE = '{apiGroups: [""], resources: [events], verbs: [create]}'


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an object.

    Attributes:
        reason: one word, as `WeightRange`.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    reason: str
    message: str


class EventWriter:
    """Writes an Event for each problem, at most one in ten minutes for each object and reason.

    Args:
        source: what the log calls the source.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, source: str, connection: Connection, clock: Callable[[], float] = monotonic) -> None:
        self._source, self._api, self._clock = source, Api(connection), clock
        self._waiting: list[Problem] = []
        self._more = asyncio.Event()
        self._written: dict[tuple[str, ...], float] = {}
        self._failed = False

    def add(self, problems: Iterable[Problem]) -> None:
        """Write about these soon, in the running event loop."""
        for problem in problems:
            if len(self._waiting) < _MAX_WAITING and self._is_due(problem):
                self._waiting.append(problem)
        if self._waiting:
            self._more.set()

    def _is_due(self, problem: Problem) -> bool:
        key = (problem.kind, problem.namespace, problem.name, problem.reason)
        now, last = self._clock(), self._written.get(key)
        if last is not None and now < last + INTERVAL:
            return False
        if len(self._written) >= _MAX_KNOWN:
            self._written = {each: at for each, at in self._written.items() if now < at + INTERVAL}
        self._written[key] = now
        return len(self._written) <= _MAX_KNOWN

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._waiting:
                    await self._write(self._waiting.pop(0))
        finally:
            await self._api.reset()

    async def _write(self, problem: Problem) -> None:
        try:
            await self._api.post(f"/api/v1/namespaces/{problem.namespace}/events", _event(problem))
        except Exception as exc:  # noqa: BLE001 - whatever a server sends, rules do not depend on Events
            self._tell(exc)
            if not isinstance(exc, Refused):
                with suppress(Exception):
                    await self._api.reset()
        else:
            self._failed = False

    def _tell(self, error: Exception) -> None:
        """Log the first failure; the problem is told again in ten minutes."""
        if not self._failed:
            self._failed = True
            hint = f"; add the rule {_RULE} to its Role" if isinstance(error, Refused) and error.code == 403 else ""
            logger.warning("%s: an Event cannot be written: %s%s", self._source, error or type(error).__name__, hint)


def _event(problem: Problem) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {
        "apiVersion": problem.api_version,
        "kind": problem.kind,
        "namespace": problem.namespace,
        "name": problem.name,
        **({"uid": problem.uid} if problem.uid else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{problem.name[:_MAX_NAME]}.", "namespace": problem.namespace},
        "involvedObject": about,
        "type": "Warning",
        "reason": problem.reason,
        "message": problem.message[:_MAX_MESSAGE],
        "source": {"component": "canary-mw"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
