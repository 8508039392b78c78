"""Entries of Envoy's access log over gRPC: one request as the fields of its messages, encoded away from the request."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from canary_mw.config.filters.labels import cluster_name
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.forwarding.protobuf.access_log import HTTP_ENTRY, TCP_ENTRY
from canary_mw.forwarding.protobuf.codec import encode
from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Finished
from canary_mw.rules.filters.logs import LogPolicy

DOWNSTREAM_END = 6
_EXTERNAL_SERVICE = 1
_METHODS = {
    name: number for number, name in enumerate("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH".split(), 1)
}
_VERSIONS = {"1.0": 1, "1.1": 2, "2": 3, "3": 4}
# The reasons of errors, where the request may not have been sent, and where it may.
_FAILURES = {
    ("connect", False): "upstream_connection_failure",
    ("connect", True): "upstream_connection_termination",
    ("overload", False): "upstream_overflow",
    ("overload", True): "upstream_overflow",
    ("timeout", False): "upstream_request_timeout",
    ("timeout", True): "upstream_request_timeout",
}
_DETAILS = {
    "upstream_request_timeout": "response_timeout",
    "upstream_overflow": "overflow",
    "upstream_connection_failure": "upstream_reset_before_response_started{remote_connection_failure}",
    "upstream_connection_termination": "upstream_reset_before_response_started{connection_termination}",
    "upstream_protocol_error": "upstream_reset_before_response_started{protocol_error}",
    "no_route_found": "route_not_found",
    "unauthorized_details": "ext_authz_denied",
    "rate_limited": "request_rate_limited",
    "rate_limit_service_error": "rate_limiter_error",
    "downstream_connection_termination": "downstream_remote_disconnect",
}


class Logged(NamedTuple):
    """A request that has ended, as it waits for its encoding.

    Attributes:
        ended: seconds since the epoch.
        head: None where the request was refused before it was read.
        namespace: of the Mapping.
        local: the wrapped app has answered.
        matched: a Mapping takes it.
    """

    record: Finished
    ended: float
    head: RequestHead | None
    namespace: str
    local: bool
    matched: bool


def encoded(logged: Logged, policy: LogPolicy) -> bytes:
    """The entry of a request, by the driver of a LogService."""
    flag = flag_of(logged)
    if policy.driver == "tcp":
        record = logged.record
        moved = {"received_bytes": record.bytes_in, "sent_bytes": record.bytes_out}
        return encode(TCP_ENTRY, {"common_properties": _common(logged, flag), "connection_properties": moved})
    fields = {
        "common_properties": _common(logged, flag),
        "protocol_version": None if logged.head is None else _VERSIONS.get(logged.head.http_version),
        "request": _request(logged, policy.request_headers),
        "response": _response(logged, policy.response_headers, flag),
    }
    return encode(HTTP_ENTRY, fields)


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _common(logged: Logged, flag: str | None) -> dict[str, Any]:
    record, head = logged.record, logged.head
    sent = _sent(head)
    peer = None if head is None or head.client is None else address_of(head.client, head.client_port)
    fields = {
        "downstream_remote_address": peer,
        "downstream_direct_remote_address": peer,
        "start_time": time_of(logged.ended - record.seconds),
        "duration": time_of(record.seconds),
        "time_to_first_downstream_tx_byte": None if record.first_byte is None else time_of(record.first_byte),
        "time_to_last_downstream_tx_byte": None if record.first_byte is None else time_of(record.seconds),
        "upstream_remote_address": endpoint_of(record.upstream),
        "upstream_cluster": None if sent is None else cluster(sent.service, logged.namespace),
        "response_flags": _flags(flag),
        "upstream_transport_failure_reason": _failed_before(head),
        "upstream_request_attempt_count": record.tries,
        "stream_id": record.request_id,
        "access_log_type": DOWNSTREAM_END,
    }
    return _present(fields)


def _failed_before(head: RequestHead | None) -> str | None:
    reason, sent = getattr(head, "failed", (None, True))
    return "connection failure" if reason == "connect" and not sent else None


def _flags(flag: str | None) -> dict[str, Any] | None:
    if flag is None:
        return None
    return {flag: {"reason": _EXTERNAL_SERVICE} if flag == "unauthorized_details" else True}


def flag_of(logged: Logged) -> str | None:
    """Why there is no answer of whoever should answer, as Envoy names it."""
    record, head = logged.record, logged.head
    if record.status is None or record.reason == "client left":
        return "downstream_connection_termination"
    if _sent(head) is not None:
        if record.reason is None or not hasattr(head, "failed"):
            return None
        return _FAILURES.get(getattr(head, "failed"), "upstream_protocol_error")  # noqa: B009 - unset on most heads
    if record.auth in ("denied", "error"):
        return "unauthorized_details"
    if record.rate_limit in ("over_limit", "error") and not logged.local:
        return {"over_limit": "rate_limited"}.get(record.rate_limit, "rate_limit_service_error")
    return "no_route_found" if record.status == 404 and not (logged.matched or logged.local) else None


def _request(logged: Logged, names: Iterable[str]) -> dict[str, Any]:
    record, head = logged.record, logged.head
    if head is None:
        return {"request_method": _METHODS.get(record.method), "path": record.path}
    sent = _sent(head)
    headers = head.headers if sent is None else sent.headers
    values = _texts(headers)
    original = head.mount.sent + head.path + head.query
    path = original if sent is None else sent.target
    values |= {":method": record.method, ":scheme": head.scheme, ":path": _text(path)}
    values |= {":authority": values["host"]} if "host" in values else {}
    return {
        "request_method": _METHODS.get(record.method),
        "scheme": head.scheme,
        "authority": values.get("host"),
        "path": _text(path),
        "original_path": _text(original) if path != original else None,
        "user_agent": values.get("user-agent"),
        "referer": values.get("referer"),
        "forwarded_for": values.get("x-forwarded-for"),
        "request_id": record.request_id,
        "request_headers_bytes": _size(headers),
        "request_body_bytes": record.bytes_in,
        "request_headers": {name: values[name] for name in names if name in values},
    }


def _response(logged: Logged, names: Iterable[str], flag: str | None) -> dict[str, Any]:
    record = logged.record
    headers = getattr(logged.head, "answered", ())
    values = _texts(headers) | ({} if record.status is None else {":status": str(record.status)})
    return {
        "response_code": {"value": record.status or 0},
        "response_headers_bytes": _size(headers),
        "response_body_bytes": record.bytes_out,
        "response_headers": {name: values[name] for name in names if name in values},
        "response_code_details": _details(logged, flag),
    }


def _details(logged: Logged, flag: str | None) -> str:
    if flag == "unauthorized_details" and logged.record.auth == "error":
        return "ext_authz_error"
    if flag is not None:
        return _DETAILS[flag]
    return "via_upstream" if logged.local or _sent(logged.head) is not None else "direct_response"


def _sent(head: RequestHead | None) -> UpstreamRequest | None:
    sent: UpstreamRequest | None = getattr(head, "forwarded", None)
    return sent


@lru_cache(1000)
def cluster(service: str, namespace: str) -> str:
    """Envoy's name for a service; the namespace that was added to the text is taken off, as it is added once more."""
    scheme, separator, rest = service.rpartition("://")
    host, colon, port = rest.partition(":")
    if namespace != "default":
        host = host.removesuffix(f".{namespace}")
    return cluster_name(f"{scheme}{separator}{host}{colon}{port}", namespace, tls=scheme == "https")


def time_of(seconds: float) -> dict[str, int]:
    whole = int(seconds)
    return {"seconds": whole, "nanos": int((seconds - whole) * 1e9)}


def endpoint_of(text: str | None) -> dict[str, Any] | None:
    host, _, port = (text or "").rpartition(":")
    return address_of(host, int(port)) if port.isdigit() else None


def address_of(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their names in lower case; repeated ones are joined."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = _text(raw_name).lower(), _text(raw_value)
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)
