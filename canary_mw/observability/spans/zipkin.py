"""Spans in the JSON of Zipkin (API v2), with the tags of Envoy's spans."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from canary_mw.observability.logs.entries import cluster, flag_of
from canary_mw.observability.spans.attributes import error_of, name_of
from canary_mw.observability.spans.span import Called, Served, Span

# Envoy's letters for what its access log calls by these names.
_FLAGS = {
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_request_timeout": "UT",
    "upstream_overflow": "UO",
    "upstream_protocol_error": "UPE",
    "no_route_found": "NR",
    "unauthorized_details": "UAEX",
    "rate_limited": "RL",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
}
_ERROR_FLAGS = {"connect": "UF", "timeout": "UT", "overload": "UO", "reset": "UC"}


def spans_json(spans: Iterable[Span], service_name: str, node_id: str) -> bytes:
    """The body that sends spans.

    Args:
        node_id: of the tag of the same name.
    """
    return json.dumps([_fields(each, service_name, node_id) for each in spans]).encode()


def _fields(span: Span, service_name: str, node_id: str) -> dict[str, Any]:
    context, about = span.context, span.about
    served = isinstance(about, Served)
    tags = dict(_served(about, node_id) if isinstance(about, Served) else _called(about))
    fields: dict[str, Any] = {
        "traceId": context.trace_id,
        "id": context.span_id,
        "kind": "SERVER" if served else "CLIENT",
        "name": name_of(about) if isinstance(about, Served) else _call_name(about),
        "timestamp": int(span.start * 1e6),
        "duration": max(1, int(span.seconds * 1e6)),
        "localEndpoint": {"serviceName": service_name},
        "tags": {**span.tags, **{name: value for name, value in tags.items() if value is not None}},
    }
    if context.parent_id is not None:
        fields["parentId"] = context.parent_id
    if context.debug:
        fields["debug"] = True
    return fields


def _call_name(about: Called) -> str:
    return f"async {about.service} egress" if about.call else f"router {about.service} egress"


def _served(about: Served, node_id: str) -> Iterator[tuple[str, str | None]]:
    logged = about.logged
    record, head, decision = logged.record, logged.head, about.decision
    yield from (("component", "proxy"), ("node_id", node_id))
    yield "http.method", record.method
    yield "http.status_code", str(record.status or 0)
    yield "response_flags", _FLAGS.get(flag_of(logged) or "", "-")
    yield "request_size", str(record.bytes_in or 0)
    yield "response_size", str(record.bytes_out)
    yield "peer.address", record.client
    yield "guid:x-request-id", record.request_id
    yield "error", "true" if error_of(about) else None
    if head is not None:
        target = (head.mount.sent + head.path + head.query).decode("latin-1")
        yield "http.url", f"{head.scheme}://{(head.host or b'').decode('latin-1')}{target}"
        yield "http.protocol", f"HTTP/{head.http_version}"
        yield "user_agent", (head.header(b"user-agent") or b"-").decode("latin-1")
        client_id = head.header(b"x-client-trace-id")
        yield "guid:x-client-trace-id", None if client_id is None else client_id.decode("latin-1")
        sent = getattr(head, "forwarded", None)
        yield "upstream_cluster", None if sent is None else cluster(sent.service, logged.namespace)
    if decision is not None:
        yield "mapping", record.mapping
        yield "variant", record.variant
        yield "release", record.release


def _called(about: Called) -> Iterator[tuple[str, str | None]]:
    yield from (("component", "proxy"), ("http.protocol", "HTTP/2" if about.is_grpc else "HTTP/1.1"))
    yield "upstream_cluster", cluster(about.service, about.namespace)
    yield "peer.address", about.address
    yield "upstream_address", about.address
    yield "http.status_code", str(about.status or 0)
    yield "response_flags", _ERROR_FLAGS.get(about.error or "", "-")
    yield "error.reason", about.error
    failed = about.error is not None or (about.status or 0) >= 500
    yield "error", "true" if failed else None
    yield "ext_authz_status", about.verdict
    yield "mapping", about.call or about.mapping
