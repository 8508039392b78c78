"""A transport whose attempts are client spans of OpenTelemetry, for asyncio."""

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.interfaces import RequestBody, Transport, UpstreamResponse
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.observability.opentelemetry import OpenTelemetry
from canary_mw.rules.upstream import Origin


class TracedTransport:
    """Sends by another transport, each request within a span."""

    def __init__(self, transport: Transport, tracer: OpenTelemetry) -> None:
        self._transport = transport
        self._tracer = tracer
        self._own_client = isinstance(transport, HTTP11Client)

    async def send(
        self, origin: Origin, request: UpstreamRequest, body: RequestBody, deadline: float
    ) -> UpstreamResponse:
        """See `Transport.send`. The span ends with the head of the response."""
        with self._tracer.attempt(origin, request, own_client=self._own_client) as attempt:
            response = await self._transport.send(origin, request, body, deadline)
            attempt.answered(response.head.status)
            return response


def traced(transport: Transport, tracer: OpenTelemetry | None) -> Transport:
    """The transport itself where nothing is traced."""
    return transport if tracer is None else TracedTransport(transport, tracer)
