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
    requested = {"access-control-request-method": "PUT"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return RequestHead(method, "/svc/", {"origin": origin, **requested})


def test_a_preflight_of_an_allowed_origin_gets_all_headers() -> None:
    assert preflight_headers(POLICY, preflight()) == [
        (b"access-control-allow-origin", b"http://a.com"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-c, x-d"),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"x-a, x-b"),
        (b"access-control-max-age", b"600"),
    ]


def test_headers_that_the_policy_does_not_set_are_not_sent() -> None:
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
def test_no_other_request_is_a_preflight(head: RequestHead) -> None:
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


def test_headers_for_an_allowed_origin_replace_those_of_the_upstream() -> None:
    received = [(b"x-a", b"1"), (b"access-control-allow-origin", b"*"), (b"access-control-max-age", b"1")]
    assert with_cors_headers(POLICY, get(headers={"origin": "http://b.com"}), received) == [
        (b"x-a", b"1"),
        (b"access-control-max-age", b"1"),
        (b"access-control-allow-origin", b"http://b.com"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-c, x-d"),
    ]


@pytest.mark.parametrize("headers", [{}, {"origin": "http://c.com"}])
def test_a_response_to_another_origin_is_unchanged(headers: dict[str, str]) -> None:
    received = [(b"access-control-allow-origin", b"*")]
    assert with_cors_headers(POLICY, get(headers=headers), received) == received


def test_a_mapping_answers_preflights_and_adds_headers_to_responses() -> None:
    rule = one(document(prefix="/svc/", cors="{origins: 'http://a.com,http://b.com', methods: GET}"))
    with pytest.raises(StopIteration) as stopped:
        next(exchange(decision_of(rule), preflight("http://b.com"), HOP))
    reply = stopped.value.value
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
def test_a_preflight_of_another_origin_and_a_plain_options_go_upstream(head: RequestHead) -> None:
    rule = one(document(prefix="/svc/", cors="{origins: 'http://a.com'}"))
    forwarded = exchange(decision_of(rule), head, HOP)
    assert next(forwarded).method == "OPTIONS"
    with pytest.raises(StopIteration) as ended:
        forwarded.send(ResponseHead(204, []))
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
