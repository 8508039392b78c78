"""Tables of the messages of `opentelemetry.proto.collector.trace.v1.TraceService/Export`, as far as they are used."""

from canary_mw.forwarding.protobuf.codec import Field, Table

METHOD = b"/opentelemetry.proto.collector.trace.v1.TraceService/Export"

# Of the values one is given.
_VALUE: Table = {"text": Field(1), "int": Field(3, "int")}
ATTRIBUTE: Table = {"key": Field(1), "value": Field(2, _VALUE)}
_EVENT: Table = {
    "time_unix_nano": Field(1, "fixed64"),
    "name": Field(2),
    "attributes": Field(3, ATTRIBUTE, repeated=True),
}
SPAN: Table = {
    "trace_id": Field(1, "bytes"),
    "span_id": Field(2, "bytes"),
    "trace_state": Field(3),
    "parent_span_id": Field(4, "bytes"),
    "name": Field(5),
    "kind": Field(6, "int"),
    "start_time_unix_nano": Field(7, "fixed64"),
    "end_time_unix_nano": Field(8, "fixed64"),
    "attributes": Field(9, ATTRIBUTE, repeated=True),
    "events": Field(11, _EVENT, repeated=True),
    "status": Field(15, {"code": Field(3, "int")}),
}
_SCOPE_SPANS: Table = {
    "scope": Field(1, {"name": Field(1)}),
    "spans": Field(2, SPAN, repeated=True),
}
_RESOURCE_SPANS: Table = {
    "resource": Field(1, {"attributes": Field(1, ATTRIBUTE, repeated=True)}),
    "scope_spans": Field(2, _SCOPE_SPANS, repeated=True),
}
EXPORT_REQUEST: Table = {"resource_spans": Field(1, _RESOURCE_SPANS, repeated=True)}
