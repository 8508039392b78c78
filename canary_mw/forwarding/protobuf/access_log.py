"""Tables of the messages of `envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs`, as far as they are used."""

from canary_mw.forwarding.protobuf.codec import Field, Table

METHOD = b"/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"

_ADDRESS: Table = {"socket_address": Field(1, {"address": Field(2), "port_value": Field(3, "int")})}
# Timestamp and Duration have the same fields.
_TIME: Table = {"seconds": Field(1, "int"), "nanos": Field(2, "int")}
_FLAGS: Table = {
    "upstream_request_timeout": Field(3, "bool"),
    "upstream_connection_failure": Field(6, "bool"),
    "upstream_connection_termination": Field(7, "bool"),
    "upstream_overflow": Field(8, "bool"),
    "no_route_found": Field(9, "bool"),
    "rate_limited": Field(12, "bool"),
    "unauthorized_details": Field(13, {"reason": Field(1, "int")}),
    "rate_limit_service_error": Field(14, "bool"),
    "downstream_connection_termination": Field(15, "bool"),
    "upstream_protocol_error": Field(24, "bool"),
}
_COMMON: Table = {
    "downstream_remote_address": Field(2, _ADDRESS),
    "start_time": Field(5, _TIME),
    "time_to_first_downstream_tx_byte": Field(11, _TIME),
    "time_to_last_downstream_tx_byte": Field(12, _TIME),
    "upstream_remote_address": Field(13, _ADDRESS),
    "upstream_cluster": Field(15),
    "response_flags": Field(16, _FLAGS),
    "upstream_transport_failure_reason": Field(18),
    "downstream_direct_remote_address": Field(20, _ADDRESS),
    "duration": Field(23, _TIME),
    "upstream_request_attempt_count": Field(24, "int"),
    "stream_id": Field(26),
    "access_log_type": Field(33, "int"),
}
_REQUEST: Table = {
    "request_method": Field(1, "int"),
    "scheme": Field(2),
    "authority": Field(3),
    "path": Field(5),
    "user_agent": Field(6),
    "referer": Field(7),
    "forwarded_for": Field(8),
    "request_id": Field(9),
    "original_path": Field(10),
    "request_headers_bytes": Field(11, "int"),
    "request_body_bytes": Field(12, "int"),
    "request_headers": Field(13, "map"),
}
_RESPONSE: Table = {
    "response_code": Field(1, {"value": Field(1, "int")}),
    "response_headers_bytes": Field(2, "int"),
    "response_body_bytes": Field(3, "int"),
    "response_headers": Field(4, "map"),
    "response_code_details": Field(6),
}
HTTP_ENTRY: Table = {
    "common_properties": Field(1, _COMMON),
    "protocol_version": Field(2, "int"),
    "request": Field(3, _REQUEST),
    "response": Field(4, _RESPONSE),
}
TCP_ENTRY: Table = {
    "common_properties": Field(1, _COMMON),
    "connection_properties": Field(2, {"received_bytes": Field(1, "int"), "sent_bytes": Field(2, "int")}),
}
# The entries are encoded one by one, as their lengths decide how many go together.
_ENTRIES: Table = {"log_entry": Field(1, "bytes", repeated=True)}
_IDENTIFIER: Table = {"node": Field(1, {"id": Field(1), "cluster": Field(2)}), "log_name": Field(2)}
STREAM_MESSAGE: Table = {
    "identifier": Field(1, _IDENTIFIER),
    "http_logs": Field(2, _ENTRIES),
    "tcp_logs": Field(3, _ENTRIES),
}
