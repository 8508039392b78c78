"""Tables of the messages of `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`, as far as they are used."""

from canary_mw.forwarding.protobuf.auth import HEADER
from canary_mw.forwarding.protobuf.codec import Field, Table

_DESCRIPTOR: Table = {"entries": Field(1, {"key": Field(1), "value": Field(2)}, repeated=True)}
RATE_LIMIT_REQUEST: Table = {"domain": Field(1), "descriptors": Field(2, _DESCRIPTOR, repeated=True)}
RATE_LIMIT_RESPONSE: Table = {
    "overall_code": Field(1, "int"),
    "response_headers_to_add": Field(3, HEADER, repeated=True),
    "request_headers_to_add": Field(4, HEADER, repeated=True),
    "raw_body": Field(5, "bytes"),
}
