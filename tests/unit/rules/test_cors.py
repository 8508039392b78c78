import pytest
from rules import HOP, decision_of, document, get, one

from canary_mw.forwarding.exchange import exchange
from canary_mw.forwarding.headers import response_head
from canary_mw.forwarding.messages import Relay, Reply
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.rules.cors import CorsPolicy, cors_policy, preflight_headers, with_cors_headers

POLICY = cors_policy(
    origins=["http://a.com", "http://b.com"],
    methods=["GET", "POST"],
    headers=["x-a", "x-b"],
    exposed_headers=["x-c", "x-d"],
    credentials=True,
    max_age="600",
)


def preflight(origin: str = "http://a.com", method: str = "OPTIONS", **headers: str) -> RequestHead:
    asked = {"access-control-request-method": "PUT"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return RequestHead(method, "/svc/", {"origin": origin, **asked})


def test_a_preflight_of_an_allowed_origin_is_answered_with_the_lists() -> None:
    assert preflight_headers(POLICY, preflight()) == [
        (b"access-control-allow-origin", b"http://a.com"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-c, x-d"),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"x-a, x-b"),
        (b"access-control-max-age", b"600"),
    ]


def test_what_the_policy_does_not_name_is_not_sent() -> None:
    assert preflight_headers(cors_policy(origins=["*"]), preflight()) == [
        (b"access-control-allow-origin", b"http://a.com"),
    ]


@pytest.mark.parametrize(
    "head",
    [
        preflight("http://c.com"),
        preflight("http://A.com"),
        preflight("http://a.com:80"),
        preflight("http://a.com", "GET"),
        RequestHead("OPTIONS", "/", {"origin": "http://a.com"}),
        RequestHead("OPTIONS", "/", {"origin": "http://a.com", "access-control-request-method": ""}),
        RequestHead("OPTIONS", "/", {"access-control-request-method": "GET"}),
    ],
)
def test_no_other_request_is_answered_here(head: RequestHead) -> None:
    assert preflight_headers(POLICY, head) is None


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (["http://a.com"], b"http://a.com", True),
        (["http://a.com"], b"http://a.co", False),
        (["*"], b"null", True),
        (["http://*.com"], b"http://a.com", False),
        ([], b"http://a.com", False),
        (["*"], None, False),
    ],
)
def test_origins_are_exact_or_a_star(origins: list[str], origin: bytes | None, allowed: bool) -> None:
    assert cors_policy(origins=origins).allows(origin) is allowed


def test_an_answer_to_an_allowed_origin_gets_our_word_instead_of_the_upstreams() -> None:
    theirs = [(b"x-a", b"1"), (b"access-control-allow-origin", b"*"), (b"access-control-max-age", b"1")]
    assert with_cors_headers(POLICY, get(headers={"origin": "http://b.com"}), theirs) == [
        (b"x-a", b"1"),
        (b"access-control-max-age", b"1"),
        (b"access-control-allow-origin", b"http://b.com"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-c, x-d"),
    ]


@pytest.mark.parametrize("headers", [{}, {"origin": "http://c.com"}])
def test_an_answer_to_anybody_else_stays_as_it_is(headers: dict[str, str]) -> None:
    theirs = [(b"access-control-allow-origin", b"*")]
    assert with_cors_headers(POLICY, get(headers=headers), theirs) == theirs


def test_a_mapping_answers_its_preflights_and_marks_its_answers() -> None:
    rule = one(document(prefix="/svc/", cors="{origins: 'http://a.com,http://b.com', methods: GET}"))
    with pytest.raises(StopIteration) as answered:
        next(exchange(decision_of(rule), preflight("http://b.com"), HOP))
    reply = answered.value.value
    assert isinstance(reply, Reply)
    assert reply == Reply(
        200,
        headers=[
            (b"access-control-allow-origin", b"http://b.com"),
            (b"access-control-allow-methods", b"GET"),
            (b"content-length", b"0"),
        ],
    )
    head = response_head(rule, ResponseHead(200, []), get(headers={"origin": "http://a.com"}), HOP)
    assert head.headers == [(b"access-control-allow-origin", b"http://a.com")]


@pytest.mark.parametrize("head", [preflight("http://c.com"), RequestHead("OPTIONS", "/svc/", {})])
def test_a_preflight_of_a_foreign_origin_and_a_plain_options_go_upstream(head: RequestHead) -> None:
    rule = one(document(prefix="/svc/", cors="{origins: 'http://a.com'}"))
    conversation = exchange(decision_of(rule), head, HOP)
    assert next(conversation).method == "OPTIONS"
    with pytest.raises(StopIteration) as ended:
        conversation.send(ResponseHead(204, []))
    assert ended.value.value == Relay(ResponseHead(204, []))


@pytest.mark.parametrize(
    ("version", "cors", "origins"),
    [
        ("v2", "{origins: 'a,b'}", {b"a", b"b"}),
        ("v2", "{origins: 'a, b'}", {b"a", b" b"}),
        ("v2", "{origins: [a, 'b,c']}", {b"a", b"b,c"}),
        ("v3alpha1", "{origins: [a]}", {b"a"}),
        ("v2", "{}", set()),
    ],
)
def test_origins_of_a_mapping_are_a_list_or_a_text_with_commas(version: str, cors: str, origins: set[bytes]) -> None:
    policy = one(document(version=version, cors=cors)).cors
    assert isinstance(policy, CorsPolicy)
    assert policy.origins == origins
