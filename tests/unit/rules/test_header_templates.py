import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import HOP, document, get, one

from canary_mw.exceptions import MappingError
from canary_mw.forwarding.headers import apply_header_changes, response_head
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.rules.header_templates import HeaderTemplate, TemplateContext, compile_template
from canary_mw.rules.mapping import HeaderChange

HEAD = RequestHead(
    "PUT",
    "/svc/a?b=1",
    [("host", "example.com:8080"), ("x-a", "first"), ("x-a", "second"), ("x-empty", "")],
    client="192.0.2.7",
    client_port=40123,
    scheme="https",
    http_version="1.0",
)
RESPONSE = ResponseHead(207, [(b"x-r", b"one"), (b"x-r", b"two"), (b"x-void", b"")])
NOW = 1_700_000_000.123456
CONTEXT = TemplateContext(HEAD, RESPONSE, NOW)


def value(text: str, context: TemplateContext = CONTEXT) -> bytes:
    compiled = compile_template(text)
    return compiled if isinstance(compiled, bytes) else compiled.render(context)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("%REQ(x-a)%", b"first"),
        ("%REQ(X-A)%", b"first"),
        ("%REQ(x-none)%", b""),
        ("%REQ(x-none?x-a)%", b"first"),
        ("%REQ(x-empty?x-a)%", b"first"),
        ("%REQ(x-a?x-none)%", b"first"),
        ("%REQ(:path)%", b"/svc/a?b=1"),
        ("%REQ(:PATH)%", b"/svc/a?b=1"),
        ("%REQ(:method)%", b"PUT"),
        ("%REQ(:scheme)%", b"https"),
        ("%REQ(:authority)%", b"example.com:8080"),
        ("%REQ(host)%", b"example.com:8080"),
        ("%REQ(x-a):2%", b"fi"),
        ("%REQ(x-a):0%", b""),
        ("%REQ(x-none?x-a):3%", b"fir"),
        ("%REQ(x-a):99%", b"first"),
        ("%RESP(x-r)%", b"one"),
        ("%RESP(X-None?X-R)%", b"one"),
        ("%RESP(x-void?x-r):2%", b"on"),
        ("%RESP(x-none)%", b""),
        ("%PROTOCOL%", b"HTTP/1.0"),
        ("%PROTOCOL:4%", b"HTTP"),
        ("%RESPONSE_CODE%", b"207"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", b"192.0.2.7:40123"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", b"192.0.2.7"),
        ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", b"192.0.2.7:40123"),
        ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", b"192.0.2.7"),
        ("%DOWNSTREAM_REMOTE_PORT%", b"40123"),
        ("a-%PROTOCOL%-%%-%REQ(x-a)%-z", b"a-HTTP/1.0-%-first-z"),
        ("%PROTOCOL%%PROTOCOL%", b"HTTP/1.0HTTP/1.0"),
        ("%%PROTOCOL%%", b"%PROTOCOL%"),
        ("100%%", b"100%"),
        ("plain", b"plain"),
        ("tab\there", b"tab\there"),
        ("é", "é".encode()),
        ("", b""),
    ],
)
def test_operators_give_their_value(text: str, result: bytes) -> None:
    assert value(text) == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("%START_TIME%", b"2023-11-14T22:13:20.123Z"),
        ("%START_TIME()%", b"2023-11-14T22:13:20.123Z"),
        ("%START_TIME(%Y/%m/%dT%H:%M:%S)%", b"2023/11/14T22:13:20"),
        ("%START_TIME(%s)%", b"1700000000"),
        ("%START_TIME(%s.%3f)%", b"1700000000.123"),
        ("%START_TIME(%6f)%", b"123456"),
        ("%START_TIME(%9f)%", b"123456000"),
        ("%START_TIME(%1f)%", b"1"),
        ("%START_TIME(%H)%h", b"22h"),
        ("%START_TIME(%Y):2%", b"20"),
    ],
)
def test_the_start_time_is_utc_in_the_given_format(text: str, result: bytes) -> None:
    assert value(text) == result


def test_an_ipv6_address_with_a_port_is_in_brackets() -> None:
    context = TemplateContext(get(client="2001:db8::1", client_port=5), None, 0.0)
    assert value("%DOWNSTREAM_REMOTE_ADDRESS%", context) == b"[2001:db8::1]:5"
    assert value("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", context) == b"2001:db8::1"


def test_an_unknown_value_is_empty() -> None:
    context = TemplateContext(get(client=None), None, 0.0)
    assert value("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", context) == b""
    assert value("%RESP(x-r)%", context) == b""
    assert value("%RESPONSE_CODE%", context) == b"0"
    assert value("%REQ(:authority)%", context) == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5%", "a bare %"),
        ("%", "a bare %"),
        ("%%%", "a bare %"),
        ("% PROTOCOL%", "a bare %"),
        ("%protocol%", "a bare %"),
        ("%REQ(x-a%", "a bare %"),
        ("%NOVELTY%", "%NOVELTY% is not an operator that is known here"),
        ("%NOVELTY(a)%", "%NOVELTY(a)% is not an operator"),
        ("%PROTOCOL(x)%", "%PROTOCOL(x)% is not an operator"),
        ("%REQ%", "%REQ% needs the name of a header"),
        ("%RESP()%", "%RESP% needs the name of a header"),
        ("a\r\nb", "control character"),
        ("a\0b", "control character"),
        ("\x7f", "control character"),
    ],
)
def test_a_value_that_cannot_be_evaluated_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(MappingError) as caught:
        compile_template(text)
    assert message in caught.value.message


def test_a_length_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(MappingError, match="bare %"):
        compile_template("%REQ(x-a):" + "1" * 5000 + "%")


def test_an_unknown_operator_names_the_known_ones() -> None:
    with pytest.raises(MappingError) as caught:
        compile_template("%HOSTNAME%")
    assert "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" in str(caught.value.hint)
    assert "START_TIME" in str(caught.value.hint)


def test_a_header_with_an_empty_template_value_is_not_added_and_replaces_nothing() -> None:
    add = [
        HeaderChange(b"x-a", compile_template("%REQ(x-none)%"), append=False),
        HeaderChange(b"x-b", compile_template("%REQ(x-none)%")),
        HeaderChange(b"x-c", compile_template("")),
        HeaderChange(b"x-d", compile_template("-%REQ(x-none)%")),
    ]
    assert apply_header_changes([(b"x-a", b"kept")], (), add, CONTEXT) == [
        (b"x-a", b"kept"),
        (b"x-c", b""),
        (b"x-d", b"-"),
    ]


def test_response_headers_are_rendered_from_request_and_response() -> None:
    rule = one(
        document(
            prefix="/svc/",
            add_response_headers="{x-both: '%REQ(x-a)%-%RESP(x-r)%-%RESPONSE_CODE%', x-time: '%START_TIME(%s)%'}",
            remove_response_headers="x-r",
        )
    )
    head = response_head(rule, RESPONSE, HEAD, HOP._replace(now=lambda: NOW))
    assert head.headers == [(b"x-void", b""), (b"x-both", b"first-one-207"), (b"x-time", b"1700000000")]


def test_a_value_without_operators_is_plain_bytes_and_equal_texts_are_equal() -> None:
    assert isinstance(compile_template("a%%b"), bytes)
    assert isinstance(compile_template("%PROTOCOL%"), HeaderTemplate)
    assert compile_template("%REQ(x)%") == compile_template("%REQ(x)%")
    assert compile_template("%REQ(x)%") != compile_template("%REQ(y)%")


parts = st.sampled_from(
    [
        "%REQ(x-a)%",
        "%RESP(x-r)%",
        "%REQ(:path)%",
        "%START_TIME(%Y)%",
        "%START_TIME(a%nb)%",
        "%%",
        "a",
        "%",
        "\r",
        "\n",
        ":",
    ]
)
sent = st.text(st.sampled_from("ab\r\n\0"), max_size=4)


@given(st.lists(parts, max_size=4).map("".join), sent, sent)
def test_no_value_adds_a_header_line(text: str, requested: str, received: str) -> None:
    head = RequestHead("GET", "/", [("x-a", requested)])
    context = TemplateContext(head, ResponseHead(200, [(b"x-r", received.encode())]), NOW)
    try:
        written = value(text, context)
    except MappingError:
        return
    assert not set(b"\r\n\0") & {*written}
