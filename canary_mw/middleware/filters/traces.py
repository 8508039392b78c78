"""What a middleware does for a TracingService: the connection to its collector."""

import os
import socket
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from time import monotonic
from typing import Protocol
from weakref import finalize

from canary_mw.client.extra import GRPC_PROTOCOLS, importing_grpc
from canary_mw.client.interfaces import SyncTransport
from canary_mw.client.limits import Limits
from canary_mw.client.sync.client import SyncHTTP11Client
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.forwarding.protobuf.traces import METHOD
from canary_mw.http.messages import BodyFraming
from canary_mw.middleware.options import Options
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.spans.otlp import export_request
from canary_mw.observability.spans.service import RequestTraces, span_queues
from canary_mw.observability.spans.span import Span
from canary_mw.observability.spans.zipkin import spans_json
from canary_mw.rules.filters.traces import TracePolicy
from canary_mw.rules.upstream import Origin
from canary_mw.upstreams.overrides import find_override, parse_origins

_SERVICE_NAME = "canary-mw"
# Bytes of an answer that are read.
_MAX_ANSWER = 65536


class _Client(SyncTransport, Protocol):
    def close(self) -> None: ...


class CollectorClient:
    """Sends batches to the collector of a document, or to what replaces it; see `Sender`.

    Args:
        overrides: URLs by the names of services.
        secrets: directory of the Secrets of TLS.
    """

    def __init__(
        self, policy: TracePolicy, overrides: Dict[str, list[Origin]], secrets: str | os.PathLike[str] | None
    ) -> None:
        given = find_override(overrides, policy.service) or overrides.get("*")
        self._origin = given[0] if given else policy.service.origin
        self._policy, self._secrets = policy, secrets
        self._service_name = policy.service_name or os.environ.get("OTEL_SERVICE_NAME") or _SERVICE_NAME
        self._client: _Client | None = None

    def send(self, spans: Sequence[Span], limit: float) -> None:
        """See `Sender.send`."""
        if self._client is None:
            self._client = self._connect()
        if self._policy.driver == "zipkin":
            self._post(self._client, spans_json(spans, self._service_name, socket.gethostname()), limit)
        else:
            self._call(self._client, export_request(spans, self._service_name), limit)

    def close(self) -> None:
        """See `Sender.close`."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> _Client:
        if self._policy.driver == "zipkin":
            return SyncHTTP11Client(contexts=TLSContexts(self._secrets))
        with importing_grpc():
            from canary_mw.client.sync.grpc import SyncGrpcClient

        return SyncGrpcClient(Limits(), TLSContexts(self._secrets, alpn=GRPC_PROTOCOLS))

    def _post(self, client: SyncTransport, body: bytes, limit: float) -> None:
        host = self._policy.hostname or self._origin.authority
        headers = [(b"host", host.encode()), (b"content-type", b"application/json")]
        status, _ = self._exchange(client, self._policy.endpoint.encode(), headers, body, limit)
        if not 200 <= status < 300:
            raise UpstreamProtocolError(f"{self._origin.authority}: answers with the status {status}", sent=True)

    def _call(self, client: SyncTransport, message: bytes, limit: float) -> None:
        _, headers = self._exchange(client, METHOD, [], message, limit)
        status = headers.get(b"grpc-status", b"").decode("latin-1")
        if status != "0":
            text = headers.get(b"grpc-message", b"").decode("latin-1")
            raise UpstreamProtocolError(f"{self._origin.authority}: answers with {status} {text}".rstrip(), sent=True)

    def _exchange(
        self, client: SyncTransport, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, limit: float
    ) -> tuple[int, dict[bytes, bytes]]:
        request = UpstreamRequest(
            self._policy.service.text,
            "POST",
            target,
            headers,
            BodyFraming(len(body)),
            limit,
            limit,
            # A collector knows spans by their ids: they may come twice.
            True,
        )
        response = client.send(self._origin, request, body, monotonic() + limit)
        received = 0
        try:
            while received <= _MAX_ANSWER and (piece := response.read()):
                received += len(piece)
        finally:
            response.close()
        return response.head.status, dict(response.head.headers)


def request_traces(options: Options, tally: Tally, *, wraps: bool, traced: bool) -> RequestTraces:
    """The traces of a middleware; when nobody uses it any more, its thread ends."""
    overrides = {name.lower(): parse_origins(name, urls) for name, urls in (options.upstreams or {}).items()}
    queues = span_queues(lambda policy: CollectorClient(policy, overrides, options.secrets), tally)
    traces = RequestTraces(queues, wraps=wraps, traced=traced)
    finalize(traces, queues.end).atexit = False
    return traces
