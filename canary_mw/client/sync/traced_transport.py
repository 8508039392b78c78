"""A transport whose attempts are client spans of OpenTelemetry, for threads: the twin of that for asyncio."""

from canary_mw.client.interfaces import SyncBody, SyncResponse, SyncTransport
from canary_mw.client.sync.client import SyncHTTP11Client
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.observability.opentelemetry import OpenTelemetry
from canary_mw.rules.upstream import Origin


class SyncTracedTransport:
    """Sends by another transport, each request within a span."""

    def __init__(self, transport: SyncTransport, tracer: OpenTelemetry) -> None:
        self._transport = transport
        self._tracer = tracer
        self._own_client = isinstance(transport, SyncHTTP11Client)

    def send(self, origin: Origin, request: UpstreamRequest, body: SyncBody, deadline: float) -> SyncResponse:
        """See `SyncTransport.send`. The span ends with the head of the response."""
        with self._tracer.attempt(origin, request, own_client=self._own_client) as attempt:
            response = self._transport.send(origin, request, body, deadline)
            attempt.answered(response.head.status)
            return response


def traced(transport: SyncTransport, tracer: OpenTelemetry | None) -> SyncTransport:
    """The transport itself where nothing is traced."""
    return transport if tracer is None else SyncTracedTransport(transport, tracer)
