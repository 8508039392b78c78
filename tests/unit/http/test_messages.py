import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from canary_mw.config.document import Diagnostic
from canary_mw.exceptions import (
    BadTarget,
    BodyTooLarge,
    CanaryError,
    ClientError,
    ConfigError,
    LoopDetected,
    MappingError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from canary_mw.http.messages import RequestHead, raw_headers
from canary_mw.http.target import normalize_path
from canary_mw.rules.upstream import Origin


@pytest.mark.parametrize(
    ("received", "normal"),
    [
        ("/", "/"),
        ("/svc/a", "/svc/a"),
        ("/svc//a", "/svc//a"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a\\..\\b", "/b"),
        ("/a/..b/...", "/a/..b/..."),
        ("/%73vc/%7E", "/svc/~"),
        ("/a%2Fb%2f..", "/a%2Fb%2f.."),
        ("/%C3%c3", "/%C3%c3"),
        ("/100%", "/100%"),
        ("/%zz", "/%zz"),
        ("/%2541", "/%2541"),
        ("//..", "/"),
        ("", "/"),
        ("*", "*"),
        ("http://evil.example/svc/../a", "/a"),
        ("HTTPS://evil.example", "/"),
    ],
)
def test_a_path_has_one_form(received: str, normal: str) -> None:
    assert normalize_path(received.encode()) == normal.encode()


@pytest.mark.parametrize("received", ["/%%32%65%%32%65/", "/%2%65%2%65/", "/%%34%31", "/a/%%32e%2%65/"])
def test_decoding_never_makes_a_new_escape(received: str) -> None:
    """Otherwise an upstream that decodes again would see dot segments that were not matched."""
    once = normalize_path(received.encode())
    assert normalize_path(once) == once
    assert b"%2e" not in once.lower()
    assert b"%41" not in once


@pytest.mark.parametrize(
    "target",
    [
        "/a#b",
        "/a b",
        "/a\tb",
        "/a\nb",
        "/\x7f",
        "/é",
        "/a→b",
        "/%00",
        "/a%00b",
        "svc/a",
        "ftp://host/svc",
        "host:443",
    ],
)
def test_a_target_that_is_not_a_path_is_refused(target: str) -> None:
    with pytest.raises(BadTarget):
        RequestHead("GET", target)


@pytest.mark.parametrize("query", ["?a#b", "?a b", "?é", "?a=→", "?\r\nx:"])
def test_a_query_with_bytes_that_a_target_may_not_hold_is_refused(query: str) -> None:
    with pytest.raises(BadTarget):
        RequestHead("GET", "/" + query)


path_texts = st.text(alphabet="/.%\\25eEfFaA4~-_;:", max_size=14).map(lambda text: "/" + text)


@given(path_texts)
@example("/%%32%65%%32%65")
@example("/%2%45/..")
def test_normalising_twice_changes_nothing_and_leaves_no_dot_segment(path: str) -> None:
    once = normalize_path(path.encode())
    assert normalize_path(once) == once
    assert once.startswith(b"/")
    assert b"\\" not in once
    assert {b".", b".."}.isdisjoint(once.split(b"/"))


@given(st.binary(max_size=12))
def test_any_path_is_normalised_or_refused(tail: bytes) -> None:
    try:
        once = normalize_path(b"/" + tail)
    except BadTarget:
        return
    assert normalize_path(once) == once
    assert once.isascii()
    assert b"#" not in once
    assert min(once) > 0x20


@given(path_texts, st.text(alphabet="ab=&%2", max_size=5))
def test_a_head_from_parsed_parts_is_the_same(path: str, query: str) -> None:
    head = RequestHead("GET", f"{path}?{query}" if query else path, {"Host": "a"}, client=None, scheme="https")
    wire = RequestHead.from_wire("GET", path.encode(), query.encode(), [(b"host", b"a")], None, "https", "1.0")
    assert (wire.path, wire.query, wire.headers) == (head.path, head.query, head.headers)
    assert (wire.client, wire.scheme, wire.http_version) == (None, "https", "1.0")


def test_the_query_stays_as_it_was_received() -> None:
    head = RequestHead("GET", "/%61?x=%61&&/../y?z")
    assert (head.path, head.query) == (b"/a", b"?x=%61&&/../y?z")
    assert repr(head) == "RequestHead('GET', '/a?x=%61&&/../y?z')"


def test_a_query_from_the_wire_is_checked_too() -> None:
    with pytest.raises(BadTarget):
        RequestHead.from_wire("GET", b"/", b"a b", [], None, "http", "1.1")


def test_header_names_are_folded_and_values_trimmed_and_repeats_kept() -> None:
    pairs = raw_headers([("X-A", " 1\t"), (b"x-a", b"2"), ("X-B", "é")])
    assert pairs == [(b"x-a", b"1"), (b"x-a", b"2"), (b"x-b", b"\xe9")]
    head = RequestHead("GET", "/", {"Host": "Example.com"})
    assert head.host == b"Example.com"
    assert head.header(b"x-a") is None
    assert RequestHead("GET", "/", pairs).header(b"x-a") == b"1"


def test_an_authority_puts_an_ipv6_address_in_brackets() -> None:
    assert Origin("http", "svc", 80).authority == "svc:80"
    assert Origin("http", "::1", 8080).authority == "[::1]:8080"


def test_a_finding_names_place_and_hint_where_known() -> None:
    full = Diagnostic(severity="error", code="x-y", message="it is wrong", file="a.yaml", line=3, hint="mend it")
    assert str(full) == "a.yaml:3: error x-y it is wrong (mend it)"
    assert str(Diagnostic(severity="notice", code="x", message="m", file="a.yaml")) == "a.yaml: notice x m"


def test_a_config_error_names_place_mapping_and_hint_where_known() -> None:
    full = MappingError("it is wrong", file="a.yaml", line=3, mapping="shop", hint="mend it")
    assert str(full) == "a.yaml:3: Mapping shop: it is wrong (mend it)"
    assert str(ConfigError("it is wrong")) == "it is wrong"
    assert (full.file, full.line, full.mapping, full.hint) == ("a.yaml", 3, "shop", "mend it")


@pytest.mark.parametrize(
    ("kind", "base", "status"),
    [
        (UpstreamConnectError, UpstreamError, 503),
        (UpstreamTimeout, UpstreamError, 504),
        (UpstreamProtocolError, UpstreamError, 502),
        (BadTarget, ClientError, 400),
        (BodyTooLarge, ClientError, 413),
        (LoopDetected, ClientError, 508),
    ],
)
def test_an_error_has_the_status_of_the_response(kind: type[CanaryError], base: type[CanaryError], status: int) -> None:
    error = kind("why")
    assert isinstance(error, base)
    assert getattr(error, "status_hint", None) == status
    assert str(error) == "why"


def test_an_upstream_error_says_whether_the_request_may_have_been_sent() -> None:
    assert UpstreamTimeout("late", sent=True).sent
    assert not UpstreamConnectError("refused").sent
