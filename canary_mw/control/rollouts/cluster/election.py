"""Which pod raises: the one that holds the Lease. The times are those of client-go."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from canary_mw.control.rollouts.cluster.address import Cluster
from canary_mw.control.rollouts.cluster.problems import explained, missing_lease
from canary_mw.exceptions import ConfigError
from canary_mw.kubernetes.api import Api, Refused
from canary_mw.kubernetes.lease import Lease

# Seconds: how long the Lease is held without being renewed, after how many its holder stops, and between two attempts.
DURATION, DEADLINE, RETRY = 15, 10.0, 2.0
# Seconds for an answer: a server that does not answer must not cost the Lease.
_PATIENCE = 4.0


class Election:
    """The part of one pod in the election; it runs in an event loop.

    Args:
        identity: who this pod is.
        stands: whether this pod may raise, if it holds the Lease.
        changed: called when something is to be seen.

    Attributes:
        problem: why the Lease cannot be had, "" where it can.
    """

    def __init__(
        self, cluster: Cluster, identity: str, stands: Callable[[], bool], changed: Callable[[], object]
    ) -> None:
        self.problem = ""
        self.identity = identity
        self._cluster, self._stands, self._changed = cluster, stands, changed
        self._api = Api(cluster.connection)
        self._lease = Lease(self._api, cluster.namespace, cluster.lease, identity, duration=DURATION, create=True)
        self._renewed = 0.0
        self._hurry = asyncio.Event()

    @property
    def leads(self) -> bool:
        """Whether this pod holds the Lease, and has renewed it lately; any thread may ask."""
        return self._lease.held and monotonic() - self._renewed < DEADLINE

    @property
    def holder(self) -> str:
        """Who holds the Lease, as far as is known; "" for nobody."""
        return self._lease.holder

    @property
    def heard(self) -> float | None:
        """Seconds since somebody else has renewed the Lease; None where nobody else holds it."""
        holder, at = self._lease.holder, self._lease.seen_at
        return monotonic() - at if holder and holder != self.identity else None

    async def run(self) -> None:
        """Stand for election until cancelled."""
        try:
            while True:
                before = self.problem, self.holder, self.leads
                await self._step()
                if (self.problem, self.holder, self.leads) != before:
                    self._changed()
                with suppress(TimeoutError):
                    async with asyncio.timeout(RETRY * random.uniform(0.9, 1.1)):
                        await self._hurry.wait()
                self._hurry.clear()
        finally:
            await self._api.reset()

    def hurry(self) -> None:
        """Look at the Lease now."""
        self._hurry.set()

    async def _step(self) -> None:
        began = monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._stands():
                    if await self._lease.try_hold():
                        self._renewed = began
                else:
                    await self._withdraw()
            self.problem = ""
        except Exception as exc:  # noqa: BLE001 - whatever a server sends, it is asked again
            self.problem = self._explained(exc)
            if not isinstance(exc, Refused):
                await self._api.reset()
            elif exc.code == 401:
                self._cluster.connection.renew()
                await self._api.reset()

    async def _withdraw(self) -> None:
        """Let others lead: only see who does."""
        self._renewed = 0.0
        await self._lease.release()
        await self._lease.look()

    async def leave(self) -> None:
        """Give the Lease up, so that the next one need not wait; where that fails, it waits until the Lease ends."""
        self._renewed = 0.0
        try:
            await self._lease.release(unsure=True)
        except Exception as exc:  # noqa: BLE001 - this process ends
            self.problem = self._explained(exc)
        finally:
            await self._api.reset()

    def _explained(self, error: Exception) -> str:
        cluster = self._cluster
        if isinstance(error, Refused) and error.code == 403 and error.method == "POST":
            return missing_lease(cluster.namespace, cluster.lease)
        if isinstance(error, ConfigError):
            return missing_lease(cluster.namespace, cluster.lease)
        return explained(error, cluster.connection, "leases", "coordination.k8s.io", cluster.lease)
