"""The endpoints of a service for one set of endpoints: from an API that knows them, else by DNS."""

from typing import Generic

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamTimeout
from canary_mw.rules.upstream import Origin
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.discovery.dns import OriginResolver, Resolve
from canary_mw.upstreams.discovery.interface import Sleep
from canary_mw.upstreams.discovery.watched_endpoints import S, WatchedEndpoints

# Seconds that the first answer of the API is waited for, before the name is looked up by DNS.
_PATIENCE = 2.0


class ServiceResolver(Generic[S]):
    """See `Resolver`.

    What the API says counts, also that there is no endpoint. Where it says nothing, or knows no such service or port,
    the name is looked up by DNS.

    Args:
        origin: the address of the service, whose host the endpoints are called by.
        resolve: looks up a name; None for a service whose name is in no DNS.
    """

    def __init__(self, service: S, origin: Origin, api: WatchedEndpoints[S], resolve: Resolve | None) -> None:
        self.names = [origin]
        self._service, self._api, self._resolve = service, api, resolve
        self._seen: Answer | None = None
        self._by_name: OriginResolver | None = None
        self._origins: list[Origin] | None = None

    def resolved(self) -> list[Origin] | None:
        """The usable endpoints."""
        return self._origins

    async def look_up(self, origin: Origin) -> bool:
        """Take what the API says now; the first time, wait for it."""
        api, service = self._api, self._service
        api.ensure(service)
        if api.answer(service) is None:
            await api.moved(service, None, _PATIENCE)
        answer = self._seen = api.answer(service)
        if answer is None or answer.addresses is None:
            return self._resolve is not None and await self._look_up_by_name(origin, self._resolve)
        self._by_name = None
        self._origins = [origin._replace(address=address, port=port) for address, port in answer.addresses]
        return True

    async def _look_up_by_name(self, origin: Origin, resolve: Resolve) -> bool:
        if self._by_name is None:
            self._by_name = OriginResolver(self.names, resolve, look_up=True)
        await self._by_name.look_up(origin)
        # No endpoint that the API had named stays.
        self._origins = self._by_name.resolved() or []
        return True

    async def pause(self, seconds: float, sleep: Sleep) -> float:
        """Wait for another answer of the API."""
        return 0.0 if await self._api.moved(self._service, self._seen, seconds) else seconds

    def error(self, *, at_deadline: bool) -> UpstreamError:
        """Why there is no endpoint."""
        reason = self._seen.reason if self._seen else f"{self.names[0].host}: the API has not answered yet"
        if self._by_name is not None:
            found = self._by_name.error(at_deadline=at_deadline)
            return type(found)(f"{reason}; {found}")
        if at_deadline:
            return UpstreamTimeout(f"{reason}: the deadline passed meanwhile")
        return UpstreamConnectError(reason)
