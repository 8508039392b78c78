import re
from itertools import chain, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import HOP, decision_of, get, mapping, substitution, table

from canary_mw.exceptions import BadTarget, ClientError, LoopDetected
from canary_mw.forwarding.headers import apply_header_changes, response_head
from canary_mw.forwarding.hop import MAX_HOPS, is_sent_and_signed
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.forwarding.requests import upstream_request
from canary_mw.forwarding.rewrite import redirect_location, request_host, rewrite_path
from canary_mw.http.messages import BodyFraming, RequestHead, ResponseHead
from canary_mw.rules.header_templates import TemplateContext
from canary_mw.rules.mapping import HeaderChange, Mapping, Redirect
from canary_mw.rules.service import parse_service
from canary_mw.rules.upstream import CircuitBreakers, UpstreamOptions

HOP_BY_HOP = (
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings proxy-authenticate"
    b" proxy-authorization".split()
)
TRUSTED = HOP._replace(trusted=True)


def forwarded(head: RequestHead, rule: Mapping | None = None, *, trusted: bool = False) -> UpstreamRequest:
    return upstream_request(decision_of(rule or mapping()), head, TRUSTED if trusted else HOP)


def sent(request: UpstreamRequest) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in request.headers:
        found.setdefault(name.decode(), []).append(value.decode("latin-1"))
    return found


@pytest.mark.parametrize(
    ("timeout_ms", "middleware", "ends_at_head"), [(None, True, True), (3000, True, False), (None, False, False)]
)
def test_only_the_default_limit_of_a_middleware_ends_at_the_head(
    timeout_ms: int | None, middleware: bool, ends_at_head: bool
) -> None:
    decision = decision_of(mapping(timeout_ms=timeout_ms), middleware=middleware)
    request = upstream_request(decision, get(), HOP)
    assert (request.timeout, request.timeout_ends_at_head) == (3.0, ends_at_head)


def test_a_plain_request_is_framed_anew() -> None:
    rule = mapping("shop", service="shop:8080", timeout_ms=1500, connect_timeout_ms=200)
    request = forwarded(get("/svc/a?b=1", [("Host", "example.com"), ("Accept", "*/*")]), rule)
    assert request == UpstreamRequest(
        service="shop:8080",
        method="GET",
        target=b"/a?b=1",
        headers=[
            (b"host", b"example.com"),
            (b"accept", b"*/*"),
            (b"x-forwarded-for", b"127.0.0.1"),
            (b"x-forwarded-proto", b"http"),
            (b"x-forwarded-host", b"example.com"),
            (b"x-request-id", b"new-id"),
            (b"via", b"1.1 canary-mw-test (shop:8080)"),
        ],
        body=None,
        timeout=1.5,
        connect_timeout=0.2,
        replayable=True,
        mapping="shop",
    )


def test_a_timeout_of_0_is_no_timeout() -> None:
    assert forwarded(get(), mapping(timeout_ms=0)).timeout is None


@pytest.mark.parametrize(
    ("method", "headers", "body", "replayable"),
    [
        ("GET", {}, None, True),
        ("GET", {"content-length": "0"}, BodyFraming(0), True),
        ("DELETE", {"content-length": "3"}, BodyFraming(3), False),
        ("POST", {}, None, False),
        ("POST", {"content-length": "12"}, BodyFraming(12), False),
        ("PUT", {"transfer-encoding": "chunked"}, BodyFraming(None), False),
        ("PATCH", {}, None, False),
    ],
)
def test_only_idempotent_requests_without_a_body_are_replayable(
    method: str, headers: dict[str, str], body: BodyFraming | None, replayable: bool
) -> None:
    request = forwarded(RequestHead(method, "/svc/", headers))
    assert (request.body, request.replayable) == (body, replayable)
    assert not {"content-length", "transfer-encoding"} & sent(request).keys()


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "3", "transfer-encoding": "chunked"},
        {"content-length": "+3"},
        {"content-length": ""},
        {"content-length": "0x3"},
        {"content-length": "3, 3"},
        {"content-length": str(2**63)},
        {"content-length": "²"},
    ],
)
def test_an_ambiguous_or_invalid_body_framing_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ClientError) as caught:
        forwarded(RequestHead("POST", "/svc/", headers))
    assert caught.value.status_hint == 400


def test_forwarded_headers_of_an_untrusted_peer_are_replaced() -> None:
    spoofed = {
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "for=1.2.3.4",
        "X-Real-IP": "1.2.3.4",
        "X_Forwarded_For": "1.2.3.4",
        "Host": "example.com",
    }
    found = sent(forwarded(get(headers=spoofed, client="9.9.9.9", scheme="http")))
    assert found["x-forwarded-for"] == ["9.9.9.9"]
    assert found["x-forwarded-proto"] == ["http"]
    assert found["x-forwarded-host"] == ["example.com"]
    assert "1.2.3.4" not in str(found)
    assert "evil" not in str(found)


def spellings(name: str) -> list[str]:
    """Every mix of hyphens and underscores but that of hyphens alone."""
    parts = name.split("-")
    mixes = product("-_", repeat=len(parts) - 1)
    return ["".join(chain(*zip(parts, (*mix, ""), strict=True))) for mix in mixes if "_" in mix]


@pytest.mark.parametrize("trusted", [True, False])
def test_no_other_spelling_of_what_is_set_here_reaches_an_upstream_that_reads_both_as_one(trusted: bool) -> None:
    rule = mapping(
        add_request_headers=(HeaderChange(b"x-user-name", b"ours", append=False), HeaderChange(b"x-more", b"b", True)),
        remove_request_headers=(b"x-in-secret",),
    )
    names = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Prefix",
        "X-Real-IP",
        "X-Request-ID",
        "X-Shadow",
        "Content-Length",
        "Transfer-Encoding",
        "Keep-Alive",
        "Proxy-Connection",
        "X-User-Name",
        "X-In-Secret",
    ]
    evil = [(alias, "6.6.6.6") for name in names for alias in spellings(name)]
    own = [("X_Tenant", "a"), ("X_More", "a"), ("X-Request-ID", "mine"), ("X-Forwarded-For", "5.5.5.5")]
    found = sent(forwarded(get(headers=[*evil, *own], client="9.9.9.9"), rule, trusted=trusted))
    assert "6.6.6.6" not in str(found)
    assert (found["x_tenant"], found["x_more"], found["x-more"]) == (["a"], ["a"], ["b"])
    assert (found["x-user-name"], found["x-request-id"]) == (["ours"], ["mine"])
    assert found["x-forwarded-for"] == ["5.5.5.5, 9.9.9.9" if trusted else "9.9.9.9"]


def test_a_rule_that_names_a_header_with_underscores_still_sets_it() -> None:
    rule = mapping(add_request_headers=(HeaderChange(b"x_tenant", b"ours", append=False),))
    found = sent(forwarded(get(headers={"X_Tenant": "theirs"}), rule))
    assert found["x_tenant"] == ["ours"]


def test_forwarded_headers_of_a_trusted_peer_are_kept_and_appended_to() -> None:
    headers = [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "5.6.7.8"), ("Host", "example.com")]
    headers += [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example"), ("Forwarded", "for=1.2.3.4")]
    found = sent(forwarded(get(headers=headers, client="9.9.9.9"), trusted=True))
    assert found["x-forwarded-for"] == ["1.2.3.4, 5.6.7.8, 9.9.9.9"]
    assert found["x-forwarded-proto"] == ["https"]
    assert found["x-forwarded-host"] == ["shop.example"]
    assert found["forwarded"] == ["for=1.2.3.4"]


def test_forwarded_headers_that_a_trusted_peer_does_not_send_are_added() -> None:
    found = sent(forwarded(get(headers={"host": "example.com"}, client=None, scheme="https"), trusted=True))
    assert found["x-forwarded-for"] == ["unknown"]
    assert found["x-forwarded-proto"] == ["https"]
    assert found["x-forwarded-host"] == ["example.com"]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_request_without_host_gets_no_forwarded_host(trusted: bool) -> None:
    found = sent(forwarded(get(), trusted=trusted))
    assert "x-forwarded-host" not in found
    assert found["host"] == [""]


def test_of_two_hosts_the_one_that_was_matched_is_sent() -> None:
    found = sent(forwarded(get(headers=[("host", "a.com"), ("host", "b.com")])))
    assert (found["host"], found["x-forwarded-host"]) == (["a.com"], ["a.com"])


def test_a_request_id_is_kept_or_made() -> None:
    assert sent(forwarded(get(headers={"x-request-id": "mine"})))["x-request-id"] == ["mine"]
    assert sent(forwarded(get()))["x-request-id"] == ["new-id"]


def test_headers_named_by_connection_are_for_this_hop_only() -> None:
    headers = [("connection", "X-A , close"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "2"), ("x-c", "3")]
    found = sent(forwarded(get(headers=headers)))
    assert found["x-c"] == ["3"]
    assert not {"x-a", "x-b", "connection", "close"} & found.keys()


def test_connection_cannot_remove_the_headers_that_we_set() -> None:
    named = "host, x-forwarded-for, x-forwarded-proto, x-request-id, via, content-length"
    headers = {"connection": named, "host": "example.com", "x-request-id": "mine", "x-forwarded-for": "1.1.1.1"}
    found = sent(forwarded(get(headers=headers), trusted=True))
    assert found["host"] == ["example.com"]
    assert found["x-request-id"] == ["mine"]
    assert found["x-forwarded-for"] == ["1.1.1.1, 127.0.0.1"]
    assert found["via"] == ["1.1 canary-mw-test (a)"]


def test_the_mapping_removes_then_adds_then_replaces() -> None:
    rule = mapping(
        remove_request_headers=(b"x-a", b"x-request-id"),
        add_request_headers=(
            HeaderChange(b"x-a", b"new"),
            HeaderChange(b"x-b", b"2"),
            HeaderChange(b"x-c", b"3", append=False),
        ),
    )
    found = sent(forwarded(get(headers=[("x-a", "0"), ("x-b", "1"), ("x-c", "1"), ("x-c", "2")]), rule))
    assert (found["x-a"], found["x-b"], found["x-c"]) == (["new"], ["1", "2"], ["3"])
    assert "x-request-id" not in found


def test_a_request_that_this_deployment_forwarded_before_is_a_loop() -> None:
    for via in ("1.1 canary-mw-test", "1.0 a, 1.1 canary-mw-test (x)", "1.1 a ,HTTP/1.1 canary-mw-test"):
        with pytest.raises(LoopDetected, match="by this deployment before"):
            forwarded(get(headers={"via": via}))


def test_a_request_through_too_many_others_is_a_loop() -> None:
    chain = [("via", f"1.1 canary-mw-{number}") for number in range(MAX_HOPS)]
    with pytest.raises(LoopDetected, match=f"forwarded {MAX_HOPS} times"):
        forwarded(get(headers=chain))
    assert sent(forwarded(get(headers=chain[1:])))["via"] == [
        ", ".join(f"1.1 canary-mw-{number}" for number in range(1, MAX_HOPS)) + ", 1.1 canary-mw-test (a)"
    ]


def test_a_via_token_that_only_begins_like_ours_is_no_loop() -> None:
    found = sent(forwarded(get(headers=[("via", "1.1 canary-mw-test2"), ("via", "1.1 nginx, ")])))
    assert found["via"] == ["1.1 canary-mw-test2, 1.1 nginx,, 1.1 canary-mw-test (a)"]


def test_the_host_is_the_clients_unless_the_mapping_rewrites_it() -> None:
    assert request_host(mapping(), b"Example.com:80") == b"Example.com:80"
    assert request_host(mapping(host_rewrite="inner"), b"example.com") == b"inner"
    automatic = Mapping(name="a", prefix="/", service=parse_service("https://svc.ns:8443")[0], auto_host_rewrite=True)
    assert request_host(automatic, b"example.com") == b"svc.ns"


@pytest.mark.parametrize(
    ("rule", "path", "result"),
    [
        (mapping(), "/svc/a", "/a"),
        (mapping(), "/svc/", "/"),
        (mapping(prefix="/svc"), "/svc/a", "//a"),
        (mapping(prefix="/svc"), "/svca", "/a"),
        (mapping(rewrite="/api"), "/svc/a", "/apia"),
        (mapping(rewrite=None), "/svc/a", "/svc/a"),
        (mapping(rewrite="/x?y="), "/svc/a", "/x?y=a"),
        (mapping(rewrite="/x?y="), "/svc/../..", "/x?y="),
        (mapping(rewrite="api/"), "/svc/a", "/api/a"),
        (mapping(prefix_kind="exact", rewrite="/new"), "/svc/", "/new"),
        (mapping(prefix="/s.*", prefix_kind="regex"), "/svc/a", "/"),
        (mapping(prefix="/s.*", prefix_kind="regex", rewrite=None), "/svc/a", "/svc/a"),
        (mapping(regex_rewrite=substitution("/svc/(.*)", r"/\1/x")), "/svc/a", "/a/x"),
        (mapping(regex_rewrite=substitution("/proxy/", ""), prefix="/"), "/proxy/http://evil/a", "/http://evil/a"),
    ],
)
def test_the_matched_prefix_is_replaced(rule: Mapping, path: str, result: str) -> None:
    head_path = path.encode() if ".." not in path else rule.prefix_bytes
    assert rewrite_path(rule, head_path) == result.encode()


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (mapping(prefix="/svc", rewrite="/api/"), "/svc../admin"),
        (mapping(prefix="/svc", rewrite="/api/"), "/svc."),
        (mapping(prefix="/svc", rewrite="/api/."), "/svc./admin"),
        (mapping(prefix="/", regex_rewrite=substitution("x", "")), "/x.x./admin"),
        (mapping(prefix="/", regex_rewrite=substitution("^/x", "")), "/x../admin"),
    ],
)
def test_a_rewrite_that_makes_a_dot_segment_is_refused(rule: Mapping, path: str) -> None:
    with pytest.raises(BadTarget, match="climb"):
        rewrite_path(rule, path.encode())


segments = st.lists(
    st.sampled_from(["..", ".", "...", "a", "", "%2e", "svc", "svc..", "x.", ".x", "%2e%2e"]), max_size=5
)
rewrites = st.sampled_from(["/", "/api", "/api/", "/a.", "/a/.", "api", "", "/x?y=", "..", "/a/.."])


@given(segments, st.sampled_from(["/", "/svc", "/svc/", "/a"]), rewrites, st.sampled_from(["x", "/", "a|svc", r"\."]))
def test_a_rewritten_path_never_holds_a_dot_segment(parts: list[str], prefix: str, rewrite: str, pattern: str) -> None:
    head = get("/" + "/".join(parts))
    rules = [mapping(prefix=prefix, rewrite=rewrite or None)]
    rules += [mapping(prefix=prefix, regex_rewrite=substitution(pattern, rewrite))]
    for rule in rules:
        if not rule.accepts_path(head.path):
            continue
        try:
            target = rewrite_path(rule, head.path)
        except BadTarget:
            continue
        assert target.startswith(b"/")
        assert {b".", b".."}.isdisjoint(target.partition(b"?")[0].split(b"/"))


names = st.sampled_from(
    [
        *(name.decode() for name in HOP_BY_HOP),
        *"host content-length expect via x-a X-B cookie x-request-id Forwarded x-forwarded-for x-real-ip".split(),
        *"X_Forwarded_For transfer_encoding".split(),
    ]
)
values = st.sampled_from(["1", "", "x-a", "close, X-b", "chunked", "host,via", "a b", "keep-alive"])
header_lists = st.lists(st.tuples(names, values), max_size=10).map(
    lambda pairs: [pair for pair in pairs if pair[0] != "transfer-encoding" or pair[1] == "chunked"]
)


@given(header_lists, st.booleans())
def test_hop_by_hop_headers_are_never_forwarded(pairs: list[tuple[str, str]], trusted: bool) -> None:
    head = get(headers=pairs)
    try:
        request = forwarded(head, trusted=trusted)
    except ClientError:
        return
    found = sent(request)
    nominated = {
        token.strip()
        for name, value in head.headers
        if name == b"connection"
        for token in value.decode().lower().split(",")
    }
    kept = {"host", "via", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"}
    assert not found.keys() & {name.decode() for name in HOP_BY_HOP}
    assert not found.keys() & {"content-length", "expect", "transfer_encoding", "x_forwarded_for"}
    assert not found.keys() & (nominated - kept - {"x-real-ip"})
    assert len(found["host"]) == len(found["via"]) == len(found["x-forwarded-for"]) == 1
    assert request.headers[0][0] == b"host"


def test_a_forwarded_request_gets_no_control_characters() -> None:
    """The server refuses them in requests; what forwarding adds holds none either."""
    request = forwarded(get("/svc/?a=%0d%0ax", {"host": "example.com"}, client="::1"))
    assert not any(set(b"\r\n\0") & {*name, *value} for name, value in request.headers)
    assert not set(b"\r\n\0 ") & {*request.target}


@given(st.text(max_size=12), st.text(max_size=6))
def test_a_target_that_is_sent_holds_no_control_byte(path: str, query: str) -> None:
    try:
        request = forwarded(get(f"/svc/{path}?{query}"), mapping(prefix="/"))
    except ClientError:
        return
    assert request.target.isascii()
    assert min(request.target) > 0x20


@pytest.mark.parametrize(
    ("redirect", "rule", "target", "result"),
    [
        (Redirect(host="new.com"), {}, "/svc/a?b=1", "http://new.com/svc/a?b=1"),
        (Redirect(host="new.com", path="/p"), {}, "/svc/a?b=1", "http://new.com/p?b=1"),
        (Redirect(host="new.com", path="/p?x"), {}, "/svc/a?b=1", "http://new.com/p?x"),
        (Redirect(host="new.com", prefix="/q/"), {}, "/svc/a?b=1", "http://new.com/q/a?b=1"),
        (Redirect(host="new.com", prefix="/q/"), {"prefix_kind": "exact"}, "/svc/", "http://new.com/q/"),
        (Redirect(host="n", regex=substitution("/svc/(.*)", r"/x/\1")), {}, "/svc/a?b", "http://n/x/a?b"),
        (Redirect(host="n", path="/p", prefix="/q/"), {}, "/svc/a", "http://n/p"),
        (Redirect(host="n", regex=substitution("/svc/", "")), {}, "/svc/.evil.com/", "http://n/.evil.com/"),
        (Redirect(host="n", prefix="q"), {}, "/svc/a", "http://n/qa"),
    ],
)
def test_a_redirect_leads_to_its_host(redirect: Redirect, rule: dict[str, str], target: str, result: str) -> None:
    assert redirect_location(redirect, mapping(redirect=redirect, **rule), get(target)) == result.encode()


def test_a_redirect_keeps_the_scheme() -> None:
    assert redirect_location(Redirect(host="n"), mapping(), get("/svc/", scheme="https")) == b"https://n/svc/"


def test_hop_by_hop_headers_of_a_response_are_removed() -> None:
    headers = [(name, b"x") for name in HOP_BY_HOP] + [(b"x-a", b"1"), (b"content-length", b"3"), (b"set-cookie", b"a")]
    assert response_head(mapping(), ResponseHead(200, headers), get(), HOP) == ResponseHead(
        200, [(b"x-a", b"1"), (b"content-length", b"3"), (b"set-cookie", b"a")]
    )


def test_headers_that_connection_names_are_removed_from_a_response() -> None:
    head = ResponseHead(200, [(b"x-a", b"1"), (b"x-b", b"2"), (b"connection", b"close, X-A")])
    assert response_head(mapping(), head, get(), HOP).headers == [(b"x-b", b"2")]


@pytest.mark.parametrize(("status", "kept"), [(200, True), (204, False), (304, False)])
def test_a_response_without_a_body_has_no_content_length(status: int, kept: bool) -> None:
    head = response_head(mapping(), ResponseHead(status, [(b"content-length", b"0")]), get(), HOP)
    assert bool(head.headers) is kept
    assert head.status == status


def test_the_mapping_changes_the_response() -> None:
    rule = mapping(remove_response_headers=(b"server",), add_response_headers=(HeaderChange(b"x-a", b"1", False),))
    head = response_head(rule, ResponseHead(200, [(b"server", b"s"), (b"x-a", b"0"), (b"x-b", b"2")]), get(), HOP)
    assert head.headers == [(b"x-b", b"2"), (b"x-a", b"1")]


def test_headers_without_changes_are_unchanged() -> None:
    assert apply_header_changes([(b"a", b"1"), (b"a", b"2")], (), (), TemplateContext(get(), None, 0.0)) == [
        (b"a", b"1"),
        (b"a", b"2"),
    ]


def copied(
    head: RequestHead, rule: Mapping | None = None, *, roll: float = 0.0, writes: bool = False, **shadow: Any
) -> UpstreamRequest | None:
    """The copy for the shadow of a group."""
    routes = table(rule or mapping(), mapping("copy", shadow=True, **shadow))
    (share,) = routes.groups[0].shares
    return upstream_request(share.decision, head, HOP._replace(roll=lambda: roll, shadow_writes=writes)).shadow


def test_a_shadow_gets_the_same_request_with_its_own_host() -> None:
    rule = mapping(rewrite="/v2/", add_request_headers=(HeaderChange(b"x-added", b"1"),), timeout_ms=700)
    head = get("/svc/a?b=1", [("host", "example.com:8080"), ("x-a", "1"), ("x-shadow", "forged")])
    main = forwarded(head, rule)
    copy = copied(head, rule, rewrite="/not/used/", host_rewrite="not-used")
    assert copy is not None
    assert (copy.service, copy.method, copy.target, copy.timeout) == ("copy", "GET", b"/v2/a?b=1", 0.7)
    assert copy.headers[0] == (b"host", b"example.com-shadow:8080")
    assert sent(copy)["x-shadow"] == ["true"]
    ours = ("host", "x-shadow", "via")
    same = {name: values for name, values in sent(main).items() if name not in ours}
    assert {name: values for name, values in sent(copy).items() if name not in ours} == same
    assert sent(main)["x-shadow"] == ["forged"]
    assert (copy.replayable, copy.shadow) == (False, None)


def test_an_address_in_brackets_stays_the_host_of_a_shadow() -> None:
    copy = copied(get(headers={"host": "[::1]:8080"}))
    assert copy is not None
    assert copy.headers[:2] == [(b"host", b"[::1]:8080"), (b"x-shadow", b"true")]


def test_a_copy_names_its_shadow_in_via_and_has_the_limits_of_the_shadow() -> None:
    options = UpstreamOptions(max_connection_lifetime=5.0)
    copy = copied(get(headers={"via": "1.0 a"}), options=options, connect_timeout_ms=70)
    assert copy is not None
    assert sent(copy)["via"] == ["1.0 a, 1.1 canary-mw-test (copy)"]
    assert (copy.service, copy.options, copy.connect_timeout) == ("copy", options, 0.07)


def test_the_host_of_a_shadow_follows_host_rewrite_but_not_auto_host_rewrite() -> None:
    head = get("/svc/", {"host": "example.com"})
    for rule, host in ((mapping(host_rewrite="inner"), b"inner"), (mapping(auto_host_rewrite=True), b"example.com")):
        copy = copied(head, rule)
        assert copy is not None
        assert copy.headers[0] == (b"host", host + b"-shadow")


def test_the_rules_cannot_change_the_x_shadow_header() -> None:
    copy = copied(get(), mapping(add_request_headers=(HeaderChange(b"x-shadow", b"no"),)))
    assert copy is not None
    assert sent(copy)["x-shadow"] == ["true"]


@pytest.mark.parametrize(
    ("weight", "roll", "copies"),
    [
        (None, 99.9, True),
        (100, 99.9, True),
        (30, 29.9, True),
        (30, 30.0, False),
        (0, 0.0, False),
        (-1, 0.0, False),
        (101, 99.9, True),
    ],
)
def test_the_weight_of_a_shadow_is_the_percentage_that_is_copied(weight: int | None, roll: float, copies: bool) -> None:
    assert (copied(get(), weight=weight, roll=roll) is not None) is copies


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_only_reads_are_copied_unless_shadow_writes_is_set(method: str) -> None:
    head = RequestHead(method, "/svc/")
    assert (copied(head) is not None) is (method in ("GET", "HEAD", "OPTIONS"))
    assert copied(head, writes=True) is not None
    assert copied(head, shadow_writes=True) is not None


def test_a_copy_has_the_body_of_its_request() -> None:
    copy = copied(RequestHead("POST", "/svc/", {"content-length": "5"}), writes=True)
    assert copy is not None
    assert copy.body == BodyFraming(5)


def test_a_mapping_may_replace_the_id_of_a_request() -> None:
    head = get(headers={"x-request-id": "client"})
    assert sent(forwarded(head))["x-request-id"] == ["client"]
    assert sent(forwarded(head, mapping(keep_request_id=False)))["x-request-id"] == ["new-id"]
    assert sent(forwarded(get(), mapping(keep_request_id=False)))["x-request-id"] == ["new-id"]


def test_a_request_has_the_options_of_its_mapping() -> None:
    options = UpstreamOptions(idle_timeout=0.5, circuit_breakers=CircuitBreakers(max_requests=1))
    assert forwarded(get(), mapping(options=options)).options is options


KEYS = (b"1" * 64, b"2" * 64)
SIGNING = HOP._replace(comment_key=KEYS[0])


def signed(request: UpstreamRequest, **changes: str) -> RequestHead:
    """The request as the next hop gets it."""
    return get(headers={**{name.decode(): value.decode() for name, value in request.headers}, **changes})


def test_with_a_key_the_comment_is_a_signature_for_service_and_request() -> None:
    head = get(headers={"via": "1.1 nginx", "x-request-id": "a"})
    request = upstream_request(decision_of(mapping("gray")), head, SIGNING)
    assert re.fullmatch(r"1.1 nginx, 1.1 canary-mw-test \([0-9a-f]{64}\)", sent(request)["via"][0])
    there = signed(request)
    assert is_sent_and_signed(KEYS, there, b"(gray)")
    assert is_sent_and_signed(KEYS[::-1], there, b"(gray)")
    assert not is_sent_and_signed(KEYS[1:], there, b"(gray)")
    assert not is_sent_and_signed(KEYS, there, b"(stable)")
    assert not is_sent_and_signed(KEYS, signed(request, **{"x-request-id": "b"}), b"(gray)")
    assert not is_sent_and_signed(KEYS, signed(request, via="1.1 canary-mw-test (gray)"), b"(gray)")
    without_id = [(name, value) for name, value in there.headers if name != b"x-request-id"]
    assert not is_sent_and_signed(KEYS, get(headers=without_id), b"(gray)")


def test_the_signature_holds_for_an_id_that_was_made_here_and_after_further_hops() -> None:
    request = upstream_request(decision_of(mapping("gray")), get(), SIGNING)
    assert sent(request)["x-request-id"] == ["new-id"]
    far = signed(request, via=sent(request)["via"][0] + ", 1.1 mesh")
    assert is_sent_and_signed(KEYS, far, b"(gray)")


def test_a_rule_that_removes_the_id_leaves_a_signature_that_nobody_believes() -> None:
    request = upstream_request(decision_of(mapping("gray", remove_request_headers=(b"x-request-id",))), get(), SIGNING)
    assert not is_sent_and_signed(KEYS, signed(request), b"(gray)")
    assert not is_sent_and_signed(KEYS, signed(request, **{"x-request-id": ""}), b"(gray)")


def test_many_signatures_cost_no_more_than_those_of_the_most_hops() -> None:
    request = upstream_request(decision_of(mapping("gray")), get(), SIGNING)
    real = sent(request)["via"][0]
    junk = [f"1.1 a ({number:064x})" for number in range(100)]
    assert is_sent_and_signed(KEYS, signed(request, via=", ".join([*junk, real])), b"(gray)")
    assert not is_sent_and_signed(KEYS, signed(request, via=", ".join([real, *junk])), b"(gray)")


def test_a_copy_is_signed_for_the_service_of_the_shadow() -> None:
    routes = table(mapping("gray"), mapping("dark", shadow=True))
    request = upstream_request(routes.groups[0].shares[0].decision, get(), SIGNING)
    assert request.shadow is not None
    assert is_sent_and_signed(KEYS, signed(request.shadow), b"(dark)")
    assert not is_sent_and_signed(KEYS, signed(request.shadow), b"(gray)")
