"""What a RateLimitService is asked, and what its answers mean, without any server."""

from typing import Any

import pytest
from auth_rules import auth_service
from rules import HOP, get
from servers import mapping

from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forwarding.filters.admission import admission
from canary_mw.forwarding.filters.calls import Admitted, AskGrpc, AskHttp, Facts, HttpAnswer
from canary_mw.forwarding.messages import Reply
from canary_mw.http.messages import RequestHead
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.rules.filters.auth import PROBES

LABELS = "{ambassador: [{g: [{user: {header: x-user}}]}]}"
RULES = (
    mapping("shop", "/shop/", "shop", labels=LABELS, cors='{origins: ["http://ok.example"]}')
    + mapping("vip", "/shop/", "vip", headers="{x-user: vip}", labels="{ambassador: [{g: [vip]}]}")
    + mapping("free", "/free/", "shop")
    + mapping("moved", "/old/", "shop", host_redirect="true", labels="{ambassador: [{g: [moved]}]}")
)


def limits(**attributes: object) -> str:
    """A RateLimitService document."""
    lines = "".join(f"{key}: {value}\n" for key, value in attributes.items())
    return (
        "---\napiVersion: getambassador.io/v3alpha1\nkind: RateLimitService\nname: limits\nservice: limiter:5000\n"
        f"protocol_version: v3\n{lines}"
    )


def ask(
    head: RequestHead, *answers: Any, rules: str = RULES, middleware: bool = False, **attributes: Any
) -> tuple[list[Any], Admitted | Reply | None]:
    """What an admission asks for, and how it ends."""
    table = RouteTable.from_yaml(rules + limits(**attributes), middleware=middleware, local=["me"])
    assert table.filters is not None
    facts = Facts(
        lambda other: decide(table, other, 0.0),
        HOP,
        middleware,
        int,
        float,
        unguarded=frozenset(PROBES),
        client="1.2.3.4",
    )
    steps = admission(table, table.filters, decide(table, head, 0.0), head, facts)
    calls: list[Any] = []
    try:
        calls.append(next(steps))
        for answer in answers:
            wanted = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
            calls.append(wanted)
    except StopIteration as stop:
        return calls, stop.value
    return calls, None


BOB = get("/shop/", {"x-user": "bob", "host": "a"})
OK = {"overall_code": 1}
OVER = {"overall_code": 2}


def test_the_service_is_asked_by_the_labels_of_the_mapping() -> None:
    (call,), _ = ask(BOB)
    assert isinstance(call, AskGrpc)
    assert call.method == "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    assert (call.service, call.rule, call.timeout) == ("limiter:5000", "RateLimitService limits", 0.02)
    assert call.message == {
        "domain": "ambassador",
        "descriptors": [{"entries": [{"key": "user", "value": "bob"}]}],
    }


@pytest.mark.parametrize("head", [get("/shop/"), get("/free/", {"x-user": "b"}), get("/old/"), get("/none/")])
def test_nobody_is_asked_where_there_is_nothing_to_count(head: RequestHead) -> None:
    calls, outcome = ask(head)
    assert calls == []
    assert isinstance(outcome, Admitted)


def test_over_the_limit_is_429_with_what_the_service_adds() -> None:
    head = get("/shop/", {"x-user": "bob", "origin": "http://ok.example"})
    added = [
        {"key": "Retry-After", "value": "9"},
        {"key": "a b", "value": "x"},
        {"key": "connection", "value": "close"},
    ]
    _, reply = ask(head, {**OVER, "response_headers_to_add": added, "raw_body": b"slow"})
    assert isinstance(reply, Reply)
    headers = dict(reply.headers or ())
    assert (reply.status, reply.body) == (429, b"slow")
    assert (headers[b"x-envoy-ratelimited"], headers[b"retry-after"]) == (b"true", b"9")
    assert headers[b"access-control-allow-origin"] == b"http://ok.example"
    assert not {b"a b", b"connection"} & headers.keys()


@pytest.mark.parametrize(
    ("attributes", "status"), [({}, b"14"), ({"grpc": "{use_resource_exhausted_code: true}"}, b"8")]
)
def test_a_client_of_grpc_gets_a_status_of_grpc(attributes: dict[str, Any], status: bytes) -> None:
    head = get("/shop/", {"x-user": "bob", "content-type": "application/grpc+proto"})
    _, reply = ask(head, OVER, **attributes)
    assert isinstance(reply, Reply)
    assert reply.status == 200
    assert dict(reply.headers or ())[b"grpc-status"] == status


@pytest.mark.parametrize("kind", ["application/grpc-web", "application/json", "text/application/grpc"])
def test_other_clients_get_a_status_of_http(kind: str) -> None:
    _, reply = ask(get("/shop/", {"x-user": "bob", "content-type": kind}), OVER)
    assert isinstance(reply, Reply)
    assert reply.status == 429


@pytest.mark.parametrize(
    ("body", "text"), [(b"slow down: 5/s", b"slow down: 5/s"), (b"50%\r\n\xc3\xa9", b"50%25%0D%0A%C3%A9")]
)
def test_a_client_of_grpc_is_told_why(body: bytes, text: bytes) -> None:
    head = get("/shop/", {"x-user": "bob", "host": "a", "content-type": "application/grpc"})
    _, outcome = ask(head, {**OVER, "raw_body": body})
    assert isinstance(outcome, Reply)
    assert (outcome.body, dict(outcome.headers or ())[b"grpc-message"]) == (b"", text)


def test_a_header_of_the_service_is_none_that_a_client_has_named_as_its_own() -> None:
    answer = {**OK, "request_headers_to_add": [{"key": "x-left", "value": "3"}]}
    head = get("/shop/", {"x-user": "bob", "host": "a", "connection": "close, X-Left"})
    _, outcome = ask(head, answer)
    assert isinstance(outcome, Admitted)
    assert outcome.head.header(b"connection") == b"close"


def test_below_the_limit_headers_are_added_both_ways() -> None:
    answer = {
        **OK,
        "request_headers_to_add": [{"key": "x-left", "value": "3"}],
        "response_headers_to_add": [{"key": "x-limit", "raw_value": b"5"}],
    }
    _, outcome = ask(BOB, answer)
    assert isinstance(outcome, Admitted)
    assert outcome.head.header(b"x-left") == b"3"
    assert outcome.response_headers == ((b"x-limit", b"5"),)


@pytest.mark.parametrize("code", [0, 1, 7, None])
def test_an_answer_that_does_not_say_over_lets_through(code: int | None) -> None:
    _, outcome = ask(BOB, {"overall_code": code}, failure_mode_deny="true")
    assert isinstance(outcome, Admitted)


@pytest.mark.parametrize(("attributes", "status"), [({}, None), ({"failure_mode_deny": "true"}, 500)])
def test_a_service_that_fails_lets_through_unless_it_says_otherwise(
    attributes: dict[str, Any], status: int | None
) -> None:
    _, outcome = ask(BOB, UpstreamConnectError("refused"), **attributes)
    assert (outcome.status if isinstance(outcome, Reply) else None) == status
    assert BOB.asked.rate_limit == "error"


def test_what_the_auth_service_has_granted_is_counted() -> None:
    rules = RULES + auth_service(allowed_authorization_headers="[x-user]")
    calls, outcome = ask(BOB, HttpAnswer(200, [(b"x-user", b"vip")]), OK, rules=rules)
    assert [type(call) for call in calls] == [AskHttp, AskGrpc]
    assert calls[1].message["descriptors"] == [{"entries": [{"key": "generic_key", "value": "vip"}]}]
    assert isinstance(outcome, Admitted)
    assert outcome.decision is not None
    assert outcome.decision.mapping.name == "vip"


def test_what_the_auth_service_refuses_is_not_counted() -> None:
    calls, outcome = ask(BOB, HttpAnswer(401, []), rules=RULES + auth_service())
    assert len(calls) == 1
    assert isinstance(outcome, Reply)


def test_an_app_is_limited_but_for_its_probes() -> None:
    rules = mapping("own", "/", "me", labels="{ambassador: [{g: [all]}]}")
    assert len(ask(get("/x"), rules=rules, middleware=True)[0]) == 1
    assert ask(get("/healthz"), rules=rules, middleware=True)[0] == []
