"""Entries of a LogService, read by the protocol buffers of Envoy: what is said of each way in which a request ends."""

from dataclasses import replace
from typing import Any

import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Finished
from canary_mw.observability.logs.entries import Logged, cluster, encoded
from canary_mw.rules.filters.logs import LogPolicy
from canary_mw.rules.service import parse_service

POLICY = LogPolicy("als", parse_service("logs")[0], request_headers=("x-user",))


def read(
    head: RequestHead | None, record: Finished, *, local: bool = False, matched: bool = True, policy: LogPolicy = POLICY
) -> dict[str, Any]:
    """The entry as Envoy's messages have it."""
    data = encoded(Logged(record, 1000.5, head, "default", local, matched), policy)
    found: dict[str, Any] = MessageToDict(HTTPAccessLogEntry.FromString(data), preserving_proto_field_name=True)
    return found


def sent(head: RequestHead, failed: tuple[str, bool] | None = None) -> RequestHead:
    head.forwarded = UpstreamRequest("shop", "GET", b"/x", [(b"host", b"a")])
    if failed is not None:
        head.failed = failed
    return head


def done(status: int | None, reason: str | None = None, **more: Any) -> Finished:
    return Finished("GET", "/shop/x", status, 0.25, reason=reason, **more)


@pytest.mark.parametrize(
    ("failed", "flag", "details"),
    [
        (("connect", False), "upstream_connection_failure", "{remote_connection_failure}"),
        (("connect", True), "upstream_connection_termination", "{connection_termination}"),
        (("overload", False), "upstream_overflow", "overflow"),
        (("timeout", True), "upstream_request_timeout", "response_timeout"),
        (("protocol", True), "upstream_protocol_error", "{protocol_error}"),
    ],
)
def test_why_an_upstream_has_not_answered(failed: tuple[str, bool], flag: str, details: str) -> None:
    entry = read(sent(RequestHead("GET", "/shop/x"), failed), done(503, "service unavailable"))
    assert entry["common_properties"]["response_flags"] == {flag: True}
    assert entry["response"]["response_code_details"].endswith(details)
    assert entry["common_properties"]["upstream_cluster"] == "cluster_shop_default"


@pytest.mark.parametrize(
    ("record", "matched", "flags", "details"),
    [
        (done(404, "not found"), False, {"no_route_found": True}, "route_not_found"),
        (done(301, "moved permanently"), True, None, "direct_response"),
        (done(404), True, None, "direct_response"),
        (
            done(401, auth="denied"),
            True,
            {"unauthorized_details": {"reason": "EXTERNAL_SERVICE"}},
            "ext_authz_denied",
        ),
        (done(403, auth="error"), True, {"unauthorized_details": {"reason": "EXTERNAL_SERVICE"}}, "ext_authz_error"),
        (done(429, rate_limit="over_limit"), True, {"rate_limited": True}, "request_rate_limited"),
        (done(500, rate_limit="error"), True, {"rate_limit_service_error": True}, "rate_limiter_error"),
        (done(None), True, {"downstream_connection_termination": True}, "downstream_remote_disconnect"),
        (
            done(200, "client left"),
            True,
            {"downstream_connection_termination": True},
            "downstream_remote_disconnect",
        ),
    ],
)
def test_why_no_upstream_was_asked(record: Finished, matched: bool, flags: dict[str, Any] | None, details: str) -> None:
    entry = read(RequestHead("GET", "/shop/x"), record, matched=matched)
    assert entry["common_properties"].get("response_flags") == flags
    assert entry["response"]["response_code_details"] == details


def test_an_answer_of_an_upstream_has_no_flags_whatever_its_status_and_an_earlier_failure() -> None:
    entry = read(sent(RequestHead("GET", "/shop/x"), ("connect", True)), done(404, auth="allowed", rate_limit="error"))
    assert "response_flags" not in entry["common_properties"]
    assert entry["response"]["response_code_details"] == "via_upstream"
    assert (entry["request"]["path"], entry["request"]["original_path"]) == ("/x", "/shop/x")


def test_what_envoy_has_as_headers_can_be_asked_for() -> None:
    names = (":method", ":path", ":authority", ":scheme", ":other")
    policy = replace(POLICY, request_headers=names, response_headers=(":status", ":path"))
    entry = read(sent(RequestHead("GET", "/shop/x")), done(200), policy=policy)
    expected = {":method": "GET", ":path": "/x", ":authority": "a", ":scheme": "http"}
    assert entry["request"]["request_headers"] == expected
    assert entry["response"]["response_headers"] == {":status": "200"}


def test_times_are_those_of_the_request() -> None:
    common = read(RequestHead("GET"), done(200, first_byte=0.125))["common_properties"]
    assert common["start_time"] == "1970-01-01T00:16:40.250Z"
    assert (common["duration"], common["time_to_first_downstream_tx_byte"]) == ("0.250s", "0.125s")


def test_what_was_refused_before_it_was_read_is_told_too() -> None:
    entry = read(None, Finished("GET", "/%00", 400, 0.0), matched=False)
    assert entry["response"]["response_code"] == 400
    assert entry["request"] == {"request_method": "GET", "path": "/%00"}


@pytest.mark.parametrize(
    ("service", "namespace", "name"),
    [
        ("up", "default", "cluster_up_default"),
        ("up.x", "x", "cluster_up_x"),
        ("https://up.x:8443", "x", "cluster_https___up_8443_otls_x"),
    ],
)
def test_a_cluster_is_called_as_in_emissary(service: str, namespace: str, name: str) -> None:
    assert cluster(service, namespace) == name


@given(st.lists(st.tuples(st.sampled_from([b"x-user", b"User-Agent", b"host"]), st.binary())), st.binary())
def test_any_bytes_of_a_client_are_a_message(headers: list[tuple[bytes, bytes]], target: bytes) -> None:
    head = RequestHead("GET")
    head.headers = headers
    head.path = target
    users = [value.decode("utf-8", "replace") for name, value in headers if name == b"x-user"]
    entry = read(head, done(200))
    assert entry["request"].get("request_headers", {}) == ({"x-user": ",".join(users)} if users else {})
    assert entry["request"].get("path", "") == target.decode("utf-8", "replace")
