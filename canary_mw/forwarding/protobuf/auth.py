"""Tables of the messages of `envoy.service.auth.v3.Authorization/Check`, as far as they are used."""

from canary_mw.forwarding.protobuf.codec import Field, Table

_SOCKET_ADDRESS: Table = {"address": Field(2), "port_value": Field(3, "int")}
_PEER: Table = {"address": Field(1, {"socket_address": Field(1, _SOCKET_ADDRESS)})}
_HTTP_REQUEST: Table = {
    "id": Field(1),
    "method": Field(2),
    "headers": Field(3, "map"),
    "path": Field(4),
    "host": Field(5),
    "scheme": Field(6),
    "size": Field(9, "int"),
    "protocol": Field(10),
    "body": Field(11),
    "raw_body": Field(12, "bytes"),
}
_TIMESTAMP: Table = {"seconds": Field(1, "int"), "nanos": Field(2, "int")}
_ATTRIBUTES: Table = {
    "source": Field(1, _PEER),
    "destination": Field(2, _PEER),
    "request": Field(4, {"time": Field(1, _TIMESTAMP), "http": Field(2, _HTTP_REQUEST)}),
    "context_extensions": Field(10, "map"),
    "metadata_context": Field(11, {}),
    "route_metadata_context": Field(13, {}),
}
CHECK_REQUEST: Table = {"attributes": Field(1, _ATTRIBUTES)}

HEADER: Table = {"key": Field(1), "value": Field(2), "raw_value": Field(3, "bytes")}
_HEADER_OPTION: Table = {"header": Field(1, HEADER), "append": Field(2, {"value": Field(1, "bool")})}
_DENIED: Table = {
    "status": Field(1, {"code": Field(1, "int")}),
    "headers": Field(2, _HEADER_OPTION, repeated=True),
    "body": Field(3),
}
_OK: Table = {
    "headers": Field(2, _HEADER_OPTION, repeated=True),
    "headers_to_remove": Field(5, repeated=True),
    "response_headers_to_add": Field(6, _HEADER_OPTION, repeated=True),
    "query_parameters_to_set": Field(7, {"key": Field(1), "value": Field(2)}, repeated=True),
    "query_parameters_to_remove": Field(8, repeated=True),
}
CHECK_RESPONSE: Table = {
    "status": Field(1, {"code": Field(1, "int")}),
    "denied_response": Field(2, _DENIED),
    "ok_response": Field(3, _OK),
    "error_response": Field(5, _DENIED),
}
