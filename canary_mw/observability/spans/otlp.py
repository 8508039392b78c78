"""Spans in the protocol of OpenTelemetry (OTLP)."""

from collections.abc import Iterable
from collections.abc import Mapping as Dict
from typing import Any

from canary_mw.forwarding.protobuf.codec import encode
from canary_mw.forwarding.protobuf.traces import EXPORT_REQUEST
from canary_mw.observability.spans.attributes import Value, attributes_of, error_of, flag_of, name_of
from canary_mw.observability.spans.span import Served, Span

_SERVER, _CLIENT = 2, 3
_ERROR = 2


def export_request(spans: Iterable[Span], service_name: str) -> bytes:
    """The message that sends spans."""
    resource = {"attributes": _attributes({"service.name": service_name})}
    sent = {"scope": {"name": "canary_mw"}, "spans": [_fields(each) for each in spans]}
    return encode(EXPORT_REQUEST, {"resource_spans": [{"resource": resource, "scope_spans": [sent]}]})


def _fields(span: Span) -> dict[str, Any]:
    context, about = span.context, span.about
    start = int(span.start * 1e9)
    fields: dict[str, Any] = {
        "trace_id": bytes.fromhex(context.trace_id.rjust(32, "0")),
        "span_id": bytes.fromhex(context.span_id),
        "trace_state": context.state.decode("utf-8", "replace"),
        "parent_span_id": bytes.fromhex(context.parent_id or ""),
        "name": name_of(about),
        "kind": _SERVER if isinstance(about, Served) else _CLIENT,
        "start_time_unix_nano": start,
        "end_time_unix_nano": start + int(span.seconds * 1e9),
        "attributes": _attributes({**span.tags, **attributes_of(about)}),
    }
    if error_of(about) is not None:
        fields["status"] = {"code": _ERROR}
    flag = flag_of(about.decision) if isinstance(about, Served) else None
    if flag is not None:
        event = {"time_unix_nano": start, "name": "feature_flag.evaluation", "attributes": _attributes(flag)}
        fields["events"] = [event]
    return fields


def _attributes(values: Dict[str, Value]) -> list[dict[str, Any]]:
    return [
        {"key": name, "value": {"int" if isinstance(value, int) else "text": value}} for name, value in values.items()
    ]
