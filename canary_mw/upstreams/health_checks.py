"""Active health checks: one request, one status."""

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.limits import Limits
from canary_mw.client.tls import TLSContexts
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import HealthCheck, Origin


class HealthChecker:
    """Sends health checks over connections of its own, because a full pool does not make an endpoint unhealthy.

    Args:
        contexts: for https endpoints, see `HTTP11Client`.
    """

    def __init__(self, contexts: TLSContexts | None = None) -> None:
        self._contexts = contexts
        self._client: HTTP11Client | None = None

    async def __call__(self, origin: Origin, check: HealthCheck) -> int:
        """The status of the response to one check.

        Raises:
            UpstreamError: there is no response.
        """
        if self._client is None:
            self._client = HTTP11Client(limits=Limits(max_connections=8), contexts=self._contexts)
        headers = [(b"host", check.host or origin.authority.encode()), (b"user-agent", b"canary-mw/health")]
        headers += check.headers
        request = UpstreamRequest(
            origin.authority,
            "GET",
            check.path,
            headers,
            timeout=check.timeout,
            connect_timeout=check.timeout,
            replayable=True,
        )
        response = await self._client.send(origin, request)
        response.close()
        return response.head.status

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def close_after_loop(self) -> None:
        """See `HTTP11Client`."""
        if self._client is not None:
            self._client.close_after_loop()
