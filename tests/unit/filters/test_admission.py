"""Whether a request may go on: what the service is asked, and what its answers mean, without any server."""

from collections.abc import Callable
from typing import Any

import pytest
from auth_rules import auth_service
from rules import HOP, get
from servers import mapping

from canary_mw.exceptions import LoopDetected, UpstreamConnectError
from canary_mw.forwarding.filters.admission import admission
from canary_mw.forwarding.filters.calls import Admitted, AskHttp, BodyStart, Facts, HttpAnswer, WantBody
from canary_mw.forwarding.filters.guarding import is_same_path
from canary_mw.forwarding.messages import Reply
from canary_mw.http.messages import RequestHead
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.rules.filters.auth import PROBES

RULES = (
    mapping("shop", "/shop/", "shop")
    + mapping("moved", "/old/", "shop", host_redirect="true")
    + mapping("open", "/open/", "shop", bypass_auth="true")
    + mapping("shared", "/shared/", "shop", cors='{origins: ["http://ok.example"], methods: [GET]}')
    + mapping("split", "/split/", "shop", weight="20", bypass_auth="true")
)


class Asked:
    """One admission, driven by hand.

    Attributes:
        calls: what it has asked for.
        outcome: None before its end.
    """

    def __init__(self, head: RequestHead, rules: str, *answers: Any, middleware: bool = False, **facts: Any) -> None:
        table = RouteTable.from_yaml(rules, middleware=middleware)
        assert table.filters is not None
        roll = facts.pop("roll", 0.0)
        given = {"unguarded": frozenset(PROBES), **facts}
        known = Facts(
            lambda other: decide(table, other, roll), HOP, middleware, iter(range(99)).__next__, float, **given
        )
        steps = admission(table, table.filters, decide(table, head, roll), head, known)
        self.calls: list[Any] = []
        self.outcome: Admitted | Reply | None = None
        try:
            wanted: Any = next(steps)
            for answer in answers:
                self.calls.append(wanted)
                wanted = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
            self.calls.append(wanted)
        except StopIteration as stop:
            self.outcome = stop.value

    @property
    def call(self) -> AskHttp:
        """The only call."""
        (found,) = [each for each in self.calls if isinstance(each, AskHttp)]
        return found

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers of the only call."""
        return dict(self.call.request.headers)

    @property
    def admitted(self) -> Admitted:
        """The request that goes on."""
        assert isinstance(self.outcome, Admitted)
        return self.outcome

    @property
    def reply(self) -> Reply:
        """The answer to the client."""
        assert isinstance(self.outcome, Reply)
        return self.outcome


OK = HttpAnswer(200, [])


def ask(head: RequestHead, *answers: Any, rules: str = RULES, **attributes: Any) -> Asked:
    """An admission of the proxy."""
    return Asked(head, rules + auth_service(**attributes), *answers)


def local(head: RequestHead, *answers: Any, **facts: Any) -> Asked:
    """An admission in an app."""
    return Asked(
        head, RULES + auth_service(allowed_authorization_headers="[x-user]"), *answers, middleware=True, **facts
    )


def test_the_service_gets_method_path_and_named_headers() -> None:
    head = RequestHead("DELETE", "/shop/%41//b?x=%2f", {"host": "a.b", "x-tok": "t", "accept": "*/*", "from": "me"})
    asked = ask(head, OK, path_prefix="/check", allowed_request_headers="[X-Tok]")
    assert (asked.call.request.method, asked.call.request.target) == ("DELETE", b"/check/shop/A//b?x=%2f")
    assert asked.headers[b"host"] == b"a.b"
    assert (asked.headers[b"x-tok"], asked.headers[b"from"]) == (b"t", b"me")
    assert b"accept" not in asked.headers
    assert asked.call.request.body == (0,)
    assert asked.admitted.head is head


def test_what_is_added_takes_the_place_of_what_a_client_sends() -> None:
    head = get("/shop/", [("x-api", "mine"), ("x_api", "mine"), ("cookie", "a=1"), ("cookie", "b=2")])
    asked = ask(head, OK, add_auth_headers="{X-Api: ours}", allowed_request_headers='["*"]')
    assert asked.headers[b"x-api"] == b"ours"
    assert b"x_api" not in asked.headers
    assert asked.headers[b"cookie"] == b"a=1; b=2"


@pytest.mark.parametrize(
    "name", ["host", "connection", "upgrade", "te", "expect", "content-length", "sec-websocket-key", "x-forwarded-by"]
)
def test_all_headers_are_those_that_concern_the_service(name: str) -> None:
    asked = ask(get("/shop/", [("host", "a"), (name, "1")]), OK, allowed_request_headers='["*"]')
    found = [pair for pair in asked.call.request.headers if pair == (name.encode(), b"1")]
    assert found == ([(b"x-forwarded-by", b"1")] if name == "x-forwarded-by" else [])


def test_a_loop_is_refused() -> None:
    with pytest.raises(LoopDetected):
        ask(get("/shop/", {"via": "1.1 canary-mw-test"}))
    assert ask(get("/shop/"), OK).headers[b"via"] == b"1.1 canary-mw-test"


@pytest.mark.parametrize("path", ["/old/x", "/nowhere/", "/open/x"])
def test_a_redirect_what_nobody_takes_and_a_free_mapping_ask_nobody(path: str) -> None:
    head = get(path, {"x-user": "me"})
    asked = ask(head)
    assert asked.calls == []
    assert asked.admitted.head is head


@pytest.mark.parametrize(("origin", "asks"), [("http://ok.example", 0), ("http://other.example", 1)])
def test_only_the_preflight_of_an_allowed_origin_asks_nobody(origin: str, asks: int) -> None:
    head = RequestHead("OPTIONS", "/shared/", {"origin": origin, "access-control-request-method": "GET"})
    assert len(ask(head).calls) == asks


def test_a_refusal_has_the_headers_of_cors() -> None:
    answer = HttpAnswer(401, [(b"www-authenticate", b"Basic"), (b"x-secret", b"s")], b"who?")
    reply = ask(get("/shared/", {"origin": "http://ok.example"}), answer).reply
    headers = dict(reply.headers or ())
    assert (reply.status, reply.body) == (401, b"who?")
    assert headers[b"access-control-allow-origin"] == b"http://ok.example"
    assert headers[b"www-authenticate"] == b"Basic"
    assert b"x-secret" not in headers


@pytest.mark.parametrize("status", [201, 204, 206, 301, 304, 400, 499])
def test_every_status_below_500_but_200_refuses(status: int) -> None:
    reply = ask(get("/shop/"), HttpAnswer(status, [(b"set-cookie", b"a"), (b"set-cookie", b"b")], b"body")).reply
    assert reply.status == status
    assert [value for name, value in reply.headers or () if name == b"set-cookie"] == [b"a", b"b"]
    assert reply.body == (b"" if status in (204, 304) else b"body")


@pytest.mark.parametrize("answer", [HttpAnswer(500, []), HttpAnswer(599, []), UpstreamConnectError("refused")])
@pytest.mark.parametrize(
    ("attributes", "status"),
    [({}, 403), ({"status_on_error": "{code: 503}"}, 503), ({"failure_mode_allow": "true"}, 0)],
)
def test_a_service_that_fails_closes_the_door_unless_it_says_otherwise(
    answer: Any, attributes: dict[str, str], status: int
) -> None:
    outcome = ask(get("/shop/"), answer, **attributes).outcome
    if status:
        assert isinstance(outcome, Reply)
        assert (outcome.status, outcome.body) == (status, b"")
    else:
        assert isinstance(outcome, Admitted)


def test_headers_that_no_service_may_set_or_remove_stay() -> None:
    names = "host, content-length, transfer-encoding, via, cookie"
    answer = HttpAnswer(200, [(b"host", b"evil"), (b"te", b"x"), (b"x-envoy-auth-headers-to-remove", names.encode())])
    head = get("/shop/", {"host": "a", "content-length": "0", "cookie": "c=1"})
    changed = ask(head, answer, allowed_authorization_headers="[host, te]").admitted.head
    assert changed.headers == [(b"host", b"a"), (b"content-length", b"0")]


def test_a_value_that_is_none_is_not_granted() -> None:
    answer = HttpAnswer(200, [(b"x-user", b"a\r\nx-role: admin"), (b"x-role", b"b")])
    head = get("/shop/", {"host": "a", "x-user": "admin"})
    found = ask(head, answer, allowed_authorization_headers="[x-user, x-role]").admitted.head
    assert found.headers == [(b"host", b"a"), (b"x-role", b"b")]


def test_several_services_take_turns() -> None:
    rules = RULES + auth_service(name="b", service="two") + auth_service(name="a", service="one")
    table = RouteTable.from_yaml(rules)
    assert table.filters is not None
    assert table.filters.auth is not None
    assert [each.text for each in table.filters.auth.services] == ["one", "two"]


# The beginning of a body.

BODY = {"include_body": "{max_bytes: 4, allow_partial: true}"}
WHOLE = {"include_body": "{max_bytes: 4, allow_partial: false}"}


def post(*headers: tuple[str, str]) -> RequestHead:
    return RequestHead("POST", "/shop/", [("host", "a"), *headers])


@pytest.mark.parametrize("framing", [("content-length", "6"), ("transfer-encoding", "chunked")])
@pytest.mark.parametrize(("more", "said"), [(True, b"true"), (False, b"false")])
def test_the_service_gets_the_beginning_of_a_body(framing: tuple[str, str], more: bool, said: bytes) -> None:
    asked = ask(post(framing), BodyStart(b"abcd", more), OK, **BODY)
    assert asked.calls[0] == WantBody(4)
    assert asked.call.body == b"abcd"
    assert asked.call.request.body == (4,)
    assert asked.headers[b"x-envoy-auth-partial-body"] == said


@pytest.mark.parametrize("head", [get("/shop/"), post(("content-length", "0"))])
def test_no_body_is_waited_for_where_there_is_none(head: RequestHead) -> None:
    asked = ask(head, OK, **BODY)
    assert asked.call.body is None
    assert b"x-envoy-auth-partial-body" not in asked.headers


def test_a_body_that_may_not_be_cut_is_refused_unasked() -> None:
    assert ask(post(("content-length", "5")), **WHOLE).reply.status == 413
    chunked = ask(post(("transfer-encoding", "chunked")), BodyStart(b"abcd", True), **WHOLE)
    assert (chunked.reply.status, chunked.reply.body) == (413, b"Payload Too Large")
    assert chunked.calls == [WantBody(4)]


# In an app.


@pytest.mark.parametrize("path", ["/shop/x", "/nowhere", "/old/x", "/"])
def test_an_app_is_guarded_also_where_no_mapping_leads(path: str) -> None:
    assert len(local(get(path)).calls) == (0 if path == "/old/x" else 1)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez", "/x/../healthz"])
def test_probes_are_not_asked_about_by_the_path_that_the_app_sees(path: str) -> None:
    assert local(get(path)).calls == []
    assert len(local(get(path), same_path=False).calls) == 1


def test_a_probe_has_no_header_that_only_the_service_grants() -> None:
    found = local(get("/healthz", {"x-user": "admin", "host": "a"})).admitted.head
    assert found.headers == [(b"host", b"a")]


def test_an_app_may_leave_out_what_no_mapping_takes() -> None:
    found = local(get("/nowhere", {"x-user": "admin"}), guard_unmapped=False)
    assert found.calls == []
    assert found.admitted.head.headers == []
    assert len(local(get("/shop/"), guard_unmapped=False).calls) == 1


@pytest.mark.parametrize("roll", [10.0, 90.0])
def test_the_share_of_the_app_has_the_policy_of_its_group(roll: float) -> None:
    assert local(get("/split/"), roll=roll).calls == []


def test_a_free_mapping_is_none_for_a_path_that_the_app_reads_in_another_way() -> None:
    rules = RULES.replace("service: shop", "service: me") + auth_service()
    table = RouteTable.from_yaml(rules, local=["me"], middleware=True)
    head = get("/secret/../open/x")
    assert table.filters is not None
    for same, asks in ((True, 0), (False, 1)):
        facts = Facts(lambda other: decide(table, other, 0.0), HOP, True, int, float, same)
        steps = admission(table, table.filters, decide(table, head, 0.0), head, facts)
        calls = 0
        try:
            next(steps)
            calls = 1
        except StopIteration:
            pass
        assert calls == asks


@pytest.mark.parametrize(
    ("path", "app_path", "same"),
    [
        ("/open/a", b"/open/a", True),
        ("/open/caf%C3%A9", "/open/caf\u00e9".encode(), True),
        ("/x/../open/a", b"/x/../open/a", False),
        ("/open/a%2Fb", b"/open/a/b", False),
        ("/secret%2fopen/a", b"/secret/open/a", False),
        ("/open/a%5Cb", b"/open/a\\b", False),
        ("/%6fpen/a", b"/open/a", True),
    ],
)
def test_a_path_is_the_same_for_an_app_segment_by_segment(path: str, app_path: bytes, same: bool) -> None:
    assert is_same_path(get(path), app_path) == same


def test_what_a_canary_mw_has_sent_by_proof_is_not_asked_again() -> None:
    rules = RULES + auth_service(allowed_authorization_headers="[x-user]")
    table = RouteTable.from_yaml(rules, local=["shop"], middleware=True)
    head = get("/shop/", {"x-user": "granted", "host": "a"})
    assert table.filters is not None

    def admitted(is_sent: Callable[[RequestHead, bytes], bool] | None) -> Any:
        facts = Facts(lambda other: decide(table, other, 0.0), HOP, True, int, float, is_sent=is_sent)
        return next(admission(table, table.filters, decide(table, head, 0.0), head, facts))  # type: ignore[arg-type]

    with pytest.raises(StopIteration) as stopped:
        admitted(lambda _, comment: comment == b"(shop)")
    assert stopped.value.value.head is head
    for unproven in (None, lambda *_: False):
        assert isinstance(admitted(unproven), AskHttp)


def test_an_app_answers_the_preflight_of_a_guarded_mapping_itself() -> None:
    rules = RULES.replace("service: shop", "service: me") + auth_service()
    table = RouteTable.from_yaml(rules, local=["me"], middleware=True)
    head = RequestHead("OPTIONS", "/shared/", {"origin": "http://ok.example", "access-control-request-method": "GET"})
    facts = Facts(lambda other: decide(table, other, 0.0), HOP, True, int, float)
    assert table.filters is not None
    with pytest.raises(StopIteration) as stopped:
        next(admission(table, table.filters, decide(table, head, 0.0), head, facts))
    assert stopped.value.value.status == 200


def test_the_app_that_is_the_auth_service_asks_nobody() -> None:
    table = RouteTable.from_yaml(RULES + auth_service(), local=["auth"], middleware=True)
    assert table.filters is None
    assert not table.has_extras
