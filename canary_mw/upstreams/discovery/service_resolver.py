"""The endpoints of a Service for one set of endpoints: from the API of its cluster, else by DNS."""

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamTimeout
from canary_mw.rules.upstream import KubernetesService, Origin
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.discovery.cluster_endpoints import ClusterEndpoints
from canary_mw.upstreams.discovery.dns import OriginResolver, Resolve
from canary_mw.upstreams.discovery.interface import Sleep

# Seconds that the first answer of the API is waited for, before the name is looked up by DNS.
_PATIENCE = 2.0


class ServiceResolver:
    """See `Resolver`.

    What the API says counts, also that there is no endpoint. Where it says nothing, or knows no such Service or port,
    the name is looked up by DNS.

    Args:
        origin: the address of the Service, whose host the endpoints are called by.
        resolve: looks up a name.
    """

    def __init__(self, service: KubernetesService, origin: Origin, cluster: ClusterEndpoints, resolve: Resolve) -> None:
        self.names = [origin]
        self._service, self._cluster, self._resolve = service, cluster, resolve
        self._seen: Answer | None = None
        self._by_name: OriginResolver | None = None
        self._origins: list[Origin] | None = None

    def resolved(self) -> list[Origin] | None:
        """The usable endpoints."""
        return self._origins

    async def look_up(self, origin: Origin) -> bool:
        """Take what the API says now; the first time, wait for it."""
        cluster, service = self._cluster, self._service
        cluster.ensure(service)
        if cluster.answer(service) is None:
            await cluster.moved(service, None, _PATIENCE)
        answer = self._seen = cluster.answer(service)
        if answer is None or answer.addresses is None:
            return await self._look_up_by_name(origin)
        self._by_name = None
        self._origins = [origin._replace(address=address, port=port) for address, port in answer.addresses]
        return True

    async def _look_up_by_name(self, origin: Origin) -> bool:
        if self._by_name is None:
            self._by_name = OriginResolver(self.names, self._resolve, look_up=True)
        await self._by_name.look_up(origin)
        # No endpoint that the API had named stays.
        self._origins = self._by_name.resolved() or []
        return True

    async def pause(self, seconds: float, sleep: Sleep) -> float:
        """Wait for another answer of the API."""
        return 0.0 if await self._cluster.moved(self._service, self._seen, seconds) else seconds

    def error(self, *, at_deadline: bool) -> UpstreamError:
        """Why there is no endpoint."""
        reason = self._seen.reason if self._seen else f"{self.names[0].host}: the API has not answered yet"
        if self._by_name is not None:
            found = self._by_name.error(at_deadline=at_deadline)
            return type(found)(f"{reason}; {found}")
        if at_deadline:
            return UpstreamTimeout(f"{reason}: the deadline passed meanwhile")
        return UpstreamConnectError(reason)
