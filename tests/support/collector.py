"""Collectors of spans that keep what they are told: that of Zipkin, and one of OTLP."""

import contextlib
import json
from collections.abc import Iterator
from operator import attrgetter, itemgetter
from typing import Any

from auth_rules import headers_of
from google.protobuf.json_format import MessageToDict
from grpc_peer import Connection, serving
from grpc_peer import Peer as GrpcPeer
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from upstream import Peer, Upstream

SERVICE = "---\napiVersion: getambassador.io/v3alpha1\nkind: TracingService\nname: tracing\nservice: collector\n"
ZIPKIN = SERVICE + "driver: zipkin\n"
OTLP = SERVICE + "driver: opentelemetry\n"
_protocol: Any = trace_service_pb2
_REQUEST = _protocol.ExportTraceServiceRequest
TRACE = "463ac35c9f6413ad48485a3953bb6124"
PARENT = "a2fb4a1d1a96d312"


class Zipkin:
    """The script of a collector; `statuses` are those of its first answers."""

    def __init__(self, *statuses: bytes) -> None:
        self.statuses = list(statuses)
        self.posts: list[tuple[bytes, list[bytes]]] = []
        self.spans: list[dict[str, Any]] = []

    async def __call__(self, peer: Peer) -> None:
        """Serve one connection."""
        while True:
            request = await peer.request()
            status = self.statuses.pop(0) if self.statuses else b"202 Accepted"
            self.posts.append((request.line, request.headers))
            if status.startswith(b"2"):
                self.spans += json.loads(request.body)
            await peer.answer(b"", status=status)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The spans of a kind, by their beginning: a span is sent at its end, which may come after the answer."""
        return sorted((each for each in self.spans if each["kind"] == kind), key=itemgetter("timestamp"))


class Otlp:
    """A collector over gRPC."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def __call__(self, connection: Connection) -> None:
        """Serve one connection."""
        while (call := connection.take()) is not None:
            self.messages.append(_REQUEST.FromString(call.message))
            connection.answer(call, b"")

    @property
    def spans(self) -> list[Any]:
        """All spans."""
        # Packages of Envoy bring an older protocol, where scope_spans have another name.
        return [span for each in self.messages for found in each.resource_spans for span in spans_in(found)]

    def of(self, kind: int) -> list[Any]:
        """The spans of a kind: 2 for servers, 3 for clients."""
        found = [each for each in self.spans if each.kind == kind]
        return sorted(found, key=attrgetter("start_time_unix_nano"))


class Shop:
    """An upstream that keeps what it is asked; `statuses` are those of its first answers, "" for none."""

    def __init__(self, *statuses: bytes) -> None:
        self.statuses = list(statuses)
        self.seen: list[dict[str, str]] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.seen.append(headers_of(await peer.request()))
            status = self.statuses.pop(0) if self.statuses else b"200 OK"
            if not status:
                peer.reset()
                return
            await peer.answer(status=status)


def url(upstream: Upstream) -> str:
    return f"http://127.0.0.1:{upstream.origin.port}"


def spans_in(found: Any) -> list[Any]:
    """The spans of a resource."""
    name = "scope_spans" if hasattr(found, "scope_spans") else "instrumentation_library_spans"
    return [span for scope in getattr(found, name) for span in scope.spans]


def attributes(span: Any) -> dict[str, Any]:
    """The attributes of a span of OTLP."""
    found = MessageToDict(span, preserving_proto_field_name=True).get("attributes", [])
    return {each["key"]: next(iter(each["value"].values())) for each in found}


@contextlib.contextmanager
def collecting() -> Iterator[tuple[Otlp, GrpcPeer]]:
    """Serve one over gRPC."""
    collector = Otlp()
    with serving(collector) as peer:
        yield collector, peer
